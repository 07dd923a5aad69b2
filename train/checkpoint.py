"""One checkpoint: a folder that holds all that a run needs to go on as if it had not stopped.

    trainable.safetensors   parameters that are trained
    optimizer.pt            optimiser state
    manifest.json           step, stream state, plan, engine state, sample hash; size and hash of every file

The folder gets its name only when all of it is written, and reading checks every byte of it. So a checkpoint is either
what was written or refused: a writer that was killed, a full or failing disk and a careless copy are found out, and
said in words. The hashes guard against accidents; they are no signature.

Random numbers need no state: every random choice is a function of (seed, step, micro-batch). Which checkpoint a run
goes on from is decided in `train.checkpoint_store`, where it is kept in `train.checkpoint_storage`.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from scheduler.errors import DamagedCheckpointError, StateError
from scheduler.fields import build
from scheduler.plan import MixturePlan

MANIFEST, WEIGHTS, OPTIMIZER = "manifest.json", "trainable.safetensors", "optimizer.pt"

_FILES = (WEIGHTS, OPTIMIZER)
_FORMAT = 4
_PARTIAL = ".partial-"
_DIGEST_BYTES = 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint says besides tensors.

    Attributes:
        step: Steps [0, step) are done.
        plan: The plan in force from `step` on.
        stream: State of the mixture stream.
        engine: State of the task-heat engine.
        num_tokens: Supervised tokens trained per task since step 0.
        sequence_hash: Hash of all samples trained since step 0.
        num_arranged: Samples trained alone, in a chain and in a contrast since step 0.
        num_own_answers: Of those in a chain, the ones trained after the model's own earlier answer.
        stepper: State of the stepper: skipped steps and halved micro-batches.
    """

    step: int
    plan: MixturePlan
    stream: dict[str, Any]
    engine: dict[str, Any]
    num_tokens: tuple[int, ...]
    sequence_hash: int
    num_arranged: tuple[int, int, int]
    num_own_answers: int
    stepper: dict[str, Any]


class Saved(NamedTuple):
    """A checkpoint that was read: manifest, trainable parameters and optimiser state.

    The tensors are the files' own pages, which all workers of a host share: copy what is to outlive the files.
    """

    manifest: Manifest
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


def write_checkpoint(
    directory: Path, manifest: Manifest, *, weights: Mapping[str, torch.Tensor], optimizer: Mapping[str, Any]
) -> None:
    """Make the folder `directory`, which must not be there yet; it appears whole or not at all.

    `optimizer` is the optimiser's state dict. Not flushed to disk: that is for where it is kept.
    """
    partial = directory.with_name(_PARTIAL + directory.name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(dict(weights), partial / WEIGHTS)
    torch.save(dict(optimizer), partial / OPTIMIZER)
    files = {name: {"bytes": (partial / name).stat().st_size, "blake2b": _hash_file(partial / name)} for name in _FILES}
    body = {"format": _FORMAT, "content": asdict(manifest), "files": files}
    (partial / MANIFEST).write_text(json.dumps({**body, "blake2b": _hash_json(body)}), encoding="utf-8")
    partial.rename(directory)


def read_checkpoint(directory: Path) -> Saved:
    """Everything in the checkpoint, after every byte of it was checked.

    Raises:
        DamagedCheckpointError: The folder is not, or no longer, what was written; says what differs.
        StateError: It was written by another version.
    """
    body = _checked_manifest(directory)
    for name, expected in body["files"].items():
        _check_file(directory / name, expected)
    try:
        return Saved(
            manifest=build(Manifest, body["content"]),
            weights=load_file(directory / WEIGHTS),
            optimizer=torch.load(directory / OPTIMIZER, map_location="cpu", weights_only=True, mmap=True),
        )
    except OSError as error:
        raise _damaged(directory, f"cannot be read: {error}") from error


def _checked_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not path.is_file():
        raise _damaged(directory, f"{MANIFEST} is missing")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(directory, f"{MANIFEST} cannot be read: {error}") from error
    if not isinstance(body, dict) or "format" not in body:
        raise _damaged(directory, f"{MANIFEST} is not one")
    written = body.pop("blake2b", None)
    if written is not None and written != _hash_json(body):
        raise _damaged(directory, f"{MANIFEST} was altered: its content does not have the hash it names")
    if written is None or body["format"] != _FORMAT:
        raise StateError(f"{directory} was written by another version of taskheat; resume with that version")
    return body


def _check_file(path: Path, expected: Mapping[str, Any]) -> None:
    try:
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            raise _damaged(path.parent, f"{path.name} is missing")
        if size != expected["bytes"]:
            raise _damaged(path.parent, f"{path.name} has {size} bytes, {expected['bytes']} were written")
        if _hash_file(path) != expected["blake2b"]:
            raise _damaged(path.parent, f"{path.name} has the size that was written, but other content")
    except OSError as error:
        raise _damaged(path.parent, f"{path.name} cannot be read: {error.strerror}") from error


def _damaged(directory: Path, what: str) -> DamagedCheckpointError:
    """The message holds no path: it goes into the ledger, which is equal for equal runs."""
    return DamagedCheckpointError(f"the checkpoint {directory.name} is damaged: {what}")


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _hasher).hexdigest()


def _hash_json(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _hasher() -> Any:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)
