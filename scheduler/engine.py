"""The task-heat engine: signals in, plans out. Pure bookkeeping of one run; no clock, no files, no Ray.

    observe(signal)          buffered by evaluation; refused with a reason when it cannot be used
    observe_interval(report) what the workers have served so far
    decide(source_step)      folds the evaluation in: heat → stage → policy → guards → plan, with every reason

Equal calls give equal plans, bit for bit: that is what makes the ledger replayable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.allocation import ALL_PROBES, Allocation
from scheduler.arrays import packed, unpacked
from scheduler.epochs import EpochCaps
from scheduler.errors import StateError
from scheduler.evaluation import Evaluation
from scheduler.explain import BROUGHT_WITHIN_BOUNDS, recognitions, sentences, step_sentences
from scheduler.exposure import stage_exposure
from scheduler.guards import Guarded, GuardFacts, Guards
from scheduler.heat import HeatTracker
from scheduler.plan import MixturePlan
from scheduler.policies import Evidence, History, Hold, Target, answer, resolve
from scheduler.policies.base import Driver
from scheduler.prior import base_samples, prior_weights
from scheduler.probe_planning import first_probes, next_probes
from scheduler.progression import Progression, Step
from scheduler.records import DecisionRecord, StageRecord, TaskDecision
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport, TaskSignal, shown
from scheduler.stages import StageMachine, Transition

_STATE_KEYS = {
    "heat",
    "history",
    "stages",
    "policy",
    "progression",
    "plan",
    "pending",
    "served",
    "served_step",
    "probes",
}


@dataclass(frozen=True, slots=True)
class Weighing:
    """The numeric result of a decision.

    Attributes:
        guarded: Bounded weights.
        held: Why the policy kept the old ones; None if it did not.
        driver: The statistic that moved the weights; None for heat and when they were held.
        transition: The stage that begins with the new plan, if one does.
        step: What else changes with it: state, difficulty levels, frozen tasks.
        was_outside: The weights before broke a floor or ceiling of this stage, and were brought within them first.
    """

    guarded: Guarded
    held: str | None
    driver: Driver | None
    transition: Transition | None
    step: Step
    was_outside: bool


class HeatEngine:
    """One run's engine. Stateful parts: heat, history, stage machine, the policy's memory, the plan, buffered signals.

    The policy's memory changes with an evaluation only. When stage 2 has another policy than stage 1, or the same with
    other settings, that policy begins with an empty memory; heat and history go on.
    """

    def __init__(self, setup: EngineSetup) -> None:
        self.setup = setup
        self.index_of = {task.name: index for index, task in enumerate(setup.tasks)}
        self.prior = prior_weights(setup)
        self._guards = (Guards(setup, self.prior, stage=1), Guards(setup, self.prior, stage=2))
        self.heat = HeatTracker(
            config=setup.mixture.heat,
            target_scores=np.array([task.target_score for task in setup.tasks]),
            base_samples=base_samples(setup, self.prior),
        )
        self.history = History.new(len(setup.tasks))
        self.stages = StageMachine(setup)
        self.progression = Progression(setup)
        self._rules = [resolve(policy, setup) for policy in setup.stage_policies]
        self.policy_memory = self._rules[0].first_memory(len(setup.tasks))
        self._num_rows = np.array(setup.num_rows, dtype=np.float64)
        self._epoch_caps = (EpochCaps(setup, stage=1), EpochCaps(setup, stage=2))
        self.served = np.zeros(len(setup.tasks))
        self.served_step = 0
        self.plan = MixturePlan(
            version=0,
            source_step=-1,
            effective_from_step=0,
            stage=1,
            stage_start_step=0,
            weights=tuple(self._first_weights().tolist()),
            **stage_exposure(setup, stage=1, curriculum=self.progression.curriculum_of(1))._asdict(),
        )
        self._weights = np.array(self.plan.weights)
        self._num_levels = max(map(len, setup.level_sizes), default=0)
        self.probes = first_probes(setup)
        self._pending: dict[int, Evaluation] = {}
        self._is_long_tail = np.array([task.tier == "long_tail" for task in setup.tasks])

    @property
    def guards(self) -> Guards:
        """Those of the stage the latest plan is of."""
        return self._guards[self.stages.stage - 1]

    def observe(self, signal: TaskSignal, *, attempt: int | None = None) -> str | None:
        """Buffer a signal for its evaluation. Returns why it was refused, or None; "" for an exact repetition.

        With `attempt`, signals of another one are refused.
        """
        fault = signal.fault()
        if fault is not None:
            return fault
        if attempt is not None and signal.attempt != attempt:
            return f"from attempt {signal.attempt}; the run is at attempt {attempt}"
        if signal.task not in self.index_of:
            return f"{shown(signal.task)} is not a task of this run"
        if signal.step <= self.plan.source_step:
            return f"late: the evaluation at step {self.plan.source_step} has already been decided on"
        if signal.step > self.setup.total_steps:
            return f"step {signal.step} lies beyond the run's {self.setup.total_steps} steps"
        index = self.index_of[signal.task]
        levels = self.setup.level_sizes[index] if self.setup.level_sizes else signal.level_probes
        if len(signal.level_probes) > len(levels):
            return f"it has counts of {len(signal.level_probes)} difficulty levels; the task has {len(levels)}"
        earlier = self._buffer(signal.step).signals.get(index)
        if earlier is not None:
            return "" if earlier == signal else "a different signal for this task and step came before"
        self._buffer(signal.step).add(index, signal)
        return None

    def _buffer(self, step: int) -> Evaluation:
        if step not in self._pending:
            self._pending[step] = Evaluation(len(self.setup.tasks), self._num_levels)
        return self._pending[step]

    def observe_interval(self, report: IntervalReport) -> None:
        """Remember what has been served and its training loss. Raises StateError for another number of tasks."""
        for column in (report.num_samples, report.num_tokens, report.train_loss):
            if len(column) != len(self.served):
                raise StateError(f"the report is on {len(column)} tasks; this run has {len(self.served)}")
        unknown = {gradient.task for gradient in report.gradients} - self.index_of.keys()
        if unknown:
            raise StateError(f"the report holds gradients of {sorted(unknown)}, which are not tasks of this run")
        self.history.observe_gradients({self.index_of[gradient.task]: gradient for gradient in report.gradients})
        counted = report.num_tokens if self.setup.mixture.weight_unit == "tokens" else report.num_samples
        self.history.observe_interval(counted=counted, train_loss=report.train_loss)
        self.served = np.array(report.num_samples, dtype=np.float64)
        self.served_step = report.step

    def decide(self, source_step: int) -> tuple[DecisionRecord, StageRecord | None]:
        """Decide on the evaluation at `source_step`; signals of older, undecided evaluations are dropped with it."""
        before, known = self.plan, self.heat.learnability.recognised()
        weighing = self.weigh(source_step)
        stage, scores = self.stages.stage, self.heat.state.score.tolist()
        exposure = stage_exposure(self.setup, stage, scores, curriculum=self.progression.curriculum_of(stage))
        self.plan = MixturePlan(
            version=before.version + 1,
            source_step=source_step,
            effective_from_step=self.effective_step(source_step),
            stage=stage,
            stage_start_step=self.stages.stage_start_step,
            weights=tuple(weighing.guarded.weights.tolist()),
            **exposure._asdict(),
        )
        self._weights = weighing.guarded.weights
        self.probes = self._next_probes(weighing.guarded.weights)
        tasks, step = self._task_decisions(before, weighing), weighing.step
        words = (
            *sentences(tasks, held=weighing.held),
            *((BROUGHT_WITHIN_BOUNDS,) if weighing.was_outside else ()),
            *recognitions(tasks, known),
            *step_sentences(step, self.plan.effective_from_step),
        )
        record = DecisionRecord(
            plan=self.plan,
            tasks=tasks,
            held=weighing.held,
            sentences=words,
            state=self.progression.states.state,
            levels=step.levels,
            frozen=step.frozen,
            probes=self.probes.num_probes,
        )
        return record, self._stage_record(weighing.transition)

    def weigh(self, source_step: int) -> Weighing:
        """The numeric part of `decide`, its only caller in a run: fold the evaluation in, find the next weights."""
        effective_step = self.effective_step(source_step)
        evaluation = self._buffer(source_step)
        self._pending = {step: rest for step, rest in self._pending.items() if step > source_step}
        tolerance = self.guards.config.overfit_tolerance
        self.heat.update(evaluation, step=source_step, served=self.served, overfit_tolerance=tolerance)
        self.history.fold(evaluation)
        transition = self._stage_transition(effective_step, anything_measured=len(evaluation.signals) > 0)
        step = self.progression.observe(
            evaluation,
            self.heat.state,
            stages=self.stages,
            guards=self.guards.config,
            effective_step=effective_step,
        )
        facts = self._facts(effective_step)
        was_outside = facts.previous is not self._weights
        match self._ask(self._evidence(evaluation, facts, source_step), stage_begins=transition is not None):
            case Target(logits=logits, driver=driver):
                return Weighing(self.guards.apply(logits, facts), None, driver, transition, step, was_outside)
            case Hold(reason=reason):
                kept = Guarded(facts.previous, facts.previous, np.zeros(len(facts.previous), dtype=np.intp))
                return Weighing(kept, reason, None, transition, step, was_outside)

    def _next_probes(self, weights: NDArray[np.float64]) -> Allocation:
        policy = self.setup.stage_policies[self.stages.stage - 1]
        return next_probes(
            self.setup,
            policy,
            self.heat,
            self.history,
            weights=weights,
            prior=self.prior,
            long_tail=self._is_long_tail,
        )

    def _ask(self, evidence: Evidence, *, stage_begins: bool) -> Target | Hold:
        """Ask the policy of the stage, and remember what it remembers; hold where the state lets nothing move."""
        stage_1, stage_2 = self.setup.stage_policies
        stage = self.stages.stage
        if stage_begins and stage_1 != stage_2:
            self.policy_memory = self._rules[stage - 1].first_memory(len(self.served))
        held = self.progression.states.held()
        if held is not None:
            return Hold(held)
        answered = answer(self.setup.stage_policies[stage - 1], self._rules[stage - 1], evidence, self.policy_memory)
        self.policy_memory = answered.memory
        return answered.outcome

    def probes_for(self, step: int) -> Allocation:
        """The probes of the evaluation at `step`: as last decided; all of them at the end, which decides nothing."""
        return self.probes if step < self.setup.total_steps else ALL_PROBES

    def effective_step(self, source_step: int) -> int:
        """First step of the plan decided on the evaluation at `source_step`."""
        return source_step + self.setup.lag_steps

    def drop_pending(self) -> None:
        """Forget the signals of undecided evaluations: the workers whose weights they judged are gone."""
        self._pending = {}

    def _stage_transition(self, effective_step: int, *, anything_measured: bool) -> Transition | None:
        if self.progression.states.is_frozen(effective_step):
            return None
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

    def _evidence(self, evaluation: Evaluation, facts: GuardFacts, source_step: int) -> Evidence:
        state, history, measured = self.heat.state, self.history, self.heat.measured_once
        return Evidence(
            prior=self.prior,
            previous=facts.previous,
            num_rows=self._num_rows,
            heat=state.heat,
            learnability=self.heat.learnability.value,
            given_up=self.heat.learnability.given_up,
            gap=state.gap,
            long_tail=self._is_long_tail,
            measured=measured,
            fresh=evaluation.measured,
            span=history.span,
            score=history.score,
            first_score=history.first_score,
            best_score=np.where(measured, state.best_score, np.nan),
            previous_score=history.previous_score,
            loss=history.loss,
            first_loss=history.first_loss,
            best_loss=np.where(measured, state.best_loss, np.nan),
            previous_loss=history.previous_loss,
            train_loss=history.train_loss,
            previous_train_loss=history.previous_train_loss,
            first_train_loss=history.first_train_loss,
            gradient_squared=history.gradient_squared,
            gradient_variance=history.gradient_variance,
            gradient_pull=history.gradient_pull,
            gradient_fresh=history.gradient_new == 2.0,
            served=history.counted,
            exposure=history.exposure,
            total_exposure=history.total_exposure,
            step=source_step,
            progress=min(facts.progress, 1.0),
        )

    def _facts(self, effective_step: int) -> GuardFacts:
        states = self.progression.states
        return GuardFacts(
            previous=self.guards.admit(self._weights),
            progress=effective_step / self.setup.total_steps,
            overfit_evaluations=self.heat.state.overfit,
            epochs_left=self._epochs_left(self._weights, effective_step=effective_step),
            frozen_tasks=self.progression.frozen_tasks,
            max_change=states.config.max_change(states.state, late_max_change=self.guards.late_max_change),
        )

    def _first_weights(self) -> NDArray[np.float64]:
        """Of plan 0: what the first policy asks for without evidence, within bounds."""
        asked = self._rules[0].first_weights(self.prior)
        return self.guards.initial(asked, self._epochs_left(asked, effective_step=0))

    def _epochs_left(self, weights: NDArray[np.float64], *, effective_step: int) -> NDArray[np.float64]:
        return self._epoch_caps[self.stages.stage - 1].weights_left(
            weights, served=self.served, served_step=self.served_step, effective_step=effective_step
        )

    def _task_decisions(self, before: MixturePlan, weighing: Weighing) -> tuple[TaskDecision, ...]:
        state, guarded = self.heat.state, weighing.guarded
        columns: list[NDArray[np.float64]] = [
            state.decay,
            state.variance,
            state.rejection,
            state.gap,
            state.heat,
            self.heat.learnability.value,
            np.array(before.weights),
            guarded.target,
            guarded.weights,
        ]
        drivers = [""] * len(self.served) if weighing.driver is None else weighing.driver.words()
        numbers = (column.tolist() for column in columns)
        recognised = self.heat.learnability.recognised()
        return tuple(map(TaskDecision, self.index_of, *numbers, guarded.held_by, drivers, *recognised))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy of everything that later decisions depend on."""
        return {
            "heat": self.heat.state_dict(),
            "history": self.history.state_dict(),
            "stages": self.stages.state_dict(),
            "progression": self.progression.state_dict(),
            "policy": {name: packed(array) for name, array in self.policy_memory.items()},
            "plan": self.plan.to_fields(),
            "pending": [signal.to_fields() for one in self._pending.values() for signal in one.signals.values()],
            "served": packed(self.served),
            "served_step": self.served_step,
            "probes": list(self.probes.num_probes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys or another number of tasks."""
        if state.keys() != _STATE_KEYS:
            raise StateError(f"engine state has the keys {sorted(state)}; expected {sorted(_STATE_KEYS)}")
        if len(state["plan"]["weights"]) != len(self.served):
            raise StateError(
                f"plan.weights is for {len(state['plan']['weights'])} tasks; this run has {len(self.served)}"
            )
        served = unpacked({"served": state["served"]}, {"served": self.served.shape}, what="engine")["served"]
        unknown = {signal["task"] for signal in state["pending"]} - self.index_of.keys()
        if unknown:
            raise StateError(f"the state holds signals of {sorted(unknown)}, which are not tasks of this run")
        self.heat.load_state_dict(state["heat"])
        self.history.load_state_dict(state["history"])
        self.stages.load_state_dict(state["stages"])
        self.progression.load_state_dict(state["progression"])
        empty = self._rules[self.stages.stage - 1].first_memory(len(self.served))
        expected = {name: array.shape for name, array in empty.items()}
        self.policy_memory = unpacked(state["policy"], expected, what="policy")
        self.plan = MixturePlan.from_fields(state["plan"])
        self._weights = np.array(self.plan.weights)
        self._pending = {}
        for fields in state["pending"]:
            signal = TaskSignal.from_fields(fields)
            self._buffer(signal.step).add(self.index_of[signal.task], signal)
        self.served = served
        self.served_step = state["served_step"]
        self.probes = self.probes._replace(num_probes=tuple(state["probes"]))

    def take_over(self, state: Mapping[str, Any], *, of: EngineSetup) -> None:
        """Go on from the state of an engine under another setup `of` the same tasks.

        Heat and history go on; a policy that differs from the one that was in use begins with an empty memory, and
        difficulty levels, state and frozen tasks go on where both setups have them.
        Raises as `load_state_dict`.
        """
        stage = state["stages"]["stage"] - 1
        if self.setup.stage_policies[stage] != of.stage_policies[stage]:
            memory = self._rules[stage].first_memory(len(self.served))
            state = {**state, "policy": {name: packed(array) for name, array in memory.items()}}
        self.load_state_dict({**state, "progression": self.progression.inherited(state["progression"], of=of)})
        if self.setup.mixture.allocation != of.mixture.allocation:
            self.probes = first_probes(self.setup)
