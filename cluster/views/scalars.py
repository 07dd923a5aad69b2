"""A run's ledger as scalars, for every tool that draws curves.

weights/<task>, stage   at each boundary, of the plan in force from there on
share/<task>            at each boundary, of the samples served since the one before
epochs/<task>           at each boundary, passes over its training rows since step 0
train_loss/<task>       at each boundary, nats per supervised token
score/<task>, heldout_loss/<task>    at each evaluation
heat/<task>             at each decision
"""

from typing import NamedTuple

from evalsvc.report.history import RunHistory
from scheduler.records import DecisionRecord, IntervalRecord, Record, SignalRecord


class Scalars(NamedTuple):
    """Values by tag, all of one step."""

    step: int
    values: dict[str, float]


class ScalarStream:
    """Feed it the ledger's records in order."""

    def __init__(self) -> None:
        self._history = RunHistory()

    def observe(self, record: Record) -> Scalars | None:
        """What the record measures; None if nothing."""
        self._history.observe(record)
        match record:
            case SignalRecord(signal=signal):
                name = signal.task
                return Scalars(signal.step, {f"score/{name}": signal.score, f"heldout_loss/{name}": signal.loss})
            case DecisionRecord(plan=plan, tasks=tasks):
                return Scalars(plan.source_step, {f"heat/{task.task}": task.heat for task in tasks})
            case IntervalRecord():
                return self._boundary()
            case _:
                return None

    def _boundary(self) -> Scalars:
        boundaries = self._history.boundaries
        report, plan = boundaries[-1].report, boundaries[-1].plan
        before = boundaries[-2].report.num_samples if len(boundaries) > 1 else (0,) * len(report.num_samples)
        served = [after - earlier for after, earlier in zip(report.num_samples, before, strict=True)]
        num_rows = self._history.run_setup.num_rows
        values: dict[str, float] = {"stage": plan.stage}
        for index, name in enumerate(self._history.task_names):
            values[f"weights/{name}"] = plan.weights[index]
            if sum(served) > 0:
                values[f"share/{name}"] = served[index] / sum(served)
            values[f"epochs/{name}"] = report.num_samples[index] / num_rows[index]
            loss = report.train_loss[index]
            if loss is not None:
                values[f"train_loss/{name}"] = loss
        return Scalars(report.step, values)
