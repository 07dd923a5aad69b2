"""Guards: what bounds a plan, whatever the policy asked for.

In order: an overfitting task is cooled; floor, ceiling, epoch cap and the hold on core tasks bound the weights (exact
projection, `scheduler.simplex`); the step limit bounds the change against the previous plan. Floor, ceiling and step
limit are hard: they hold for every plan. Epoch cap and core hold are wishes: they move the target, and yield where they
would contradict each other or the step limit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import ConfigError
from scheduler.setup import EngineSetup, GuardConfig
from scheduler.simplex import project, step_towards

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class GuardFacts:
    """What the guards need to know about the moment, arrays [K].

    Attributes:
        previous: Weights of the plan before.
        progress: Share of the run that is over when the new plan begins, in [0, 1].
        stable_core: Core tasks that keep their prior share now.
        overfit_evaluations: Evaluations in a row past the held-out peak.
        epochs_left: Samples per remaining slot of the run that the epoch cap still allows; infinite without a cap.
    """

    previous: Array
    progress: float
    stable_core: Mask
    overfit_evaluations: Array
    epochs_left: Array


@dataclass(frozen=True, slots=True)
class Guarded:
    """Bounded weights [K], what the policy had asked for [K], and the guard that held each task back ("" if none)."""

    weights: Array
    target: Array
    held_by: tuple[str, ...]


class Guards:
    """The guard chain of one run. Stateless: every bound is a function of the setup and the facts."""

    def __init__(self, setup: EngineSetup, prior: Array) -> None:
        config = setup.mixture.guards
        num_tasks = len(setup.tasks)
        floor = config.floor_ratio / num_tasks
        if config.max_exposure_gap_steps is not None:
            floor = max(floor, 1.0 / (config.max_exposure_gap_steps * setup.global_batch_size))
        if floor * num_tasks > 1.0:
            raise ConfigError(
                f"mixture.guards.max_exposure_gap_steps: {config.max_exposure_gap_steps} cannot be kept with {num_tasks} "
                f"tasks and batches of {setup.global_batch_size}: set it to {num_tasks / setup.global_batch_size:.0f} or more"
            )
        self.config: GuardConfig = config
        self.prior = prior
        self.floor = np.full(num_tasks, floor)
        self.ceiling = np.full(num_tasks, max(config.ceiling, 1.0 / num_tasks))

    def initial(self) -> Array:
        """The prior, projected into the hard bounds."""
        return project(np.log(np.maximum(self.prior, 1e-30)), self.floor, self.ceiling)

    def max_change(self, progress: float) -> float:
        """Step limit in total variation at `progress` in [0, 1]; tightens linearly."""
        share = min(max(progress, 0.0), 1.0)
        return self.config.max_change + (self.config.late_max_change - self.config.max_change) * share

    def apply(self, logits: Array, facts: GuardFacts) -> Guarded:
        """Bound the weights a policy asks for (unnormalised log-probabilities [K])."""
        asked = project(logits, np.zeros_like(logits), np.ones_like(logits))
        cooled = facts.overfit_evaluations >= self.config.overfit_patience
        logits = np.where(cooled, logits + np.log(self.config.overfit_cooling), logits)
        lower, upper = self._bounds(facts)
        bounded = project(logits, lower, upper)
        weights, limited = step_towards(facts.previous, bounded, self.max_change(facts.progress))
        held = tuple(
            self._held_by(index, asked, bounded, weights, cooled, lower, upper, limited) for index in range(len(asked))
        )
        return Guarded(weights=weights, target=asked, held_by=held)

    def _bounds(self, facts: GuardFacts) -> tuple[Array, Array]:
        lower, upper = self.floor.copy(), self.ceiling.copy()
        capped = np.clip(facts.epochs_left, self.floor, self.ceiling)
        if capped.sum() < 1.0:
            room = self.ceiling - capped
            capped = capped + room * ((1.0 - capped.sum()) / room.sum())
        upper = np.minimum(upper, capped)
        held = np.minimum(np.maximum(lower, self.prior), upper)
        wish = np.where(facts.stable_core, held, lower)
        if wish.sum() <= 1.0:
            lower = wish
        return lower, upper

    def _held_by(
        self,
        index: int,
        asked: Array,
        bounded: Array,
        weights: Array,
        cooled: Mask,
        lower: Array,
        upper: Array,
        limited: bool,
    ) -> str:
        if limited and abs(weights[index] - bounded[index]) > 1e-6:
            return "step limit"
        if cooled[index]:
            return "overfit guard"
        if bounded[index] <= lower[index] and asked[index] < lower[index] - 1e-6:
            return "core hold" if lower[index] > self.floor[index] else "floor"
        if bounded[index] >= upper[index] and asked[index] > upper[index] + 1e-6:
            return "epoch cap" if upper[index] < self.ceiling[index] else "ceiling"
        return ""
