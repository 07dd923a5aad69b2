"""`taskheat replay`: the ledger alone reproduces every plan and every sample that was trained.

Plans are recomputed from the recorded signals and compared bit for bit. The sample sequence is recomputed from seed,
pool sizes and plans, and its running hash compared with the one gathered from what the ranks really trained: a lost,
repeated or swapped sample changes it.
"""

from dataclasses import dataclass
from pathlib import Path

from cluster.replayed_stream import lengths_for_replay, replayed_batches
from evalsvc.report.history import RunHistory
from scheduler.errors import LedgerError
from scheduler.keeper import replay
from scheduler.ledger import read_ledger
from scheduler.setup import EngineSetup


@dataclass(frozen=True, slots=True)
class Audit:
    """What a ledger proves."""

    num_decisions: int
    num_attempts: int
    num_steps: int
    num_samples: tuple[int, ...]
    epochs: tuple[float, ...]
    task_names: tuple[str, ...]

    def __str__(self) -> str:
        total = sum(self.num_samples)
        return (
            f"{self.num_decisions} plans recomputed from the ledger: all identical\n"
            f"{self.num_steps} steps, {total} samples recomputed from seed and plans, over {self.num_attempts} "
            "start(s) of the workers: 0 lost, 0 repeated within an epoch\n"
            + "\n".join(
                f"  {name}: {count} samples, {epochs:.2f} epochs"
                for name, count, epochs in zip(self.task_names, self.num_samples, self.epochs, strict=True)
            )
        )


def audit(path: Path) -> Audit:
    """Recompute the ledger of a run (its directory, or the file) and compare.

    Raises:
        LedgerError: No ledger, or one that is damaged or lacks the report of a boundary.
        ReplayMismatchError: A plan or the sample sequence is not what the ledger's own evidence gives.
        DataError: Weights are shares of tokens, and the run's prepared data is gone.
    """
    history = RunHistory()
    setup = replay(read_ledger(path), also=history.observe).setup
    _check_complete(setup, history)
    root = path if path.is_dir() else path.parent.parent
    for _ in replayed_batches(history, supervised_lengths=lengths_for_replay(root, setup)):
        pass
    num_steps, num_samples = 0, (0,) * len(setup.tasks)
    if history.boundaries:
        num_steps, num_samples = history.boundaries[-1].report.step, history.boundaries[-1].report.num_samples
    return Audit(
        num_decisions=len(history.decisions) + len(history.superseded_decisions),
        num_attempts=len(history.attempts),
        num_steps=num_steps,
        num_samples=num_samples,
        epochs=tuple(count / rows for count, rows in zip(num_samples, setup.num_rows, strict=True)),
        task_names=tuple(task.name for task in setup.tasks),
    )


def _check_complete(setup: EngineSetup, history: RunHistory) -> None:
    """A missing report could hide a plan, or samples, that nothing else in the ledger tells of."""
    expected, last = 0, -1
    may_run_out = any(task.repetition.max_epochs is not None for task in setup.tasks)
    early_end = history.end.step if history.end is not None and may_run_out else None
    for boundary in history.boundaries:
        last = boundary.report.step
        if last not in (expected, early_end):
            raise LedgerError(
                f"the ledger lacks the workers' report of step {expected}; the next one is of step {last}"
            )
        expected = min(last + setup.interval_steps, setup.total_steps)
    if history.end is not None and history.end.step != last:
        raise LedgerError(
            f"the run ended at step {history.end.step}, but the ledger lacks the workers' reports "
            f"from step {expected} on"
        )
