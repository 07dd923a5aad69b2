"""The checkpoints of a run: writing them, and which of them it goes on from.

    this node's disk    <staging>/step-000120/   written at the boundary; training goes on
          │ train.checkpoint_upload, in a thread
    storage of the run  <place>/step-000120/     the newest `keep` stay, and the best
                        <place>/refused-…        what a start could not take; kept for a person to look at

A start takes the newest checkpoint that is intact and that the engine's ledger knows; the engine goes back to the same
step. Rank 0 alone looks and chooses; the other ranks are told the step. A damaged checkpoint costs the steps since the
one before it, never the run. Storage that cannot be reached is not an empty one: the start waits for it, then fails.

Not done here: what is in a checkpoint (`train.checkpoint`), where it lies (`train.checkpoint_storage`).
"""

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from scheduler.errors import DamagedCheckpointError, LedgerError, StateError
from scheduler.selection import Ranked
from train.checkpoint import Manifest, Saved, read_checkpoint, write_checkpoint
from train.checkpoint_storage import Storage, folder_name, storage_at
from train.checkpoint_upload import Staged, StorageNews, Uploader
from train.coordination import Coordinator
from train.model import load_snapshot

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0
_Value = TypeVar("_Value")


class Start(NamedTuple):
    """Where a worker group begins: its attempt number, and what it goes on from; None at step 0."""

    attempt: int
    saved: Saved | None


