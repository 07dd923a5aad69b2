"""What a run remembers: the engine and what a run needs around it, as a fold over the records of its ledger.

One code for the live run, for coming back after a death and for replay. Folding checks as it goes: a record that the
engine would not have written raises.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from scheduler.engine import HeatEngine
from scheduler.errors import LedgerError, ReplayMismatchError
from scheduler.explain import stays_sentence
from scheduler.plan import MixturePlan
from scheduler.records import (
    SCHEMA_VERSION,
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
    to_json,
)
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport, TaskSignal

_KEPT_CHECKPOINTS = 16
_SPARE_CHECKPOINTS = 2
_KEPT_PLANS = 8


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    engine: dict[str, Any]
    plans: tuple[MixturePlan, ...]


class RunMemory:
    """The state of one run. See the module docstring."""

    def __init__(self, setup: EngineSetup) -> None:
        self.setup = setup
        self.engine = HeatEngine(setup)
        self.forked_step = 0
        self.attempt = -1
        self.plans: list[MixturePlan] = [self.engine.plan]
        self.last_interval_step = -1
        self.served_step = -1
        self.decided_step = -1
        self.skipped_steps: set[int] = set()
        self.late_step = -1
        self.ended: EndRecord | None = None
        self.due: list[StageRecord | RollbackRecord] = []
        self.rollback: RollbackRecord | None = None
        self.refused: set[RefusedRecord] = set()
        self.selection: dict[int, dict[str, float]] = {}
        self._taken_out: dict[int, tuple[str, ...]] = {}
        self._checkpoints: dict[int, _Checkpoint] = {}

    def fold(self, record: Record) -> None:
        """Apply one record of a ledger.

        Raises:
            ReplayMismatchError: The engine does not do what the ledger says it did.
            LedgerError: The ledger contradicts itself.
        """
        if self.due and not isinstance(record, type(self.due[0])):
            _compare(record, self.due[0])
        recomputed = self.apply(record)
        if isinstance(recomputed, RefusedRecord) and isinstance(record, SignalRecord):
            raise ReplayMismatchError(f"{to_json(record)} was accepted, but the engine refuses it: {recomputed.reason}")
        _compare(record, recomputed)

    def apply(self, record: Record) -> Record | None:
        """Do what the record tells of, and return the record that this engine makes of it; None: it would make none.

        Raises LedgerError when the ledger contradicts itself.
        """
        if isinstance(record, StageRecord | RollbackRecord):
            return self.due.pop(0) if self.due else None
        self.due = []
        match record:
            case RunRecord():
                return dataclasses.replace(record, plan=HeatEngine(self.setup).plan)
            case SignalRecord(signal=signal):
                refusal = self.refusal(signal)
                return record if refusal is None else RefusedRecord(signal.task, signal.step, refusal)
            case DecisionRecord(plan=plan):
                return self.decide(plan.source_step)
            case ServedRecord(report=report):
                return self.observe_served(report)
            case IntervalRecord(report=report):
                return self.observe_interval(report)
            case CheckpointRecord(step=step):
                version = self.engine.plan.version
                self.take_checkpoint(step)
                return CheckpointRecord(step=step, plan_version=version)
            case _:
                self._note(record)
                return record

    def _note(self, record: Record) -> None:
        match record:
            case AttemptRecord(attempt=attempt, step=step, frozen=frozen):
                self.begin_attempt(attempt, step, frozen=frozen)
            case ForkRecord(step=step, setup=setup):
                self.fork(step, _validated(setup, where="fork record"))
            case RefusedRecord():
                self.refused.add(record)
            case LateRecord(step=step):
                self.late_step = step
            case SkippedRecord(step=step):
                self.skipped_steps.add(step)
            case EndRecord():
                self.ended = record
            case SelectionRecord(step=step, scores=scores):
                self.selection[step] = scores
            case _:
                assert isinstance(record, RestartRecord | StorageRecord | ExportRecord)

    def begin_attempt(
        self, attempt: int, step: int, engine_state: Mapping[str, Any] | None = None, *, frozen: Sequence[str] = ()
    ) -> None:
        """Roll everything back to `step`: to the checkpoint there, or to the start of the run at step 0 without one.

        `frozen` are tasks to take out there. All of the run after `step` is forgotten but for that.

        Raises:
            LedgerError: There is no such checkpoint, or it holds another state than `engine_state`; nothing changed.
        """
        checkpoint = self._checkpoints.get(step)
        if checkpoint is None and step < self.forked_step:
            raise LedgerError(
                f"this run was forked from another at step {self.forked_step} and has no checkpoint that can be gone "
                "on with; fork the other run again"
            )
        if checkpoint is None and step > 0:
            raise LedgerError(
                f"the workers resume from step {step}, but the ledger has checkpoints at {sorted(self._checkpoints)} "
                "only; the checkpoint and the ledger are not of the same run"
            )
        if engine_state is not None and (checkpoint is None or engine_state != checkpoint.engine):
            raise LedgerError(
                f"the checkpoint at step {step} holds another engine state than the ledger; "
                "resume from a checkpoint of this run, or give the run another name"
            )
        self.attempt = attempt
        self.engine = HeatEngine(self.setup)
        self.plans = [self.engine.plan]
        if checkpoint is not None:
            self.engine.load_state_dict(checkpoint.engine)
            self.engine.drop_pending()
            self.plans = list(checkpoint.plans)
        self.engine.progression.freeze(frozen)
        if frozen:
            self._taken_out[step] = tuple(frozen)
        self._checkpoints = {at: state for at, state in self._checkpoints.items() if at <= step}
        self.decided_step = self.engine.plan.source_step
        self.last_interval_step = self.served_step = -1 if checkpoint is None else step
        self.skipped_steps, self.refused = set(), set()
        self.selection = {at: scores for at, scores in self.selection.items() if at <= step}
        self.late_step = -1
        self.ended = None
        if self.rollback is not None and step <= self.rollback.step:  # done, or to be decided again
            self.rollback = None
        self.due = []

    def fork(self, step: int, setup: EngineSetup) -> None:
        """Go on from the checkpoint at `step` under another setup; the attempt that does so must begin next.

        Raises:
            LedgerError: There is no such checkpoint, or the setup is of other data.
        """
        checkpoint = self._checkpoints.get(step)
        if checkpoint is None:
            raise LedgerError(
                f"there is no checkpoint at step {step} to fork from; there are {list(self._checkpoints)}"
            )
        differing = fork_obstacles(self.setup, setup, step)
        if differing:
            raise LedgerError(f"a fork must go on with the same tasks, rows and boundaries: {'; '.join(differing)}")
        self.engine = HeatEngine(setup)
        self.engine.take_over(checkpoint.engine, of=self.setup)
        self._checkpoints = {step: _Checkpoint(self.engine.state_dict(), checkpoint.plans)}
        self.selection = {at: scores for at, scores in self.selection.items() if at == step}
        self.setup, self.forked_step = setup, step

    def refusal(self, signal: TaskSignal) -> str | None:
        """Take a signal in, and answer None; or say why not, "" for an exact repetition."""
        return self.engine.observe(signal, attempt=self.attempt)

    def decide(self, source_step: int) -> DecisionRecord:
        """Let the engine decide and remember the plan until it is superseded; `due` is to be written next."""
        decision, stage = self.engine.decide(source_step)
        self.due = [] if stage is None else [stage]
        decision = self._going_back_for(decision)
        self.plans = [*self.plans, self.engine.plan][-_KEPT_PLANS:]
        self.decided_step = source_step
        self.refused = set()
        return decision

    def _going_back_for(self, decision: DecisionRecord) -> DecisionRecord:
        """Have the run go back before the peak of the tasks just frozen, if it is to; the decision says if it cannot.

        Without a checkpoint that old it begins anew, but for a fork, which has no beginning of its own.
        """
        if not decision.frozen or self.setup.guards_of(decision.plan.stage).overfit_action != "roll_back":
            return decision
        peak = min(freeze.best_step for freeze in decision.frozen)
        begins = [] if self.forked_step else [0]
        to_step = max((step for step in (*begins, *self._checkpoints) if step <= peak), default=None)
        if decision.plan.effective_from_step >= self.setup.total_steps:
            return _with_sentence(decision, stays_sentence("it is over before it could"))
        if to_step is None:
            return _with_sentence(decision, stays_sentence(f"it has no checkpoint of step {peak} or before"))
        self.rollback = RollbackRecord(
            decision.plan.source_step, to_step, tuple(freeze.task for freeze in decision.frozen)
        )
        self.due.append(self.rollback)
        return decision

    def tasks_gone_back_for(self, step: int) -> tuple[str, ...]:
        """Tasks to take out where a group begins at `step`: for whom the run goes, or went, back to there or beyond.

        The checkpoint there was taken before they were.
        """
        gone_back = [tasks for to_step, tasks in self._taken_out.items() if to_step >= step]
        if self.rollback is not None and step <= self.rollback.to_step:
            gone_back.append(self.rollback.tasks)
        return tuple(dict.fromkeys(task for tasks in gone_back for task in tasks))

    def observe_served(self, report: IntervalReport) -> ServedRecord:
        """What has been trained, told before the decision that the workers wait for."""
        self.engine.observe_interval(report)
        self.served_step = report.step
        return ServedRecord(report)

    def observe_interval(self, report: IntervalReport) -> IntervalRecord:
        """Workers reached a boundary. Raises LedgerError when they train under a plan that this run did not make."""
        plan = next((plan for plan in self.plans if plan.version == report.plan_version), None)
        if plan is None:
            versions = [plan.version for plan in self.plans]
            raise LedgerError(f"step {report.step} begins under plan {report.plan_version}; the latest are {versions}")
        if self.served_step < report.step:
            self.engine.observe_interval(report)
        self.last_interval_step = self.served_step = report.step
        age = report.step - plan.source_step if plan.source_step >= 0 else report.step
        return IntervalRecord(report=report, staleness_steps=age)

    def checkpoint_at(self, step: int) -> dict[str, Any] | None:
        """Engine state of the checkpoint taken at `step`, if any."""
        return self._checkpoints[step].engine if step in self._checkpoints else None

    def take_checkpoint(self, step: int) -> dict[str, Any]:
        """Engine state for the checkpoint at `step`, without signals of evaluations that are still going on.

        Who goes on from it has those evaluated anew.
        """
        taken = _Checkpoint({**self.engine.state_dict(), "pending": []}, tuple(self.plans))
        self._checkpoints = dict([*self._checkpoints.items(), (step, taken)][-self._num_kept :])
        return taken.engine

    @property
    def _num_kept(self) -> int:
        """Checkpoints to know: all that the run might be gone on with, or go back to for a task past its peak."""
        return max(_KEPT_CHECKPOINTS, 1 + self.setup.evaluations_gone_back + _SPARE_CHECKPOINTS)

    def plan_in_force(self, step: int) -> MixturePlan:
        """Newest plan whose effective step has come."""
        return max((plan for plan in self.plans if plan.effective_from_step <= step), key=lambda plan: plan.version)


def _with_sentence(decision: DecisionRecord, sentence: str) -> DecisionRecord:
    return dataclasses.replace(decision, sentences=(*decision.sentences, sentence))


def _compare(recorded: Record, recomputed: Record | None) -> None:
    if recorded != recomputed:
        raise ReplayMismatchError(
            f"{_difference(recorded, recomputed)}; the ledger was altered, or another version of taskheat wrote it: "
            "replay it with that version"
        )


def _difference(recorded: Record, recomputed: Record | None) -> str:
    """Where two records differ first, in words."""
    kind = type(recorded).__name__
    if recomputed is None or type(recomputed) is not type(recorded):
        ours = "nothing" if recomputed is None else f"a {type(recomputed).__name__}"
        return f"the ledger holds a {kind} where recomputing gives {ours}: {to_json(recorded)[:200]}"
    theirs, ours = _leaves(dataclasses.asdict(recorded)), _leaves(dataclasses.asdict(recomputed))
    where = next(path for path in theirs | ours if theirs.get(path) != ours.get(path))
    version = f" of plan {recorded.plan.version}" if isinstance(recorded, RunRecord | DecisionRecord) else ""
    return f"{kind}{version}: {where} is {theirs.get(where)!r} in the ledger, {ours.get(where)!r} recomputed"


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Scalars of nested dicts and sequences by dotted path."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {path: value}
    return {leaf: scalar for key, item in items for leaf, scalar in _leaves(item, f"{path}.{key}".lstrip(".")).items()}


def setup_of(first: Record) -> EngineSetup:
    """The setup in a ledger's first record. Raises LedgerError when it is not a run record of this engine."""
    if not isinstance(first, RunRecord):
        raise LedgerError(f"the ledger does not begin with a run record but with {to_json(first)[:120]}")
    if first.schema_version != SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger has schema version {first.schema_version}, this engine reads {SCHEMA_VERSION}; "
            "use the version of the engine that wrote it"
        )
    return _validated(first.setup, where="first record")


