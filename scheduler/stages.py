"""The stage machine: stage 1 learns what a task is, stage 2 optimises the tasks together.

The boundary is a step, a fraction of the run, or a capability: the evaluations say the model can do what stage 1 was for.
A stage begins with a plan, at that plan's first step, on all ranks at once; it never goes back.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.setup import Boundary, CapabilityBoundary, EngineSetup, FractionBoundary, StepBoundary


@dataclass(frozen=True, slots=True)
class Transition:
    """Stage 2 begins at `step`, for this reason."""

    step: int
    reason: str


class StageMachine:
    """Watches evaluations and says when stage 2 begins."""

    def __init__(self, setup: EngineSetup) -> None:
        self.boundary: Boundary | None = setup.boundary
        self.total_steps = setup.total_steps
        self.stage = 1
        self.stage_start_step = 0
        self.passes_in_a_row = 0

    def observe(
        self, *, effective_step: int, scores: NDArray[np.float64], compliance: NDArray[np.float64]
    ) -> Transition | None:
        """Fold in one evaluation (arrays over the measured tasks); answer whether the next plan begins stage 2.

        Args:
            effective_step: First step of the plan being decided.
            scores: Scores of the tasks measured so far, in [0, 1].
            compliance: Their format compliance, in [0, 1].
        """
        if self.stage == 2 or self.boundary is None:
            return None
        reason = self._reason(effective_step, scores, compliance)
        if reason is None:
            return None
        self.stage, self.stage_start_step = 2, effective_step
        return Transition(effective_step, reason)

    def _reason(self, step: int, scores: NDArray[np.float64], compliance: NDArray[np.float64]) -> str | None:
        match self.boundary:
            case StepBoundary(step=limit):
                return f"step {limit} reached" if step >= limit else None
            case FractionBoundary(fraction=fraction):
                return (
                    f"{fraction:.0%} of {self.total_steps} steps done" if step >= fraction * self.total_steps else None
                )
            case CapabilityBoundary() as boundary:
                values = compliance if boundary.metric == "format_compliance" else scores
                return self._capability(boundary, step, values)
            case None:
                return None

    def _capability(self, boundary: CapabilityBoundary, step: int, values: NDArray[np.float64]) -> str | None:
        reached = 0.0
        if len(values):
            reached = float(values.mean() if boundary.over == "mean" else values.min())
        self.passes_in_a_row = self.passes_in_a_row + 1 if reached >= boundary.at_least else 0
        label = f"{boundary.over} {boundary.metric.replace('_', ' ')}"
        if self.passes_in_a_row >= boundary.evaluations and step >= boundary.min_steps:
            return f"{label} {reached:.2f} >= {boundary.at_least:.2f} in {self.passes_in_a_row} evaluations in a row"
        limit = boundary.max_steps if boundary.max_steps is not None else self.total_steps // 2
        if step >= limit:
            return f"max_steps {limit} reached with {label} {reached:.2f} < {boundary.at_least:.2f}"
        return None

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "stage": self.stage,
            "stage_start_step": self.stage_start_step,
            "passes_in_a_row": self.passes_in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.stage = state["stage"]
        self.stage_start_step = state["stage_start_step"]
        self.passes_in_a_row = state["passes_in_a_row"]