class CheckpointStore:
    """The checkpoints of one run, seen from one process.

    Attributes:
        storage: Where they are kept.
        best_step: The one that stays whatever its age; None while none is known to be the best.
    """

    def __init__(
        self,
        place: str | Path,
        *,
        keep: int,
        staging: Path | None = None,
        journal: Path | None = None,
        patience_s: float = 0.0,
        pinned: Collection[int] = (),
    ) -> None:
        """Nothing is read or written yet.

        Args:
            place: Folder or URL of the run's checkpoints.
            keep: How many of the newest stay.
            staging: Folder on this node's disk, of this run alone; by default a hidden one beside the checkpoints.
            journal: File that gets a line when a checkpoint is durable.
            pinned: Steps whose checkpoints stay whatever their age.
            patience_s: How long reading waits for storage that fails, in seconds.
        """
        self.storage: Storage = storage_at(place)
        self.best_step: int | None = None
        self._keep, self._patience_s, self._pinned = keep, patience_s, frozenset(pinned)
        self._staging = staging or Path(place) / ".staging"
        self._uploader = Uploader(self.storage, journal=journal, after_each=self._remove_old)

    @property
    def num_behind(self) -> int:
        """Checkpoints taken since the last one that is durable."""
        return self._uploader.num_behind

    def steps(self) -> list[int]:
        """Steps that have a checkpoint in storage, whole or not, in ascending order."""
        return self._patiently("listed", self.storage.steps)

    def read(self, step: int, *, may_be_staged: bool = True) -> Saved:
        """The checkpoint at `step`, from storage, or if it `may_be_staged` from this node's disk where it still is.

        What lies on a node's disk may be of an earlier attempt: only who took it, or has compared it with the engine's
        state, can tell.

        Raises:
            DamagedCheckpointError: It is not what was written.
            StateError: It was written by another version, or storage could not be reached in time.
        """
        staged = self._staged_folder(step)
        if may_be_staged and staged.is_dir():
            try:
                return _checked(read_checkpoint(staged), step)
            except DamagedCheckpointError:
                shutil.rmtree(staged, ignore_errors=True)
        scratch = self._staging / f"fetched-{time.monotonic_ns()}"
        try:
            return _checked(read_checkpoint(self._patiently("read", lambda: self.storage.fetch(step, scratch))), step)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def write(self, manifest: Manifest, *, weights: Mapping[str, torch.Tensor], optimizer: Mapping[str, Any]) -> None:
        """Stage the checkpoint of `manifest.step` and hand it to the upload; returns without waiting for that.

        A disk of this node that fails is a fault of storage like any other: told in `news`, and training goes on.
        """
        folder = self._staged_folder(manifest.step)
        try:
            shutil.rmtree(folder, ignore_errors=True)
            write_checkpoint(folder, manifest, weights=weights, optimizer=optimizer)
        except OSError as error:
            self._uploader.failed(manifest.step, error)
        else:
            self._uploader.submit(Staged(manifest.step, folder))

    def remove_after(self, step: int) -> bool:
        """Remove the checkpoints after `step`; False, and none is removed, where none is as old as a step above 0."""
        steps = self.steps()
        if step > 0 and not any(at <= step for at in steps):
            return False
        for at in steps:
            if at > step:
                self._patiently("removed", lambda at=at: self.storage.remove(at))
        return True

    def load_best(self, model: nn.Module, ranked: Sequence[Ranked], *, last: Ranked) -> Ranked:
        """Put the best weights into `model`, which holds those of `last`, a step that may be ranked as well.

        A checkpoint that is gone or damaged is passed over for the next best; without any the last weights stay.
        """
        passed = ""
        for candidate in ranked:
            if candidate.step == last.step:
                return Ranked(last.step, candidate.why + passed)
            try:
                load_snapshot(model, self.read(candidate.step).weights)
            except (DamagedCheckpointError, StateError) as error:
                passed += f"; step {candidate.step} was better, but {error}"
            else:
                return Ranked(candidate.step, candidate.why + passed)
        return Ranked(last.step, last.why + passed)

    def news(self) -> list[StorageNews]:
        """What storage did wrong since the last call, and whether it was mended."""
        return self._uploader.news()

    def drain(self, timeout_s: float) -> bool:
        """Wait until every checkpoint taken is durable; False if that is not so in time."""
        return self._uploader.drain(timeout_s)

    def close(self) -> None:
        """End the upload, and remove the staging folder if nothing is left in it."""
        self._uploader.close()
        if self._staging.is_dir() and not any(self._staging.glob("step-*")):
            shutil.rmtree(self._staging, ignore_errors=True)

    def choose(self, coordinator: Coordinator) -> Start:
        """Find where to go on, and begin the attempt there; rank 0 only.

        A damaged checkpoint is set aside before the attempt begins: should it become readable again, the engine, which
        went back behind it, would not know it any more.

        Raises:
            LedgerError: There are checkpoints and the engine knows none that is intact.
            StateError: The newest was written by another version, or storage could not be reached in time.
        """
        self._publish_staged()
        refused: dict[int, str] = {}
        unknown: LedgerError | None = None
        for step in reversed(self.steps()):
            try:
                saved = self.read(step)
                attempt = coordinator.begin(step, saved.manifest.engine, tuple(refused.values()))
            except DamagedCheckpointError as error:
                refused[step] = str(error)
                self._set_aside([step])
            except LedgerError as error:
                refused[step] = f"the checkpoint {folder_name(step)} is not one that the ledger knows"
                unknown = error
            else:
                self._set_aside(list(refused))
                return Start(attempt=attempt, saved=saved)
            logger.warning("%s: %s; looking for an older one", self.storage, refused[step])
        if unknown is not None:
            raise unknown
        if refused:
            logger.warning("%s: no checkpoint is intact; training begins again at step 0", self.storage)
        return Start(attempt=coordinator.begin(0, None, tuple(refused.values())), saved=None)

    def _publish_staged(self) -> None:
        """Finish what a predecessor on this node had begun, so that every rank can read it."""
        folders = sorted(self._staging.glob("step-*")) if self._staging.is_dir() else []
        newest = max(self.steps(), default=0) if folders else 0
        for folder in folders:
            try:
                step = read_checkpoint(folder).manifest.step
            except DamagedCheckpointError as error:
                logger.warning("a checkpoint that waited for its upload is left out: %s", error)
            else:
                if step > newest:
                    self._patiently("written", lambda step=step, folder=folder: self.storage.publish(folder, step))
            shutil.rmtree(folder, ignore_errors=True)

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            self._patiently("set aside", lambda step=step: self.storage.set_aside(step))

    def _remove_old(self) -> None:
        steps = self.storage.steps()
        for step in [step for step in steps if step not in self._pinned][: -self._keep]:
            if step != self.best_step:
                self.storage.remove(step)

    def _staged_folder(self, step: int) -> Path:
        return self._staging / folder_name(step)

    def _patiently(self, what: str, call: Callable[[], _Value]) -> _Value:
        """Call until it works or patience ends."""
        deadline, wait_s = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        while True:
            try:
                return call()
            except Exception as error:
                if time.monotonic() + wait_s > deadline:
                    raise StateError(
                        f"the checkpoints in {self.storage} cannot be {what}: {error}; mend the storage, then go on "
                        "with taskheat run --resume"
                    ) from error
                logger.warning("%s cannot be %s, trying again in %.1f s: %s", self.storage, what, wait_s, error)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _checked(saved: Saved, step: int) -> Saved:
    if saved.manifest.step != step:
        raise DamagedCheckpointError(f"the checkpoint {folder_name(step)} is of step {saved.manifest.step}")
    return saved
