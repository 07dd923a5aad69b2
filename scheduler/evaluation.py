"""The signals of one evaluation, buffered until it is decided on; in arrays as they come, so that deciding is quick."""

from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from scheduler.arrays import Choose, chooser
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
        level_probes: Probes by difficulty level [L, K]; 0 where a signal does not say.
        level_successes: Sums of their scores, likewise.
    """

    def __init__(self, num_tasks: int, num_levels: int = 0) -> None:
        """`num_levels`: the most difficulty levels a task has, where they are of interest."""
        self.signals: dict[int, TaskSignal] = {}
        self.measured: NDArray[np.bool_] = np.zeros(num_tasks, dtype=bool)
        self._values = np.zeros((len(_MEASURES), num_tasks))
        self.level_probes, self.level_successes = np.zeros((2, num_levels, num_tasks))

    def add(self, index: int, signal: TaskSignal) -> None:
        """Take in the signal of the task at `index`."""
        self.signals[index] = signal
        self.measured[index] = True
        self._values[:, index] = _measures(signal)
        if signal.level_probes and self.level_probes.size:
            self.level_probes[: len(signal.level_probes), index] = signal.level_probes
            self.level_successes[: len(signal.level_successes), index] = signal.level_successes

    def choice(self) -> Choose:
        """The measured tasks' entries of a new array [K], the other tasks' of an old one: a function of the two."""
        return chooser(self.measured, all_chosen=len(self.signals) == len(self.measured))

    def __getitem__(self, measure: str) -> NDArray[np.float64]:
        """A measure of every task [K], by its name in `TaskSignal`; zero for a task without a signal."""
        return self._values[_ROW[measure]]
