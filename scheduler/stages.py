"""The stage machine: stage 1 learns what a task is, stage 2 optimises the tasks together.

The boundary is a step, a fraction of the run, or a capability: the evaluations say the model can do what stage 1 was
for. A stage begins with a plan, at that plan's first step, on all ranks at once; it never goes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import StateError
from scheduler.setup import Boundary, CapabilityBoundary, EngineSetup, FractionBoundary, StepBoundary

_STATE_KEYS = ("stage", "stage_start_step", "passes_in_a_row")
_ROUNDING = 1e-12


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
        """Fold in one evaluation; answer whether the next plan begins stage 2.

        Args:
            effective_step: First step of the plan being decided.
            scores: Latest score of every task in [0, 1], 0 for one never measured; empty when this evaluation measured
                nothing, which neither continues nor ends a row of passes.
            compliance: Format compliance in the same way.
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
                done = step / self.total_steps >= fraction
                return f"{100 * fraction:g}% of {self.total_steps} steps done" if done else None
            case CapabilityBoundary() as boundary:
                values = compliance if boundary.metric == "format_compliance" else scores
                return self._capability(boundary, step, values)
            case None:
                return None

    def _capability(self, boundary: CapabilityBoundary, step: int, values: NDArray[np.float64]) -> str | None:
        label = f"{boundary.over} {boundary.metric.replace('_', ' ')}"
        found = "nothing measured"
        if len(values):
            reached = float(values.mean() if boundary.over == "mean" else values.min())
            passed = reached >= boundary.at_least - _ROUNDING
            self.passes_in_a_row = self.passes_in_a_row + 1 if passed else 0
            found = f"{label} at {reached:.2f}"
            if self.passes_in_a_row >= boundary.evaluations and step >= boundary.min_steps:
                row = f"{self.passes_in_a_row} evaluations in a row"
                return f"{label} {reached:.2f} >= {boundary.at_least:.2f} in {row}"
        limit = boundary.limit(self.total_steps)
        if step >= limit:
            return f"max_steps {limit} reached with {found}; {boundary.at_least:.2f} was asked for"
        return None

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in _STATE_KEYS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys."""
        if state.keys() != set(_STATE_KEYS):
            raise StateError(f"stage state has the keys {sorted(state)}; expected {sorted(_STATE_KEYS)}")
        for name in _STATE_KEYS:
            setattr(self, name, state[name])
