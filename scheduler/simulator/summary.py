"""What a simulated run comes to in a few numbers, and what several seeds of it say together.

Macro and worst score are of the true scores, over the tasks that can be learnt or are learnt already: a noise task
stays at chance under any policy. Intervals are Student's t over seeds at 95 %; they hold the luck of probes and the
learner's spread, not the doubt whether the learner is like the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from scheduler.simulator.config import LearnerConfig
from scheduler.simulator.loop import SimulatedRun

Array = NDArray[np.float64]

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. Scores and shares in [0, 1].

    Attributes:
        final_macro: Mean score over tasks at the end.
        final_worst: Lowest score of a task at the end.
        mean_macro: Mean over the run's steps of the macro score, by trapezoids.
        steps_to_target: First boundary at which the macro score was at the target; None if it never was.
        noise_share: Share of all samples that went to noise tasks.
        saturated_share: Likewise, to tasks at their best from the start.
    """

    final_macro: float
    final_worst: float
    mean_macro: float
    steps_to_target: int | None
    noise_share: float
    saturated_share: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean over seeds, its 95 % interval (None from a single seed), and the values by seed."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]


def learnable(learner: LearnerConfig) -> NDArray[np.bool_]:
    """Tasks [K] that are no noise; all of them where all are."""
    kept = np.array([task.curve.type != "noise" for task in learner.tasks.values()])
    return kept if kept.any() else np.ones_like(kept)


def macro_scores(run: SimulatedRun, learner: LearnerConfig) -> Array:
    """Mean true score over the learnable tasks at every boundary [B]."""
    return run.scores[:, learnable(learner)].mean(axis=1)


def outcome(run: SimulatedRun, learner: LearnerConfig, *, target_macro_score: float) -> Outcome:
    """Summarise one run of this learner."""
    macro = macro_scores(run, learner)
    reached = np.flatnonzero(macro >= target_macro_score)
    shares = run.num_samples[-1] / run.num_samples[-1].sum()
    kinds = np.array([task.curve.type for task in learner.tasks.values()])
    return Outcome(
        final_macro=float(macro[-1]),
        final_worst=float(run.scores[-1, learnable(learner)].min()),
        mean_macro=float(np.trapezoid(macro, run.steps) / run.steps[-1]),
        steps_to_target=int(run.steps[reached[0]]) if len(reached) else None,
        noise_share=float(shares[kinds == "noise"].sum()),
        saturated_share=float(shares[kinds == "saturated"].sum()),
    )


def interval(values: Sequence[float]) -> Interval:
    """Of the mean of independent values."""
    array = np.array(values, dtype=np.float64)
    mean, num_values = float(array.mean()), len(array)
    if num_values < 2:
        return Interval(mean, None, None, tuple(array.tolist()))
    quantile = float(stdtrit(num_values - 1, 0.5 + _CONFIDENCE / 2))
    half = quantile * float(array.std(ddof=1)) / np.sqrt(num_values)
    return Interval(mean, float(mean - half), float(mean + half), tuple(array.tolist()))
