"""The keeper: an engine and its ledger as one. Every call that matters is written down before it returns.

The ledger is the engine's memory: opening an existing ledger replays it, so an engine that died comes back in the state
of its last written line, and `replay` recomputes every plan with the same code (`scheduler.memory`).

Calls are idempotent: a repeated call (Ray retries a call whose actor died) writes nothing twice.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from scheduler.allocation import Allocation
from scheduler.errors import LedgerError, StateError
from scheduler.ledger import LedgerWriter, read_ledger
from scheduler.memory import RunMemory, latest_setup, setup_of
from scheduler.plan import MixturePlan
from scheduler.records import (
    SCHEMA_VERSION,
    AttemptRecord,
    CheckpointRecord,
    EndRecord,
    ExportRecord,
    LateRecord,
    Record,
    RefusedRecord,
    RestartRecord,
    RunRecord,
    SelectionRecord,
    SignalRecord,
    SkippedRecord,
    StorageRecord,
)
from scheduler.selection import Ranked, SelectionRule, ranking
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport, TaskSignal, shown

_MAX_NAME = 120
_RECENT_LINES = 4096
_LINES_AT_ONCE = 20_000


class HeatKeeper:
    """Engine plus ledger. See the module docstring."""

    def __init__(self, memory: RunMemory, ledger: LedgerWriter) -> None:
        self.memory = memory
        self._ledger = ledger
        self._tokens: dict[str, int] = {}
        self._unclaimed: AttemptRecord | None = None
        self.num_lines = 0
        self._recent: deque[str] = deque(maxlen=_RECENT_LINES)

    @classmethod
    def open(cls, path: Path, setup: EngineSetup) -> "HeatKeeper":
        """Start a ledger at `path`, or come back from the one that is there.

        Raises:
            StateError: The ledger there was written under another setup; it is left as it is.
            LedgerError: It is damaged, or was written by another version of the engine.
        """
        records = list(read_ledger(path)) if path.is_file() else []
        if records and latest_setup(records) != setup:
            raise StateError(f"{path} was written under another configuration; give the run another name")
        keeper = cls(replay(records) if records else RunMemory(setup), LedgerWriter(path))
        keeper.num_lines = len(records)
        keeper._come_back(records)
        return keeper

    def _come_back(self, records: Sequence[Record]) -> None:
        """Finish what the last call before a death had begun."""
        if not records:
            setup = self.memory.setup.model_dump(mode="json")
            self._write(RunRecord(schema_version=SCHEMA_VERSION, setup=setup, plan=self.memory.engine.plan))
            return
        self._write_due()
        asides = RestartRecord | StorageRecord
        last = next(record for record in reversed(records) if not isinstance(record, asides))
        self._unclaimed = last if isinstance(last, AttemptRecord) else None

    def begin_attempt(
        self, token: str, step: int, engine_state: Mapping[str, Any] | None = None, refused: tuple[str, ...] = ()
    ) -> int:
        """A worker group starts at `step`; returns its attempt number. Equal tokens get equal numbers.

        `refused` says why newer checkpoints were not taken.

        An attempt whose start was the last thing written before this keeper died belongs to the call that is repeated.

        Raises:
            LedgerError: `engine_state`, from the workers' checkpoint, is not what the ledger says the state was.
        """
        if token not in self._tokens:
            frozen = self.memory.tasks_gone_back_for(step)
            record = AttemptRecord(self.memory.attempt + 1, step, refused, frozen)
            if self._unclaimed is not None and self._unclaimed.step == step:
                record = self._unclaimed
            else:
                self.memory.begin_attempt(record.attempt, step, engine_state, frozen=frozen)
                self._write(record)
            self._unclaimed = None
            self._tokens[token] = record.attempt
        return self._tokens[token]

    def observe(self, signal: TaskSignal) -> None:
        """Take a signal in, or refuse it and write down why."""
        reason = self.memory.refusal(signal)
        if reason is None:
            self._write(SignalRecord(signal))
        elif reason:
            task = signal.task[:_MAX_NAME] if isinstance(signal.task, str) else shown(signal.task)
            self._refuse(RefusedRecord(task=task, step=_whole(signal.step), reason=reason))

    def note_refused_verdicts(self, step: int, reason: str) -> None:
        """The evaluation at `step` did not count lines of people's verdicts."""
        self._refuse(RefusedRecord(task="", step=step, reason=reason))

    def _refuse(self, refused: RefusedRecord) -> None:
        if refused not in self.memory.refused:
            self.memory.refused.add(refused)
            self._write(refused)

    def evaluation_done(self, attempt: int, step: int) -> None:
        """All signals of the evaluation at `step` have been sent: decide."""
        stale = attempt != self.memory.attempt or step <= self.memory.decided_step
        if stale or step >= self.memory.setup.total_steps:
            return
        self._write(self.memory.decide(step))
        self._write_due()

    def ready_plan(self, step: int) -> MixturePlan | None:
        """The plan for `step`, or None while the evaluation it must follow has not been decided on (never in async)."""
        if self.memory.setup.mode != "async":
            awaited = step - self.memory.setup.lag_steps
            if awaited >= 0 and awaited not in self.memory.skipped_steps and self.memory.decided_step < awaited:
                return None
        return self.memory.plan_in_force(step)

    def rollback_for(self, step: int) -> int | None:
        """The step to go back to instead of training `step`, or None."""
        rollback = self.memory.rollback
        asked = rollback is not None and self.memory.plan_in_force(step).source_step >= rollback.step
        return rollback.to_step if rollback is not None and asked else None

    def keep_late_plan(self, step: int) -> MixturePlan:
        """The wait is over without a decision: keep the plan in force and write that down."""
        plan = self.memory.plan_in_force(step)
        if step > self.memory.late_step:
            self.memory.late_step = step
            awaited = step - self.memory.setup.lag_steps
            self._write(LateRecord(step=step, awaited_step=awaited, kept_version=plan.version))
        return plan

    def observe_served(self, report: IntervalReport) -> None:
        """Workers reached a boundary and wait for the decision on it: what they have trained (`sync` mode)."""
        if report.attempt == self.memory.attempt and report.step > self.memory.served_step:
            self._write(self.memory.observe_served(report))

    def observe_interval(self, report: IntervalReport) -> None:
        """Workers reached a boundary and apply `report.plan_version` from there on."""
        if report.attempt != self.memory.attempt or report.step <= self.memory.last_interval_step:
            return
        self._write(self.memory.observe_interval(report))

    def skip(self, step: int) -> None:
        """The snapshot at `step` will not be evaluated."""
        if step not in self.memory.skipped_steps:
            self.memory.skipped_steps.add(step)
            self._write(SkippedRecord(step=step))

    def checkpoint(self, step: int) -> dict[str, Any]:
        """Engine state to be stored in the checkpoint at `step`."""
        state = self.memory.checkpoint_at(step)
        if state is None:
            self._write(CheckpointRecord(step=step, plan_version=self.memory.engine.plan.version))
            state = self.memory.take_checkpoint(step)
        return state

    def probes_for(self, step: int) -> Allocation:
        """See `HeatEngine.probes_for`."""
        return self.memory.engine.probes_for(step)

    def note_restart(self, actor: str, detail: str) -> None:
        """An actor came back after it died."""
        self._write(RestartRecord(actor=actor, detail=detail))

    def observe_selection(self, attempt: int, step: int, scores: Mapping[str, float]) -> None:
        """The weights of `step` were scored on the selection set; repeated and superseded tellings are dropped."""
        if attempt == self.memory.attempt and step not in self.memory.selection:
            self.memory.selection[step] = dict(scores)
            self._write(SelectionRecord(step=step, scores=dict(scores)))

    def ranking(self, rule: SelectionRule) -> list[Ranked]:
        """The measured steps of the surviving history, the best first."""
        return ranking(self.memory.selection, rule)

    def note_export(self, step: int, why: str) -> None:
        """The weights of `step` are the run's result."""
        self._write(ExportRecord(step=step, why=why))

    def note_storage(self, step: int, detail: str) -> None:
        """Storage failed for a checkpoint, or was mended."""
        self._write(StorageRecord(step=step, detail=detail))

    def end(self, step: int, reason: str) -> None:
        """The run ended."""
        if self.memory.ended is None:
            self.memory.ended = EndRecord(step=step, reason=reason)
            self._write(self.memory.ended)

    @property
    def lines(self) -> list[str]:
        """The whole ledger, from the disk."""
        return self._from_disk(0, None)

    def lines_from(self, first: int) -> list[str]:
        """Ledger lines from number `first` on, as many as a message should hold; only the newest are in memory."""
        oldest = self.num_lines - len(self._recent)
        if first >= oldest:
            return list(islice(self._recent, first - oldest, None))
        return self._from_disk(first, first + _LINES_AT_ONCE)

    def _from_disk(self, first: int, end: int | None) -> list[str]:
        with self._ledger.path.open(encoding="utf-8", newline="\n") as file:
            return [line.removesuffix("\n") for line in islice(file, first, end)]

    def _write_due(self) -> None:
        while self.memory.due:
            self._write(self.memory.due.pop(0))

    def _write(self, record: Record) -> None:
        self._recent.append(self._ledger.append(record))
        self.num_lines += 1


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else -1


def replay(records: Iterable[Record], *, also: Callable[[Record], object] | None = None) -> RunMemory:
    """Recompute a ledger from its first record on, in one pass; `also` is given every record that was found equal.

    Raises:
        LedgerError: The ledger does not begin with a run record of this engine, or contradicts itself.
        ReplayMismatchError: A recorded plan differs from the recomputed one.
    """
    memory: RunMemory | None = None
    for record in records:
        memory = memory or RunMemory(setup_of(record))
        memory.fold(record)
        if also is not None:
            also(record)
    if memory is None:
        raise LedgerError("the ledger is empty")
    return memory
