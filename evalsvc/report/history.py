"""The surviving history of a run, read from its ledger one record at a time.

A run that restarts goes back to a checkpoint and trains the steps after it again. The ledger keeps both tellings; the
history keeps the one the model was really made by, and puts the other aside as superseded:

    attempt 0:  0 ──── 50 ──── 100 ──── 150 ✗
    attempt 1:                 100 ──── 150 ──── 200     the first telling of (100, 150] is superseded

Decisions go back to the plan the engine's state held when that checkpoint was taken. A signal at or before the
checkpoint is still a measurement of the surviving model and stays, until the new attempt measures that task at that
step again. The history judges nothing and formats nothing; `evalsvc.report.model` and the live views in `cluster.views`
read it.
"""

import bisect
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from scheduler.errors import LedgerError
from scheduler.explain import freeze_sentence, level_sentence, rollback_sentence, state_sentence
from scheduler.plan import MixturePlan
from scheduler.records import (
    AttemptRecord,
    CheckpointRecord,
    DecisionRecord,
    EndRecord,
    ExportRecord,
    ForkRecord,
    IntervalRecord,
    LateRecord,
    Record,
    RefusedRecord,
    RestartRecord,
    RollbackRecord,
    RunRecord,
    SelectionRecord,
    ServedRecord,
    SignalRecord,
    SkippedRecord,
    StageRecord,
    StorageRecord,
)
from scheduler.setup import EngineSetup, sample_cap
from scheduler.signals import IntervalReport, TaskSignal

