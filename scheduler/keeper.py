"""The keeper: an engine and its ledger as one. Every call that matters is written down before it returns.

The ledger is the engine's memory: opening an existing ledger replays it, so an engine that died comes back in the state
of its last written line, and `scheduler.replay` can recompute every plan with the same code.

Calls are idempotent: a repeated call (Ray retries a call whose actor died) writes nothing twice.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scheduler.engine import HeatEngine
from scheduler.errors import LedgerError, ReplayMismatchError, StateError
from scheduler.ledger import LedgerWriter, read_ledger
from scheduler.plan import MixturePlan
from scheduler.records import (
    SCHEMA_VERSION,
    AttemptRecord,
    CheckpointRecord,
    DecisionRecord,
    EndRecord,
    IntervalRecord,
    LateRecord,
    Record,
    RefusedRecord,
    RestartRecord,
    RunRecord,
    SignalRecord,
    SkippedRecord,
    to_json,
)
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport, TaskSignal

_KEPT_CHECKPOINTS = 16
_KEPT_PLANS = 8


class RunMemory:
    """The engine and what a run needs around it, as a fold over ledger records. Used live and in replay alike."""

    def __init__(self, setup: EngineSetup) -> None:
        self.setup = setup
        self.engine = HeatEngine(setup)
        self.attempt = -1
        self.plans: list[MixturePlan] = [self.engine.plan]
        self.last_interval_step = -1
        self.decided_step = -1
        self.skipped_steps: set[int] = set()
        self.ended: EndRecord | None = None
        self._checkpoints: dict[int, dict[str, Any]] = {}

    def fold(self, record: Record) -> None:
        """Apply one record of a ledger. Raises ReplayMismatchError when a recorded decision cannot be reproduced."""
        match record:
            case RunRecord(plan=plan):
                if plan != self.engine.plan:
                    raise ReplayMismatchError(
                        f"the initial plan is recorded as {plan}, recomputed as {self.engine.plan}"
                    )
            case AttemptRecord(attempt=attempt, step=step):
                self.begin_attempt(attempt, step)
            case SignalRecord(signal=signal):
                self.engine.observe(signal)
            case DecisionRecord(plan=plan):
                decision, _ = self.decide(plan.source_step)
                if decision != record:
                    raise ReplayMismatchError(
                        f"plan {plan.version} was recorded as {to_json(record)}\n"
                        f"but recomputing it gives      {to_json(decision)}"
                    )
            case IntervalRecord(report=report):
                self.observe_interval(report)
            case CheckpointRecord(step=step):
                self.take_checkpoint(step)
            case SkippedRecord(step=step):
                self.skipped_steps.add(step)
            case EndRecord():
                self.ended = record
            case _:
                pass

    def begin_attempt(self, attempt: int, step: int) -> None:
        """Roll everything back to `step` (0 or a checkpoint's); Raises LedgerError when there is none at that step."""
        if step > 0 and step not in self._checkpoints:
            raise LedgerError(
                f"the workers resume from step {step}, but the ledger has checkpoints at {sorted(self._checkpoints)} "
                "only; the checkpoint and the ledger are not of the same run"
            )
        self.attempt = attempt
        self.ended = None
        self._checkpoints = {at: state for at, state in self._checkpoints.items() if at <= step}
        if attempt > 0:
            self.engine = HeatEngine(self.setup)
            if step > 0:
                self.engine.load_state_dict(self._checkpoints[step])
            self.plans = [self.engine.plan]
        self.decided_step = self.engine.plan.source_step
        self.last_interval_step = step if step > 0 else -1
        self.skipped_steps = set()

    def decide(self, source_step: int) -> tuple[DecisionRecord, Any]:
        """Let the engine decide and remember the plan until it is superseded."""
        outcome = self.engine.decide(source_step)
        self.plans = [*self.plans, self.engine.plan][-_KEPT_PLANS:]
        self.decided_step = source_step
        return outcome

    def observe_interval(self, report: IntervalReport) -> None:
        """Workers reached a boundary."""
        self.engine.observe_interval(report)
        self.last_interval_step = report.step

    def take_checkpoint(self, step: int) -> dict[str, Any]:
        """Engine state for the checkpoint at `step`."""
        state = self.engine.state_dict()
        self._checkpoints = dict([*self._checkpoints.items(), (step, state)][-_KEPT_CHECKPOINTS:])
        return state

    def plan_in_force(self, step: int) -> MixturePlan:
        """Newest plan whose effective step has come."""
        return max((plan for plan in self.plans if plan.effective_from_step <= step), key=lambda plan: plan.version)


class HeatKeeper:
    """Engine plus ledger. See the module docstring."""

    def __init__(self, memory: RunMemory, ledger: LedgerWriter) -> None:
        self.memory = memory
        self._ledger = ledger
        self._tokens: dict[str, int] = {}
        self.lines: list[str] = []

    @classmethod
    def open(cls, path: Path, setup: EngineSetup) -> "HeatKeeper":
        """Start a ledger at `path`, or come back from the one that is there.

        Raises:
            StateError: The ledger there was written under another setup.
        """
        ledger = LedgerWriter(path)
        memory = RunMemory(setup)
        keeper = cls(memory, ledger)
        records = list(read_ledger(path))
        if not records:
            dumped = setup.model_dump(mode="json")
            keeper._write(RunRecord(schema_version=SCHEMA_VERSION, setup=dumped, plan=memory.engine.plan))
            return keeper
        first = records[0]
        if not isinstance(first, RunRecord) or EngineSetup.model_validate(first.setup) != setup:
            raise StateError(f"{path} was written under another configuration; give the run another name")
        for record in records:
            memory.fold(record)
            keeper.lines.append(to_json(record))
        return keeper

    def begin_attempt(self, token: str, step: int, engine_state: Mapping[str, Any] | None = None) -> int:
        """A worker group starts at `step`; returns its attempt number. Equal tokens get equal numbers.

        Raises:
            LedgerError: `engine_state`, from the workers' checkpoint, is not what the ledger says the state was.
        """
        if token not in self._tokens:
            attempt = self.memory.attempt + 1
            self.memory.begin_attempt(attempt, step)
            if engine_state is not None and engine_state != self.memory.engine.state_dict():
                raise LedgerError(f"the checkpoint at step {step} holds another engine state than the ledger")
            self._write(AttemptRecord(attempt=attempt, step=step))
            self._tokens[token] = attempt
        return self._tokens[token]

    def observe(self, signal: TaskSignal) -> None:
        """Take a signal in, or refuse it and write down why."""
        if signal.attempt != self.memory.attempt:
            reason = f"from attempt {signal.attempt}; the run is at attempt {self.memory.attempt}"
        else:
            reason = self.memory.engine.observe(signal)
        if reason is None:
            self._write(SignalRecord(signal))
        elif reason:
            self._write(RefusedRecord(task=str(signal.task), step=_whole(signal.step), reason=reason))

    def evaluation_done(self, attempt: int, step: int) -> None:
        """All signals of the evaluation at `step` have been sent: decide."""
        stale = attempt != self.memory.attempt or step <= self.memory.decided_step
        if stale or step >= self.memory.setup.total_steps:
            return
        decision, stage = self.memory.decide(step)
        self._write(decision)
        if stage is not None:
            self._write(stage)

    def ready_plan(self, step: int) -> MixturePlan | None:
        """The plan for `step`, or None while the evaluation it must follow has not been decided on (never in async)."""
        if self.memory.setup.mode != "async":
            lag = self.memory.setup.interval_steps if self.memory.setup.mode == "lag1" else 0
            awaited = step - lag
            if awaited >= 0 and awaited not in self.memory.skipped_steps and self.memory.decided_step < awaited:
                return None
        return self.memory.plan_in_force(step)

    def keep_late_plan(self, step: int) -> MixturePlan:
        """The wait is over without a decision: keep the plan in force and write that down."""
        plan = self.memory.plan_in_force(step)
        lag = self.memory.setup.interval_steps if self.memory.setup.mode == "lag1" else 0
        self._write(LateRecord(step=step, awaited_step=step - lag, kept_version=plan.version))
        return plan

    def observe_interval(self, report: IntervalReport) -> None:
        """Workers reached a boundary and apply `report.plan_version` from there on."""
        if report.attempt != self.memory.attempt or report.step <= self.memory.last_interval_step:
            return
        self.memory.observe_interval(report)
        plan = next(plan for plan in self.memory.plans if plan.version == report.plan_version)
        age = report.step - plan.source_step if plan.source_step >= 0 else report.step
        self._write(IntervalRecord(report=report, staleness_steps=age))

    def skip(self, step: int) -> None:
        """The snapshot at `step` will not be evaluated."""
        if step not in self.memory.skipped_steps:
            self.memory.skipped_steps.add(step)
            self._write(SkippedRecord(step=step))

    def checkpoint(self, step: int) -> dict[str, Any]:
        """Engine state to be stored in the checkpoint at `step`."""
        self._write(CheckpointRecord(step=step, plan_version=self.memory.engine.plan.version))
        return self.memory.take_checkpoint(step)

    def note_restart(self, actor: str, detail: str) -> None:
        """An actor came back after it died."""
        self._write(RestartRecord(actor=actor, detail=detail))

    def end(self, step: int, reason: str) -> None:
        """The run ended."""
        if self.memory.ended is None:
            self.memory.ended = EndRecord(step=step, reason=reason)
            self._write(self.memory.ended)

    def _write(self, record: Record) -> None:
        self.lines.append(self._ledger.append(record))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else -1


def replay(records: Iterable[Record]) -> RunMemory:
    """Recompute a ledger from its first record on.

    Raises:
        LedgerError: The ledger does not begin with a run record.
        ReplayMismatchError: A recorded plan differs from the recomputed one.
    """
    iterator = iter(records)
    first = next(iterator, None)
    if not isinstance(first, RunRecord):
        raise LedgerError("the ledger is empty or does not begin with a run record")
    memory = RunMemory(EngineSetup.model_validate(first.setup))
    memory.fold(first)
    for record in iterator:
        memory.fold(record)
    return memory
