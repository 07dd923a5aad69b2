"""From where a run stands to the metrics' values."""

from collections.abc import Iterator
from typing import NamedTuple

from cluster.metrics.names import (
    HEAT,
    HELDOUT_LOSS,
    PLAN_VERSION,
    SAMPLES,
    SCORE,
    SPEED,
    STAGE,
    STALENESS,
    STEP,
    TOTAL_STEPS,
    TRAIN_LOSS,
    WEIGHT,
    Metric,
)
from cluster.views.run_state import RunState


class Figure(NamedTuple):
    """One gauge's value; `task` is None where the metric is not per task."""

    metric: Metric
    task: str | None
    value: float


def figures(state: RunState) -> Iterator[Figure]:
    """All gauges that are known; none before the run record was seen."""
    if not state.started:
        return
    boundaries = state.history.boundaries
    staleness = boundaries[-1].staleness_steps if boundaries else None
    whole_run = (
        (STEP, state.step),
        (TOTAL_STEPS, state.total_steps),
        (STAGE, state.stage),
        (PLAN_VERSION, state.plan_version),
        (STALENESS, staleness),
        (SPEED, state.samples_per_s),
    )
    yield from (Figure(metric, None, value) for metric, value in whole_run if value is not None)
    for task in state.tasks():
        of_task = (
            (WEIGHT, task.weight),
            (HEAT, task.heat),
            (SCORE, task.score),
            (HELDOUT_LOSS, task.loss),
            (TRAIN_LOSS, task.train_loss),
            (SAMPLES, task.samples),
        )
        yield from (Figure(metric, task.name, value) for metric, value in of_task if value is not None)
