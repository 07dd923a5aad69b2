"""How much weight the epoch caps still allow: the guard's `max_epochs` and the task cards' own, whichever is less."""

import numpy as np
from numpy.typing import NDArray

from scheduler.setup import EngineSetup

Array = NDArray[np.float64]


class EpochCaps:
    """The caps of one stage of a run. Stateless: what has been served is handed in."""

    def __init__(self, setup: EngineSetup, *, stage: int) -> None:
        guard = setup.guards_of(stage).max_epochs
        caps = [[cap for cap in (guard, task.repetition.max_epochs) if cap is not None] for task in setup.tasks]
        self._max_samples = np.array([min(own, default=np.inf) for own in caps]) * np.array(setup.num_rows)
        self._row_weight = np.array(setup.mean_supervised_tokens or np.ones(len(setup.tasks)))
        self._total_steps, self._batch_size = setup.total_steps, setup.global_batch_size

    def weights_left(self, previous: Array, *, served: Array, served_step: int, effective_step: int) -> Array:
        """Weight [K] up to which no task passes its cap from `effective_step` on; infinite without caps.

        Where weights are shares of tokens, a sample of task i counts as its mean length: w_i = s_i · m_i · sum(w / m).

        Args:
            previous: Weights in force until `effective_step`.
            served: Samples per task up to `served_step`.
            served_step: Steps behind `served`.
            effective_step: First step of the weights asked for.
        """
        if effective_step >= self._total_steps or not np.isfinite(self._max_samples).any():
            return np.full(len(previous), np.inf)
        samples_per_weight = 1.0 / (self._row_weight * float(np.sum(previous / self._row_weight)))
        coming = previous * samples_per_weight * self._batch_size * max(effective_step - served_step, 0)
        allowed = np.maximum(self._max_samples - (served + coming), 0.0)
        return allowed / (self._batch_size * (self._total_steps - effective_step) * samples_per_weight)
