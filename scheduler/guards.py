"""Guards: what bounds a plan, whatever the policy asked for.

In order: an overfitting task is cooled, or frozen at its floor; floor, ceiling, epoch cap and the hold on core tasks
bound the weights (exact projection, `scheduler.simplex`); the step limit bounds the change against the previous plan.
Floor, ceiling and step limit are hard: they hold for every plan. Freeze, epoch cap and core hold are wishes: they move
the target, and yield, as little as needed, where they would contradict each other or the step limit.

Where the bounds themselves change, with a stage or a fork that has others, the old weights are first brought within the
new floor and ceiling, in one step and no further than needed; the step limit bounds what the policy moves beyond that.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.arrays import clip
from scheduler.debt import debt_bound
from scheduler.errors import ConfigError
from scheduler.setup import EngineSetup, GuardConfig
from scheduler.simplex import project, softmax, step_towards

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_GUARDS = ("", "step limit", "overfit freeze", "overfit guard", "core hold", "floor", "epoch cap", "ceiling")
_VISIBLE = 1e-6
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class GuardFacts:
    """What the guards need to know about the moment, arrays [K].

    Attributes:
        previous: Weights of the plan before, brought within floor and ceiling (`Guards.admit`).
        progress: Share of the run that is over when the new plan begins, in [0, 1].
        overfit_evaluations: Evaluations in a row past the held-out peak.
        epochs_left: Samples per remaining slot of the run that the epoch cap still allows; infinite without a cap.
        frozen_tasks: Tasks the overfit guard took out for good.
        max_change: A step limit beside the run's own, of the state it is in.
    """

    previous: Array
    progress: float
    overfit_evaluations: Array
    epochs_left: Array
    frozen_tasks: Mask
    max_change: float = math.inf


@dataclass(frozen=True, slots=True)
class Guarded:
    """Bounded weights [K], what the policy had asked for [K], and the number of the guard that held each task back."""

    weights: Array
    target: Array
    guard: NDArray[np.intp]

    @property
    def held_by(self) -> tuple[str, ...]:
        """The guard that held each task back [K]; "" where none did."""
        return tuple(map(_GUARDS.__getitem__, self.guard.tolist()))


class Guards:
    """The guard chain of one stage of a run. Stateless: every bound is a function of the setup and the facts."""

    def __init__(self, setup: EngineSetup, prior: Array, *, stage: int = 1) -> None:
        config = setup.guards_of(stage)
        num_tasks = len(setup.tasks)
        floor = config.floor_ratio / num_tasks
        if config.max_exposure_gap_steps is not None:
            own = setup.stage_guards[stage - 1].max_exposure_gap_steps
            where = "mixture" if own is None else f"stages.{stage - 1}"
            floor = max(floor, _exposure_floor(config.max_exposure_gap_steps, setup, where=where))
        self.config: GuardConfig = config
        self.prior = prior
        self.floor = np.full(num_tasks, floor)
        self.ceiling = np.full(num_tasks, max(config.ceiling, 1.0 / num_tasks))
        is_core = np.array([task.tier == "core" for task in setup.tasks])
        self.held_core: Mask = is_core if config.hold_core else np.zeros_like(is_core)

    def initial(self, asked: Array, epochs_left: Array) -> Array:
        """Weights [K] within all bounds but the step limit; `epochs_left` [K] as in `GuardFacts`."""
        return project(np.log(np.maximum(asked, 1e-30)), *self._bounds(epochs_left))

    def admit(self, weights: Array) -> Array:
        """These weights [K] if they are within floor and ceiling, else the nearest that are."""
        if bool(((weights >= self.floor) & (weights <= self.ceiling)).all()):
            return weights
        return project(np.log(np.maximum(weights, 1e-30)), self.floor, self.ceiling)

    def max_change(self, progress: float) -> float:
        """Step limit in total variation at `progress` in [0, 1]; tightens linearly, and never loosens."""
        share = min(max(progress, 0.0), 1.0)
        return self.config.max_change + (self.late_max_change - self.config.max_change) * share

    @property
    def late_max_change(self) -> float:
        """Step limit at the end of the run."""
        return min(self.config.late_max_change, self.config.max_change)

    def apply(self, logits: Array, facts: GuardFacts) -> Guarded:
        """Bound the weights a policy asks for (unnormalised log-probabilities [K])."""
        asked = softmax(logits)
        cooled = facts.overfit_evaluations >= self.config.overfit_patience
        logits = np.where(cooled, logits + np.log(self.config.overfit_cooling), logits)
        lower, upper = self._bounds(np.where(facts.frozen_tasks, 0.0, facts.epochs_left))
        bounded = project(logits, lower, upper)
        weights, _ = step_towards(facts.previous, bounded, min(self.max_change(facts.progress), facts.max_change))
        raised = (bounded <= lower + _ROUNDING) & (asked < lower - _VISIBLE)
        lowered = (bounded >= upper - _ROUNDING) & (asked > upper + _VISIBLE)
        held = np.zeros(len(weights), dtype=np.intp)
        for code, where in (
            (7, lowered),
            (6, lowered & (upper < self.ceiling)),
            (5, raised),
            (3, cooled),
            (4, (raised | (cooled & (bounded <= lower + _ROUNDING))) & (lower > self.floor)),
            (2, facts.frozen_tasks),
            (1, np.abs(weights - bounded) > _VISIBLE),
        ):
            np.copyto(held, code, where=where)
        return Guarded(weights=weights, target=asked, guard=held)

    def _bounds(self, epochs_left: Array) -> tuple[Array, Array]:
        """Least and greatest weights [K]; both wishes give way in proportion where no mixture could grant them."""
        upper = clip(epochs_left, self.floor, self.ceiling)
        missing = 1.0 - float(upper.sum())
        if missing > 0.0:
            room = self.ceiling - upper
            upper = np.minimum(upper + room * (missing / max(float(room.sum()), missing)), self.ceiling)
        wish = np.where(self.held_core, clip(self.prior, self.floor, upper) - self.floor, 0.0)
        spare = 1.0 - float(self.floor.sum())
        granted = min(1.0, max(spare, 0.0) / max(float(wish.sum()), 1e-300))
        return np.minimum(self.floor + wish * granted, upper), upper


def _exposure_floor(max_gap_steps: int, setup: EngineSetup, *, where: str) -> float:
    """Weight that brings a sample in any `max_gap_steps` steps in a row.

    The stream serves a task less than one sample ahead of its cumulative share and less than `debt_bound` behind it,
    whatever the plans, so a window may lack nearly the sum of both.
    """
    num_tasks, batch_size = len(setup.tasks), setup.global_batch_size
    most_lacking = 1.0 + debt_bound(num_tasks)
    floor = most_lacking / (max_gap_steps * batch_size)
    if floor * num_tasks > 1.0:
        least = math.ceil(most_lacking * num_tasks / batch_size)
        raise ConfigError(
            f"{where}.guards.max_exposure_gap_steps: {max_gap_steps} cannot be kept with {num_tasks} tasks and batches "
            f"of {batch_size}: set it to {least} or more"
        )
    return floor
