"""The run as TensorBoard scalars.

    weights/<task>, stage   at each boundary, of the plan in force from there on
    share/<task>            at each boundary, of the samples served since the one before
    epochs/<task>           at each boundary, passes over its training rows since step 0
    train_loss/<task>       at each boundary, nats per supervised token
    score/<task>, heldout_loss/<task>    at each evaluation
    heat/<task>             at each decision

After a restart the steps that are trained again replace their first telling (TensorBoard's purge step).
"""

from pathlib import Path

from tensorboardX import SummaryWriter

from evalsvc.report.history import RunHistory
from scheduler.records import AttemptRecord, DecisionRecord, IntervalRecord, Record, SignalRecord
from scheduler.signals import TaskSignal


class TensorBoardWriter:
    """Writes event files into `directory`, made if missing. Call `close` at the end of the run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._history = RunHistory()
        self._writer = SummaryWriter(logdir=str(directory))

    def observe(self, record: Record) -> None:
        """Take in the next record of the ledger and write what it measures."""
        self._history.observe(record)
        match record:
            case AttemptRecord(attempt=attempt, step=step) if attempt > 0:
                self._writer.close()
                self._writer = SummaryWriter(
                    logdir=str(self._directory), purge_step=step + 1, filename_suffix=f".attempt{attempt}"
                )
            case SignalRecord(signal=signal):
                self._signal(signal)
            case DecisionRecord(plan=plan, tasks=tasks):
                for task in tasks:
                    self._writer.add_scalar(f"heat/{task.task}", task.heat, plan.source_step)
            case IntervalRecord():
                self._boundary()
            case _:
                pass

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._writer.close()

    def _signal(self, signal: TaskSignal) -> None:
        self._writer.add_scalar(f"score/{signal.task}", signal.score, signal.step)
        self._writer.add_scalar(f"heldout_loss/{signal.task}", signal.loss, signal.step)

    def _boundary(self) -> None:
        boundaries = self._history.boundaries
        report, plan = boundaries[-1].report, boundaries[-1].plan
        before = boundaries[-2].report.num_samples if len(boundaries) > 1 else (0,) * len(report.num_samples)
        served = [after - earlier for after, earlier in zip(report.num_samples, before, strict=True)]
        self._writer.add_scalar("stage", plan.stage, report.step)
        num_rows = self._history.run_setup.num_rows
        for index, name in enumerate(self._history.task_names):
            self._writer.add_scalar(f"weights/{name}", plan.weights[index], report.step)
            if sum(served) > 0:
                self._writer.add_scalar(f"share/{name}", served[index] / sum(served), report.step)
            self._writer.add_scalar(f"epochs/{name}", report.num_samples[index] / num_rows[index], report.step)
            loss = report.train_loss[index]
            if loss is not None:
                self._writer.add_scalar(f"train_loss/{name}", loss, report.step)
