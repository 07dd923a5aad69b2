"""What is best: objectives over the scores of tasks, with intervals, and the Pareto front; pure."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.sweep.config import ObjectiveName
from scheduler.task import TaskSpec

_Z = 1.959964


class Score(NamedTuple):
    """Mean score of a task in [0, 1] over `num_rows` rows."""

    value: float
    num_rows: int


class Estimate(NamedTuple):
    """A figure with its 95 % interval over the rows it was measured on; the training itself is not repeated."""

    value: float
    low: float
    high: float


def objective(name: ObjectiveName, scores: Mapping[str, Score], tasks: Sequence[TaskSpec]) -> Estimate:
    """The objective over the scores of all tasks.

    Each score's variance is taken as that of a share, with two successes and two failures added (Agresti and Coull
    1998), so that 0 and 1 are not certain; for scores in between it is too wide, never too narrow. `worst` has the
    Agresti-Coull interval of the task that came out worst.
    """
    if name == "worst":
        worst = scores[min(scores, key=lambda task: (scores[task].value, task))]
        middle, variance = _smoothed(worst)
        return _estimate(worst.value, middle, variance)
    values = {task.name: task.business_value if name == "value_weighted" else 1.0 for task in tasks}
    total = math.fsum(values[task] for task in scores)
    shares = {task: values[task] / total for task in scores}
    mean = math.fsum(shares[task] * score.value for task, score in scores.items())
    return _estimate(mean, mean, math.fsum(shares[task] ** 2 * _smoothed(score)[1] for task, score in scores.items()))


def _smoothed(score: Score) -> tuple[float, float]:
    """Middle and variance of a share's interval."""
    num_rows = score.num_rows + _Z**2
    middle = (score.value * score.num_rows + _Z**2 / 2) / num_rows
    return middle, middle * (1 - middle) / num_rows


def _estimate(value: float, middle: float, variance: float) -> Estimate:
    half = _Z * math.sqrt(variance)
    return Estimate(value, max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half)))


def pareto_front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the points that no other beats in one objective without losing in another; more is better."""
    return [name for name, point in points.items() if not any(_dominates(other, point) for other in points.values())]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
