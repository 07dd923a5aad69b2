"""The states of a run: warm-up → stage 1 → transition → stage 2 → late → frozen. Never back; some may be left out.

    warm-up      too little has been measured: weights are held at the prior
    stage 1      the policy of stage 1 moves them
    transition   stage 2 has begun: its policy moves them, by small steps only
    stage 2      the policy of stage 2 moves them
    late         the last stretch, in either stage: small steps only
    frozen       no weight and no difficulty level moves any more, and no stage begins

Where stages begin is `scheduler.stages`' business; this says what is allowed in between, from the clock and from how
often something was measured. Everything is off unless it is asked for.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from scheduler.config_model import ConfigModel
from scheduler.errors import StateError

StateName = Literal["warm-up", "stage 1", "transition", "stage 2", "late", "frozen"]
STATES: tuple[StateName, ...] = get_args(StateName)
_STATE_KEYS = {"state", "num_measured"}


class StatesConfig(ConfigModel):
    """How much the mixture may move in which part of the run; the defaults switch every part off.

    Attributes:
        warmup_evaluations: Weights stay at the prior until so many evaluations have measured something.
        warmup_ends_by: The warm-up ends at this fraction of the run, or with stage 1, whatever was measured.
        transition_intervals: The transition lasts so many intervals from the beginning of stage 2 on.
        transition_max_change: Greatest total-variation distance between consecutive plans in the transition.
        late_after: From this fraction of the run on the step limit is `guards.late_max_change`; null: the limit falls
            evenly over the whole run.
        frozen_after: From this fraction of the run on nothing moves; null: never.
    """

    warmup_evaluations: int = Field(default=0, ge=0)
    warmup_ends_by: float = Field(default=0.25, gt=0, le=1)
    transition_intervals: int = Field(default=0, ge=0)
    transition_max_change: float = Field(default=0.04, gt=0, le=1)
    late_after: float | None = Field(default=None, gt=0, lt=1)
    frozen_after: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _parts_are_in_order(self) -> "StatesConfig":
        late, frozen = self.late_after, self.frozen_after
        if late is not None and frozen is not None and frozen < late:
            raise ValueError(f"frozen_after {frozen} lies before late_after {late}; nothing is left to be late")
        return self

    def max_change(self, state: str, *, late_max_change: float) -> float:
        """A state's own step limit; infinite where it has none."""
        if state == "transition":
            return self.transition_max_change
        return late_max_change if state == "late" else float("inf")


class StateMachine:
    """In which state the plans of a run are made. One `observe` per decision."""

    def __init__(self, config: StatesConfig, *, total_steps: int, interval_steps: int) -> None:
        self.config = config
        self.total_steps, self.interval_steps = total_steps, interval_steps
        self.num_measured = 0
        self.state: StateName = "warm-up" if config.warmup_evaluations else "stage 1"

    def observe(
        self, *, effective_step: int, stage: int, stage_start_step: int, anything_measured: bool
    ) -> StateName | None:
        """Fold in one evaluation.

        Args:
            effective_step: First step of the plan being decided.
            stage: Of that plan.
            stage_start_step: Step at which that stage begins or began.
            anything_measured: Whether this evaluation measured any task.

        Returns:
            The state that begins with that plan; None if it goes on in the one before.
        """
        self.num_measured += anything_measured
        found = self._find(effective_step, stage=stage, stage_start_step=stage_start_step)
        if STATES.index(found) <= STATES.index(self.state):
            return None
        self.state = found
        return found

    def is_frozen(self, effective_step: int) -> bool:
        """Whether nothing moves in a plan from this step on."""
        after = self.config.frozen_after
        return after is not None and effective_step >= after * self.total_steps

    def held(self) -> str | None:
        """Why the weights are not to move in this state; None if they may."""
        if self.state == "warm-up":
            return (
                f"warm-up, {self.num_measured} of {self.config.warmup_evaluations} evaluations have measured something"
            )
        if self.state == "frozen":
            return f"the mixture is frozen from {self.config.frozen_after:g} of the run on"
        return None

    def _find(self, step: int, *, stage: int, stage_start_step: int) -> StateName:
        config, progress = self.config, step / self.total_steps
        if self.is_frozen(step):
            return "frozen"
        if config.late_after is not None and progress >= config.late_after:
            return "late"
        if stage == 2:
            passed = step - stage_start_step >= config.transition_intervals * self.interval_steps
            return "stage 2" if passed else "transition"
        warm = self.num_measured >= config.warmup_evaluations or progress >= config.warmup_ends_by
        return "stage 1" if warm else "warm-up"

    def state_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"state": self.state, "num_measured": self.num_measured}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys, or an unknown state."""
        if state.keys() != _STATE_KEYS or state["state"] not in STATES:
            raise StateError(f"the state of the run is {dict(state)}; expected {sorted(_STATE_KEYS)} of {STATES}")
        self.state, self.num_measured = state["state"], state["num_measured"]
