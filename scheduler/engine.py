"""The task-heat engine: signals in, plans out. Pure bookkeeping of one run; no clock, no files, no Ray.

    observe(signal)          buffered by evaluation; refused with a reason when it cannot be used
    observe_interval(report) what the workers have served so far
    decide(source_step)      folds the evaluation in: heat → stage → policy → guards → plan, with every reason

Equal calls give equal plans, bit for bit: that is what makes the ledger replayable.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import StateError
from scheduler.explain import sentences
from scheduler.guards import Guarded, GuardFacts, Guards
from scheduler.heat import HeatTracker
from scheduler.plan import MixturePlan
from scheduler.policies import Evidence, Hold, Target, decide
from scheduler.prior import prior_weights
from scheduler.records import DecisionRecord, StageRecord, TaskDecision
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport, TaskSignal
from scheduler.stages import StageMachine, Transition

_STATE_KEYS = {"heat", "stages", "plan", "pending", "served", "served_step"}


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
        self.plan = MixturePlan(
            version=0,
            source_step=-1,
            effective_from_step=0,
            stage=1,
            stage_start_step=0,
            weights=tuple(self.guards.initial().tolist()),
        )
        self.served = np.zeros(len(setup.tasks))
        self.served_step = 0
        self._pending: dict[int, dict[int, TaskSignal]] = {}
        self._is_core = np.array([task.tier == "core" for task in setup.tasks])
        self._is_long_tail = np.array([task.tier == "long_tail" for task in setup.tasks])

    def observe(self, signal: TaskSignal) -> str | None:
        """Buffer a signal for its evaluation. Returns why it was refused, or None; "" for an exact repetition."""
        fault = signal.fault()
        if fault is not None:
            return fault
        if signal.task not in self.index_of:
            return f"{signal.task!r} is not a task of this run"
        if signal.step <= self.plan.source_step:
            return f"late: the evaluation at step {self.plan.source_step} has already been decided on"
        if signal.step > self.setup.total_steps:
            return f"step {signal.step} lies beyond the run's {self.setup.total_steps} steps"
        evaluation = self._pending.setdefault(signal.step, {})
        index = self.index_of[signal.task]
        if index in evaluation:
            return "" if evaluation[index] == signal else "a different signal for this task and step came before"
        evaluation[index] = signal
        return None

    def observe_interval(self, report: IntervalReport) -> None:
        """Remember what has been served, for the epoch cap."""
        self.served = np.array(report.num_samples, dtype=np.float64)
        self.served_step = report.step

    def decide(self, source_step: int) -> tuple[DecisionRecord, StageRecord | None]:
        """Decide on the evaluation at `source_step`; signals of older, undecided evaluations are dropped with it."""
        before = self.plan
        lag = self.setup.interval_steps if self.setup.mode == "lag1" else 0
        effective_step = source_step + lag
        signals = self._pending.get(source_step, {})
        self._pending = {step: rest for step, rest in self._pending.items() if step > source_step}
        self.heat.update(signals, served=self.served, overfit_tolerance=self.guards.config.overfit_tolerance)
        transition = self._stage_transition(effective_step)
        policy = self.setup.stage_policies[self.stages.stage - 1]
        outcome = decide(policy, self._evidence(len(signals)))
        facts = self._facts(effective_step)
        match outcome:
            case Target(logits=logits):
                guarded, held = self.guards.apply(logits, facts), None
            case Hold(reason=reason):
                guarded, held = Guarded(facts.previous, facts.previous, ("",) * len(facts.previous)), reason
        self.plan = MixturePlan(
            version=before.version + 1,
            source_step=source_step,
            effective_from_step=effective_step,
            stage=self.stages.stage,
            stage_start_step=self.stages.stage_start_step,
            weights=tuple(guarded.weights.tolist()),
        )
        tasks = self._task_decisions(before, guarded)
        record = DecisionRecord(plan=self.plan, tasks=tasks, held=held, sentences=sentences(tasks, held=held))
        return record, self._stage_record(transition)

    def _stage_transition(self, effective_step: int) -> Transition | None:
        measured = self.heat.measured_once
        return self.stages.observe(
            effective_step=effective_step,
            scores=self.heat.state.score[measured],
            compliance=self.heat.state.format_compliance[measured],
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
        total, batch = self.setup.total_steps, self.setup.global_batch_size
        config = self.guards.config
        stable = self._is_core & (self.heat.state.decay == 0.0) if config.hold_core else np.zeros_like(self._is_core)
        epochs_left = np.full(len(previous), np.inf)
        if config.max_epochs is not None and effective_step < total:
            will_be_served = self.served + previous * batch * max(effective_step - self.served_step, 0)
            allowed = config.max_epochs * np.array(self.setup.num_rows, dtype=np.float64) - will_be_served
            epochs_left = np.maximum(allowed, 0.0) / (batch * (total - effective_step))
        return GuardFacts(
            previous=previous,
            progress=effective_step / total,
            stable_core=stable,
            overfit_evaluations=self.heat.state.overfit,
            epochs_left=epochs_left,
        )

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
        rows = zip(self.index_of, *(column.tolist() for column in columns), guarded.held_by, strict=True)
        return tuple(TaskDecision(*row) for row in rows)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy of everything that later decisions depend on."""
        return {
            "heat": self.heat.state_dict(),
            "stages": self.stages.state_dict(),
            "plan": {**asdict(self.plan), "weights": list(self.plan.weights)},
            "pending": [asdict(signal) for signals in self._pending.values() for signal in signals.values()],
            "served": self.served.tolist(),
            "served_step": self.served_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys or another number of tasks."""
        if state.keys() != _STATE_KEYS:
            raise StateError(f"engine state has the keys {sorted(state)}; expected {sorted(_STATE_KEYS)}")
        self.heat.load_state_dict(state["heat"])
        self.stages.load_state_dict(state["stages"])
        self.plan = MixturePlan(**{**state["plan"], "weights": tuple(state["plan"]["weights"])})
        self._pending = {}
        for fields in state["pending"]:
            signal = TaskSignal(**fields)
            self._pending.setdefault(signal.step, {})[self.index_of[signal.task]] = signal
        self.served = np.array(state["served"])
        self.served_step = state["served_step"]
