"""The task-heat engine: signals in, plans out. Pure bookkeeping of one run; no clock, no files, no Ray.

    observe(signal)          buffered by evaluation; refused with a reason when it cannot be used
    observe_interval(report) what the workers have served so far
    decide(source_step)      folds the evaluation in: heat → stage → policy → guards → plan, with every reason

Equal calls give equal plans, bit for bit: that is what makes the ledger replayable.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import StateError
from scheduler.evaluation import Evaluation
from scheduler.explain import sentences
from scheduler.guards import Guarded, GuardFacts, Guards
from scheduler.heat import HeatTracker
from scheduler.plan import MixturePlan
from scheduler.policies import Evidence, Hold, Target, decide
from scheduler.prior import prior_weights
from scheduler.records import DecisionRecord, StageRecord, TaskDecision
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport, TaskSignal, shown
from scheduler.stages import StageMachine, Transition

_STATE_KEYS = {"heat", "stages", "plan", "pending", "served", "served_step"}


@dataclass(frozen=True, slots=True)
class Weighing:
    """The numeric result of a decision: bounded weights, why the policy kept the old ones if it did, a new stage."""

    guarded: Guarded
    held: str | None
    transition: Transition | None


class HeatEngine:
    """One run's engine. Stateful parts: heat, stage machine, the plan, buffered signals."""

    def __init__(self, setup: EngineSetup) -> None:
        self.setup = setup
        self.index_of = {task.name: index for index, task in enumerate(setup.tasks)}
        self.prior = prior_weights(setup)
        self.guards = Guards(setup, self.prior)
        self.heat = HeatTracker(
            config=setup.mixture.heat, target_scores=np.array([task.target_score for task in setup.tasks])
        )
        self.stages = StageMachine(setup)
        self._num_rows = np.array(setup.num_rows, dtype=np.float64)
        self.served = np.zeros(len(setup.tasks))
        self.served_step = 0
        self.plan = MixturePlan(
            version=0,
            source_step=-1,
            effective_from_step=0,
            stage=1,
            stage_start_step=0,
            weights=tuple(self.guards.initial(self._epochs_left(self.prior, effective_step=0)).tolist()),
        )
        self._pending: dict[int, Evaluation] = {}
        self._is_long_tail = np.array([task.tier == "long_tail" for task in setup.tasks])

    def observe(self, signal: TaskSignal) -> str | None:
        """Buffer a signal for its evaluation. Returns why it was refused, or None; "" for an exact repetition."""
        fault = signal.fault()
        if fault is not None:
            return fault
        if signal.task not in self.index_of:
            return f"{shown(signal.task)} is not a task of this run"
        if signal.step <= self.plan.source_step:
            return f"late: the evaluation at step {self.plan.source_step} has already been decided on"
        if signal.step > self.setup.total_steps:
            return f"step {signal.step} lies beyond the run's {self.setup.total_steps} steps"
        index = self.index_of[signal.task]
        earlier = self._buffer(signal.step).signals.get(index)
        if earlier is not None:
            return "" if earlier == signal else "a different signal for this task and step came before"
        self._buffer(signal.step).add(index, signal)
        return None

    def _buffer(self, step: int) -> Evaluation:
        if step not in self._pending:
            self._pending[step] = Evaluation(len(self.setup.tasks))
        return self._pending[step]

    def observe_interval(self, report: IntervalReport) -> None:
        """Remember what has been served, for the epoch cap. Raises StateError for another number of tasks."""
        if len(report.num_samples) != len(self.served):
            raise StateError(f"the report is on {len(report.num_samples)} tasks; this run has {len(self.served)}")
        self.served = np.array(report.num_samples, dtype=np.float64)
        self.served_step = report.step

    def decide(self, source_step: int) -> tuple[DecisionRecord, StageRecord | None]:
        """Decide on the evaluation at `source_step`; signals of older, undecided evaluations are dropped with it."""
        before = self.plan
        weighing = self.weigh(source_step)
        self.plan = MixturePlan(
            version=before.version + 1,
            source_step=source_step,
            effective_from_step=self.effective_step(source_step),
            stage=self.stages.stage,
            stage_start_step=self.stages.stage_start_step,
            weights=tuple(weighing.guarded.weights.tolist()),
        )
        tasks = self._task_decisions(before, weighing.guarded)
        words = sentences(tasks, held=weighing.held)
        record = DecisionRecord(plan=self.plan, tasks=tasks, held=weighing.held, sentences=words)
        return record, self._stage_record(weighing.transition)

    def weigh(self, source_step: int) -> Weighing:
        """The numeric part of `decide`, its only caller in a run: fold the evaluation in, find the next weights."""
        effective_step = self.effective_step(source_step)
        evaluation = self._buffer(source_step)
        self._pending = {step: rest for step, rest in self._pending.items() if step > source_step}
        self.heat.update(evaluation, served=self.served, overfit_tolerance=self.guards.config.overfit_tolerance)
        num_measured = len(evaluation.signals)
        transition = self._stage_transition(effective_step, anything_measured=num_measured > 0)
        policy = self.setup.stage_policies[self.stages.stage - 1]
        facts = self._facts(effective_step)
        match decide(policy, self._evidence(num_measured)):
            case Target(logits=logits):
                return Weighing(self.guards.apply(logits, facts), None, transition)
            case Hold(reason=reason):
                kept = Guarded(facts.previous, facts.previous, ("",) * len(facts.previous))
                return Weighing(kept, reason, transition)

    def effective_step(self, source_step: int) -> int:
        """First step of the plan decided on the evaluation at `source_step`."""
        return source_step + self.setup.lag_steps

    def drop_pending(self) -> None:
        """Forget the signals of undecided evaluations: the workers whose weights they judged are gone."""
        self._pending = {}

    def _stage_transition(self, effective_step: int, *, anything_measured: bool) -> Transition | None:
        of_interest = slice(None) if anything_measured else slice(0)
        return self.stages.observe(
            effective_step=effective_step,
            scores=self.heat.state.score[of_interest],
            compliance=self.heat.state.format_compliance[of_interest],
        )

    def _stage_record(self, transition: Transition | None) -> StageRecord | None:
        if transition is None:
            return None
        return StageRecord(stage=2, step=transition.step, plan_version=self.plan.version, reason=transition.reason)

    def _evidence(self, fresh: int) -> Evidence:
        state = self.heat.state
        return Evidence(
            prior=self.prior,
            heat=state.heat,
            learnability=state.learnability,
            gap=state.gap,
            long_tail=self._is_long_tail,
            measured=self.heat.measured_once,
            fresh=fresh,
        )

    def _facts(self, effective_step: int) -> GuardFacts:
        previous = np.array(self.plan.weights)
        return GuardFacts(
            previous=previous,
            progress=effective_step / self.setup.total_steps,
            overfit_evaluations=self.heat.state.overfit,
            epochs_left=self._epochs_left(previous, effective_step=effective_step),
        )

    def _epochs_left(self, previous: NDArray[np.float64], *, effective_step: int) -> NDArray[np.float64]:
        """Samples per slot [K] that the epoch cap allows from `effective_step` on; `previous` is served until then."""
        total, batch = self.setup.total_steps, self.setup.global_batch_size
        max_epochs = self.guards.config.max_epochs
        if max_epochs is None or effective_step >= total:
            return np.full(len(previous), np.inf)
        will_be_served = self.served + previous * batch * max(effective_step - self.served_step, 0)
        allowed = max_epochs * self._num_rows - will_be_served
        return np.maximum(allowed, 0.0) / (batch * (total - effective_step))

    def _task_decisions(self, before: MixturePlan, guarded: Guarded) -> tuple[TaskDecision, ...]:
        state = self.heat.state
        columns: list[NDArray[np.float64]] = [
            state.decay,
            state.variance,
            state.rejection,
            state.gap,
            state.heat,
            state.learnability,
            np.array(before.weights),
            guarded.target,
            guarded.weights,
        ]
        return tuple(map(TaskDecision, self.index_of, *(column.tolist() for column in columns), guarded.held_by))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy of everything that later decisions depend on."""
        return {
            "heat": self.heat.state_dict(),
            "stages": self.stages.state_dict(),
            "plan": {**asdict(self.plan), "weights": list(self.plan.weights)},
            "pending": [asdict(signal) for one in self._pending.values() for signal in one.signals.values()],
            "served": self.served.tolist(),
            "served_step": self.served_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys or another number of tasks."""
        if state.keys() != _STATE_KEYS:
            raise StateError(f"engine state has the keys {sorted(state)}; expected {sorted(_STATE_KEYS)}")
        for name, values in (("plan.weights", state["plan"]["weights"]), ("served", state["served"])):
            if len(values) != len(self.served):
                raise StateError(f"{name} is for {len(values)} tasks; this run has {len(self.served)}")
        unknown = {signal["task"] for signal in state["pending"]} - self.index_of.keys()
        if unknown:
            raise StateError(f"the state holds signals of {sorted(unknown)}, which are not tasks of this run")
        self.heat.load_state_dict(state["heat"])
        self.stages.load_state_dict(state["stages"])
        self.plan = MixturePlan(**{**state["plan"], "weights": tuple(state["plan"]["weights"])})
        self._pending = {}
        for fields in state["pending"]:
            signal = TaskSignal(**fields)
            self._buffer(signal.step).add(self.index_of[signal.task], signal)
        self.served = np.array(state["served"], dtype=np.float64)
        self.served_step = state["served_step"]