EventKind = Literal[
    "restart",
    "actor",
    "stage",
    "state",
    "level",
    "frozen",
    "late",
    "skipped",
    "refused",
    "used_up",
    "end",
    "fork",
    "storage",
    "export",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something other than a decision that happened, in words. `superseded`: a restart undid it."""

    step: int
    kind: EventKind
    text: str
    plan_version: int | None = None
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Boundary:
    """What the workers had trained at an interval boundary, and the plan in force from there on."""

    report: IntervalReport
    plan: MixturePlan
    staleness_steps: int


class RunHistory:
    """Feed it the ledger's records in order with `observe`; read the surviving history from its attributes.

    Attributes:
        setup: The run's engine setup, of a fork the one it goes on under; None until the run record was seen.
        plans: Surviving plans in order of version, the initial one first.
        decisions: Surviving decisions, one for each plan after the initial one.
        signals: Surviving accepted signals per task, in order of step.
        boundaries: Surviving interval boundaries, in order of step.
        attempts: Starts of the worker group.
        end: The end record, if the run ended and was not taken up again.
        exported: Which step's weights are the result, and why; None until it is written.
        selection: Surviving scores on the selection set, per task, by step.
        superseded_signals: Signals a restart or a later telling set aside; likewise decisions and boundaries.
    """

    def __init__(self) -> None:
        self.setup: EngineSetup | None = None
        self.plans: list[MixturePlan] = []
        self.decisions: list[DecisionRecord] = []
        self.signals: dict[str, list[TaskSignal]] = {}
        self.boundaries: list[Boundary] = []
        self.attempts: list[AttemptRecord] = []
        self.end: EndRecord | None = None
        self.exported: ExportRecord | None = None
        self.selection: dict[int, dict[str, float]] = {}
        self.superseded_signals: list[TaskSignal] = []
        self.superseded_decisions: list[DecisionRecord] = []
        self.superseded_boundaries: list[Boundary] = []
        self._events: list[Event] = []
        self._plan_at_checkpoint: dict[int, int] = {0: 0}

    @classmethod
    def of(cls, records: Iterable[Record]) -> "RunHistory":
        """The history that these records of a ledger, oldest first, tell. Raises as `observe`."""
        history = cls()
        for record in records:
            history.observe(record)
        return history

    @property
    def run_setup(self) -> EngineSetup:
        """The run's setup. Raises LedgerError when no run record was seen yet."""
        if self.setup is None:
            raise LedgerError("the ledger does not start with a run record; is it the whole file, from its first line?")
        return self.setup

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of every per-task array."""
        return tuple(task.name for task in self.run_setup.tasks)

    @property
    def step(self) -> int:
        """Steps that are trained: the last surviving boundary, or the step the last attempt resumed from."""
        resumed = self.attempts[-1].step if self.attempts else 0
        return max(resumed, self.boundaries[-1].report.step if self.boundaries else 0)

    @property
    def plan_in_force(self) -> MixturePlan:
        """The plan of the last surviving boundary; before the first boundary the initial plan."""
        return self.boundaries[-1].plan if self.boundaries else self.plans[0]

    @property
    def state(self) -> str:
        """State of the run under the plan in force (`scheduler.states`)."""
        return self._state_of(self.plan_in_force.version)

    @property
    def events(self) -> tuple[Event, ...]:
        """Events in the order they were recorded; those a restart undid are marked."""
        return tuple(self._events)

    def observe(self, record: Record) -> None:
        """Take in the next record. Raises LedgerError when it names a plan or a task the ledger does not know."""
        match record:
            case RunRecord():
                self._start(record)
            case AttemptRecord():
                self._attempt(record)
            case ForkRecord():
                self._fork(record)
            case SignalRecord(signal=signal):
                self._signal(signal)
            case DecisionRecord():
                self._decision(record)
            case IntervalRecord():
                self._boundary(record)
            case ServedRecord():
                pass  # the interval record that follows says it again
            case EndRecord():
                self.end = record
                self._happened(record.step, "end", f"The run ended at step {record.step}: {record.reason}.")
            case ExportRecord(step=step, why=why):
                self.exported = record
                self._happened(step, "export", f"The result is the weights of step {step}: {_clause(why)}.")
            case SelectionRecord(step=step, scores=scores):
                self.selection[step] = scores
            case CheckpointRecord():
                self._plan_at_checkpoint[record.step] = record.plan_version
            case _:
                self._event(record)

    def _start(self, record: RunRecord) -> None:
        self.setup = _validated(record.setup)
        self.plans = [record.plan]
        self.signals = {task.name: [] for task in self.setup.tasks}

    def _fork(self, record: ForkRecord) -> None:
        self.setup = _validated(record.setup)
        self._roll_back(record.step)
        changed = ", ".join(record.changed) or "nothing"
        self._happened(
            record.step, "fork", f"At step {record.step} this run was forked from another. Changed: {changed}."
        )

    def _attempt(self, record: AttemptRecord) -> None:
        if self.attempts:
            reached = self.step
            self._roll_back(record.step)
            again = f"; {reached - record.step} steps are trained again" if reached > record.step else ""
            refused = "".join(f" {reason[:1].upper()}{_clause(reason[1:])}." for reason in record.refused_checkpoints)
            place = f"the checkpoint at step {record.step}" if record.step else "step 0"
            text = f"The workers restarted (attempt {record.attempt}) from {place}{again}.{refused}"
            if record.frozen:
                text += f" From there on without what overfits: {', '.join(record.frozen)}."
            self._happened(record.step, "restart", text)
        self.attempts.append(record)

    def _roll_back(self, step: int) -> None:
        """Set aside everything measured or trained after `step`, and every plan its checkpoint did not hold."""
        if step not in self._plan_at_checkpoint:
            raise LedgerError(
                f"the workers resume from step {step}, but the ledger has checkpoints at "
                f"{sorted(self._plan_at_checkpoint)} only; the checkpoint and the ledger are not of the same run"
            )
        version = self._plan_at_checkpoint[step]
        for name, signals in self.signals.items():
            self.superseded_signals += [signal for signal in signals if signal.step > step]
            self.signals[name] = [signal for signal in signals if signal.step <= step]
        self.superseded_boundaries += [boundary for boundary in self.boundaries if boundary.report.step > step]
        self.boundaries = [boundary for boundary in self.boundaries if step > 0 and boundary.report.step <= step]
        self.superseded_decisions += [decision for decision in self.decisions if decision.plan.version > version]
        self.decisions = [decision for decision in self.decisions if decision.plan.version <= version]
        self.plans = [plan for plan in self.plans if plan.version <= version]
        self._plan_at_checkpoint = {at: plan for at, plan in self._plan_at_checkpoint.items() if at <= step}
        self._events = [
            dataclasses.replace(event, superseded=True) if _undone(event, step, version) else event
            for event in self._events
        ]
        self.end = self.exported = None
        self.selection = {at: scores for at, scores in self.selection.items() if at <= step}

    def _signal(self, signal: TaskSignal) -> None:
        if signal.task not in self.signals:
            raise LedgerError(f"a signal is of task {signal.task!r}; the run has the tasks {list(self.signals)}")
        known = self.signals[signal.task]
        place = bisect.bisect_left(known, signal.step, key=lambda other: other.step)
        if place < len(known) and known[place].step == signal.step:
            self.superseded_signals.append(known[place])
            known[place] = signal
        else:
            known.insert(place, signal)

    def _decision(self, record: DecisionRecord) -> None:
        expected = self.plans[-1].version + 1
        if record.plan.version != expected:
            raise LedgerError(f"plan {record.plan.version} comes where plan {expected} must; the ledger misses lines")
        self._progressed(record)
        self.decisions.append(record)
        self.plans.append(record.plan)

    def _progressed(self, record: DecisionRecord) -> None:
        """Note a new state, frozen tasks, changes of levels; that stage 2 follows stage 1 has a record of its own."""
        plan, before = record.plan, self._state_of(self.plans[-1].version)
        step, version = plan.effective_from_step, plan.version
        if record.state != before and (before, record.state) != ("stage 1", "stage 2"):
            self._happened(step, "state", state_sentence(record.state, step), version)
        for freeze in record.frozen:
            self._happened(step, "frozen", freeze_sentence(freeze), version)
        for move in record.levels:
            self._happened(step, "level", level_sentence(move), version)

    def _state_of(self, version: int) -> str:
        """State of the run under a surviving plan."""
        first = "warm-up" if self.run_setup.mixture.states.warmup_evaluations else "stage 1"
        return next((one.state for one in reversed(self.decisions) if one.plan.version == version), first)

    def _boundary(self, record: IntervalRecord) -> None:
        report = record.report
        plan = next((plan for plan in reversed(self.plans) if plan.version == report.plan_version), None)
        if plan is None:
            raise LedgerError(
                f"step {report.step} was trained under plan {report.plan_version}, which the ledger does not hold; "
                f"it has the plans {[plan.version for plan in self.plans]}"
            )
        before = self.boundaries[-1].report.num_samples if self.boundaries else (0,) * len(report.num_samples)
        self.boundaries.append(Boundary(report=report, plan=plan, staleness_steps=record.staleness_steps))
        self._used_up(report, before)

    def _used_up(self, report: IntervalReport, before: tuple[int, ...]) -> None:
        """Note the tasks that reached their repetition cap since the boundary before."""
        setup = self.run_setup
        for task, rows, now, then in zip(setup.tasks, setup.num_rows, report.num_samples, before, strict=True):
            cap = sample_cap(task.repetition, num_rows=rows)
            if cap is not None and then < cap <= now:
                after = "its share goes to the others" if task.repetition.then == "redistribute" else "the run ends"
                text = f"By step {report.step} {task.name} was trained {cap} times, its repetition cap: {after}."
                self._happened(report.step, "used_up", text)

    def _event(self, record: Record) -> None:
        match record:
            case RollbackRecord(step=step):
                self._happened(step, "restart", rollback_sentence(record))
            case StageRecord(stage=stage, step=step, plan_version=version, reason=reason):
                self._happened(
                    step,
                    "stage",
                    f"Stage {stage} began at step {step} with plan {version}: {_clause(reason)}.",
                    version,
                )
            case LateRecord(step=step, awaited_step=awaited, kept_version=kept):
                text = f"At step {step} the plan from step {awaited} was not ready in time; plan {kept} was kept."
                self._happened(step, "late", text)
            case SkippedRecord(step=step):
                text = f"The snapshot at step {step} was not evaluated: evaluation was too far behind."
                self._happened(step, "skipped", text)
            case RefusedRecord(task=task, step=step, reason=reason):
                what = f"The signal of {task} at step {step} was refused" if task else f"Refused at step {step}"
                self._happened(step, "refused", f"{what}: {_clause(reason)}.")
            case RestartRecord(actor=actor, detail=detail):
                self._happened(self.step, "actor", f"The {actor} came back after it died: {_clause(detail)}.")
            case StorageRecord(step=step, detail=detail):
                self._happened(step, "storage", f"Checkpoint of step {step}: {_clause(detail)}.")

    def _happened(self, step: int, kind: EventKind, text: str, plan_version: int | None = None) -> None:
        self._events.append(Event(step=step, kind=kind, text=text, plan_version=plan_version))


def _validated(setup: dict[str, Any]) -> EngineSetup:
    try:
        return EngineSetup.model_validate(setup)
    except ValidationError as error:
        raise LedgerError(f"the setup in the ledger is not one of this version: {error}") from error


def _clause(text: str) -> str:
    return text.strip().rstrip(".")


def _undone(event: Event, step: int, version: int) -> bool:
    match event.kind:
        case "stage" | "state" | "level" | "frozen":
            return event.superseded or (event.plan_version is not None and event.plan_version > version)
        case "late" | "skipped" | "refused" | "used_up" | "end" | "export":
            return event.superseded or event.step > step
        case "restart" | "actor" | "fork" | "storage":
            return False
