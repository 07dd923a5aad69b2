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

    The interval adds a success and a failure twice to every task (Agresti and Coull 1998), which is too wide for scores
    between 0 and 1 and never too narrow. That of `worst` is the interval of the task that came out worst.
    """
    if name == "worst":
        worst = min(scores, key=lambda task: (scores[task].value, task))
        return _mean({worst: scores[worst]}, {worst: 1.0})
    weights = {task.name: task.business_value if name == "value_weighted" else 1.0 for task in tasks}
    return _mean(scores, {task: weights[task] for task in scores})


def _mean(scores: Mapping[str, Score], weights: Mapping[str, float]) -> Estimate:
    total = math.fsum(weights.values())
    value = math.fsum(weights[task] / total * score.value for task, score in scores.items())
    variances, middles = [], []
    for task, score in scores.items():
        num_rows = score.num_rows + _Z**2
        middle = (score.value * score.num_rows + _Z**2 / 2) / num_rows
        share = weights[task] / total
        middles.append(share * middle)
        variances.append(share**2 * middle * (1 - middle) / num_rows)
    half, middle = _Z * math.sqrt(math.fsum(variances)), math.fsum(middles)
    return Estimate(value, max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half)))


def pareto_front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the points that no other beats in one objective without losing in another; more is better."""
    return [name for name, point in points.items() if not any(_dominates(other, point) for other in points.values())]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
