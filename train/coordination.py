"""What the worker loop needs from the outside, as protocols: it knows no actor and no evaluation.

`cluster.coordinator` implements them over Ray; a test may implement them in a few lines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from scheduler.plan import MixturePlan
from scheduler.selection import Ranked, SelectionRule
from scheduler.signals import IntervalReport


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """The plan for a step, and whether the run should stop there, or go back to the checkpoint of a step before."""

    plan: MixturePlan
    stop: bool
    roll_back_to: int | None = None


class Coordinator(Protocol):
    """Rank 0's line to the engine and the evaluation. All calls are made at interval boundaries, but `pulse`."""

    def begin(self, step: int, engine_state: dict[str, Any] | None, refused: tuple[str, ...]) -> int:
        """This worker group starts at `step`; returns the attempt number.

        Args:
            step: Where training goes on.
            engine_state: What the checkpoint there holds of the engine; None without a checkpoint.
            refused: Why each newer checkpoint was not taken, the newest first.

        Raises:
            LedgerError: The engine does not know this checkpoint; nothing changed, another step may be tried.
        """
        ...

    def plan_for(self, step: int) -> PlanAnswer | None:
        """The plan for `step` after a bounded wait; None when the engine cannot be reached: keep the old plan."""
        ...

    def publish(
        self,
        *,
        step: int,
        attempt: int,
        plan_version: int,
        weights: Mapping[str, torch.Tensor],
        for_selection: bool = False,
    ) -> None:
        """Hand a snapshot of the trainable weights to the evaluation (CPU tensors, the callee's own); never blocks.

        `for_selection`: they are also scored on the selection set, to be chosen among.
        """
        ...

    def settle(self) -> None:
        """Wait, bounded, until every snapshot handed over has been evaluated."""
        ...

    def ranking(self, rule: SelectionRule) -> list[Ranked]:
        """Steps scored on the selection set, the best first; nothing when the engine cannot be reached."""
        ...

    def note_export(self, step: int, why: str) -> None:
        """The weights of `step` are the result."""
        ...

    def report_served(self, report: IntervalReport) -> None:
        """Tell the engine what has been trained, before it decides on the snapshot that is published next (`sync`)."""
        ...

    def report(self, report: IntervalReport) -> None:
        """Tell the engine what has been trained, and the plan in force from here on."""
        ...

    def checkpoint(self, step: int) -> dict[str, Any]:
        """Engine state to store in the checkpoint at `step`."""
        ...

    def note_storage(self, step: int, text: str) -> None:
        """Storage failed for the checkpoint at `step`, or was mended, in words; never raises."""
        ...

    def pulse(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """Say where training is, for the live view; never blocks. `loss`: nats per token of a step."""
        ...

    def finish(self, *, step: int, reason: str) -> None:
        """The run ends at `step`; waits, bounded, until the last snapshot has been evaluated."""
        ...


class CoordinatorFactory(Protocol):
    """Built by the driver, shipped to the workers, opened on rank 0."""

    def open(self) -> Coordinator:
        """Connect."""
        ...
