"""Checkpoints: one folder holds all that a run needs to go on as if it had not stopped.

    trainable.safetensors   parameters that are trained
    optimizer.pt            optimiser state
    manifest.json           step, stream state, plan, engine state, sample hash

Random numbers need no state: every random choice is a function of (seed, step, micro-batch).
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from scheduler.errors import StateError
from scheduler.plan import MixturePlan

_FORMAT = 2
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    pickle.UnpicklingError,
    SafetensorError,
)


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
    """

    step: int
    plan: MixturePlan
    stream: dict[str, Any]
    engine: dict[str, Any]
    num_tokens: tuple[int, ...]
    sequence_hash: int
    num_arranged: tuple[int, int, int]
    num_own_answers: int


def write_checkpoint(
    directory: Path, manifest: Manifest, *, weights: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Write a checkpoint into the existing, empty `directory`; the manifest comes last."""
    save_file(dict(weights), directory / "trainable.safetensors")
    torch.save(optimizer.state_dict(), directory / "optimizer.pt")
    (directory / "manifest.json").write_text(json.dumps({"format": _FORMAT, **asdict(manifest)}), encoding="utf-8")


def read_checkpoint(directory: Path) -> tuple[Manifest, dict[str, torch.Tensor], dict[str, Any]]:
    """Manifest, trainable parameters and optimiser state (on the CPU).

    Raises:
        StateError: The folder is no checkpoint, or damaged, or of another format.
    """
    path = directory / "manifest.json"
    if not path.is_file():
        raise StateError(f"{directory} is not a complete checkpoint: manifest.json is missing")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format", None) != _FORMAT:
            raise StateError(f"{directory} was written by another version of taskheat; resume with that version")
        plan = MixturePlan.from_fields(fields["plan"])
        manifest = Manifest(
            **{
                **fields,
                "plan": plan,
                "num_tokens": tuple(fields["num_tokens"]),
                "num_arranged": tuple(fields["num_arranged"]),
            }
        )
        weights = load_file(directory / "trainable.safetensors")
        optimizer = torch.load(directory / "optimizer.pt", map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise StateError(f"the checkpoint {directory} is damaged and cannot be resumed from: {error!r}") from error
    return manifest, weights, optimizer
