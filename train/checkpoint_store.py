"""The checkpoints of a run, and which of them it goes on from.

    checkpoints/step-000120/   one folder each, named by its step; the newest `keep` stay
    checkpoints/refused-…      what a start could not take; kept for a person to look at, never read again

A start takes the newest checkpoint that is intact and that the engine's ledger knows; the engine goes back to the same
step. Rank 0 alone looks and chooses; the other ranks are told the step. A damaged checkpoint costs the steps since the
one before it, never the run.

Not done here: what is in a checkpoint (`train.checkpoint`), and telling Ray of it (`train.loop`).
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scheduler.errors import DamagedCheckpointError, LedgerError
from train.checkpoint import Manifest, Saved, read_checkpoint, write_checkpoint
from train.coordination import Coordinator

logger = logging.getLogger(__name__)

_STEP, _REFUSED, _HIDDEN = "step-", "refused-", "."


class Start(NamedTuple):
    """Where a worker group begins: its attempt number, and what it goes on from; None at step 0."""

    attempt: int
    saved: Saved | None


@dataclass(frozen=True, slots=True)
class CheckpointStore:
    """The folder of a run's checkpoints; it need not be there yet.

    The newest `keep` stay, and those of the steps in `pinned`.
    """

    folder: Path
    keep: int
    pinned: frozenset[int] = frozenset()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, whole or not, in ascending order."""
        names = [path.name.removeprefix(_STEP) for path in self.folder.glob(f"{_STEP}*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def path(self, step: int) -> Path:
        """Folder of the checkpoint at `step`."""
        return self.folder / f"{_STEP}{step:06d}"

    def read(self, step: int) -> Saved:
        """The checkpoint at `step`. Raises as `read_checkpoint`."""
        saved = read_checkpoint(self.path(step))
        if saved.manifest.step != step:
            raise DamagedCheckpointError(f"the checkpoint {self.path(step).name} is of step {saved.manifest.step}")
        return saved

    def write(self, manifest: Manifest, *, weights: Mapping[str, torch.Tensor], optimizer: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `manifest.step`, then remove what is not to stay; returns its folder."""
        path = self.path(manifest.step)
        self._set_aside([manifest.step])
        write_checkpoint(path, manifest, weights=weights, optimizer=optimizer)
        self._remove_old()
        return path

    def choose(self, coordinator: Coordinator) -> Start:
        """Find where to go on, and begin the attempt there; rank 0 only.

        A damaged checkpoint is set aside before the attempt begins: should it become readable again, the engine, which
        went back behind it, would not know it any more.

        Raises:
            LedgerError: There are checkpoints and the engine knows none that is intact.
            StateError: The newest was written by another version.
        """
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
                refused[step] = f"the checkpoint {self.path(step).name} is not one that the ledger knows"
                unknown = error
            else:
                self._set_aside(list(refused))
                return Start(attempt=attempt, saved=saved)
            logger.warning("%s: %s; looking for an older one", self.folder, refused[step])
        if unknown is not None:
            raise unknown
        if refused:
            logger.warning("%s: no checkpoint is intact; training begins again at step 0", self.folder)
        return Start(attempt=coordinator.begin(0, None, tuple(refused.values())), saved=None)

    def _set_aside(self, steps: list[int]) -> None:
        for path in map(self.path, steps):
            if path.exists():
                place, number = path.with_name(_REFUSED + path.name), 1
                while place.exists():
                    number += 1
                    place = path.with_name(f"{_REFUSED}{path.name}-{number}")
                path.rename(place)

    def _remove_old(self) -> None:
        """A folder loses its name before its files, so that no half-removed checkpoint can be met."""
        for step in [step for step in self.steps() if step not in self.pinned][: -self.keep]:
            self.path(step).rename(self.folder / f"{_HIDDEN}old-{step}")
        for leftover in self.folder.glob(f"{_HIDDEN}old-*"):
            shutil.rmtree(leftover, ignore_errors=True)
