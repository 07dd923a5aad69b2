"""The signals of one evaluation, buffered until it is decided on; in arrays as they come, so that deciding is quick."""

from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from scheduler.signals import TaskSignal

_MEASURES = (
    "num_probes",
    "score",
    "loss",
    "sampled_score",
    "score_variance",
    "num_rejected",
    "num_reviewed",
    "format_compliance",
    "num_human_rejected",
    "num_human_reviewed",
)
_ROW = {name: row for row, name in enumerate(_MEASURES)}
_measures = attrgetter(*_MEASURES)


class Evaluation:
    """Accepted signals of one step, at most one a task.

    Attributes:
        signals: By index of the task, in the order they came.
        measured: Tasks [K] with a signal.
    """

    def __init__(self, num_tasks: int) -> None:
        self.signals: dict[int, TaskSignal] = {}
        self.measured: NDArray[np.bool_] = np.zeros(num_tasks, dtype=bool)
        self._values = np.zeros((len(_MEASURES), num_tasks))

    def add(self, index: int, signal: TaskSignal) -> None:
        """Take in the signal of the task at `index`."""
        self.signals[index] = signal
        self.measured[index] = True
        self._values[:, index] = _measures(signal)

    def __getitem__(self, measure: str) -> NDArray[np.float64]:
        """A measure of every task [K], by its name in `TaskSignal`; zero for a task without a signal."""
        return self._values[_ROW[measure]]

    def by_level(self, num_levels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probes and sums of their scores by difficulty level, [K, num_levels] each; 0 where a signal does not say."""
        probes, successes = (np.zeros((len(self.measured), num_levels)) for _ in range(2))
        for index, signal in self.signals.items():
            counted = signal.level_probes[:num_levels]
            probes[index, : len(counted)] = counted
            successes[index, : len(counted)] = signal.level_successes[:num_levels]
        return probes, successes