def latest_setup(records: Sequence[Record]) -> EngineSetup:
    """The setup that holds at the end of a ledger. Raises as `setup_of`."""
    first = setup_of(records[0])
    forks = [record for record in records if isinstance(record, ForkRecord)]
    return _validated(forks[-1].setup, where="fork record") if forks else first


def fork_obstacles(parent: EngineSetup, child: EngineSetup, step: int) -> list[str]:
    """What keeps `child` from going on where a run under `parent` was at `step`, in words; nothing if it can."""
    fixed = (
        "tasks",
        "num_rows",
        "seed",
        "global_batch_size",
        "level_sizes",
        "mean_supervised_tokens",
        "interval_steps",
    )
    differing = [f"{name} differs" for name in fixed if getattr(parent, name) != getattr(child, name)]
    if parent.mixture.weight_unit != child.mixture.weight_unit:
        differing.append("mixture.weight_unit differs")
    if child.total_steps <= step:
        differing.append(f"total_steps {child.total_steps} is not beyond step {step}")
    return differing


def _validated(setup: Mapping[str, Any], *, where: str) -> EngineSetup:
    try:
        return EngineSetup.model_validate(setup)
    except ValidationError as error:
        raise LedgerError(f"the setup in the ledger's {where} is not valid: {error}") from error
