"""The loop of a run, without a model: the real engine decides, the learner learns, in the order of the real loop.

At every boundary, as in `train.loop`: the workers take the plan due at this step and report what was served; the model
is measured; the engine decides. In mode `sync` it decides before the plan is taken. In mode `async` a plan is taken
to be ready at the next boundary. The engine is driven through its public methods only and keeps every record it would
keep in a run, so a simulated decision is a decision, guards, stages and lag included.

What this does not do: late plans, restarts, skipped evaluations, human verdicts, weights as shares of tokens.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scheduler.engine import HeatEngine
from scheduler.errors import ConfigError
from scheduler.plan import MixturePlan
from scheduler.records import (
    SCHEMA_VERSION,
    AttemptRecord,
    EndRecord,
    IntervalRecord,
    Record,
    RunRecord,
    ServedRecord,
    SignalRecord,
)
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport
from scheduler.simulator.config import LearnerConfig, MeasurementConfig
from scheduler.simulator.learner import Learner, Truth
from scheduler.simulator.probes import Probes
from scheduler.simulator.shares import Shares

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What happened at B boundaries to K tasks.

    Attributes:
        task_names: In the order of the columns.
        steps: Optimiser steps done at each boundary [B], from 0 to the end.
        weights: Weights in force from each boundary on [B, K]; at the last, those of the last interval.
        scores: True score [B, K].
        measured_scores: Score the engine was shown [B, K]; NaN where the task was left out.
        losses: True held-out loss, nats per supervised token [B, K].
        train_losses: True training loss, likewise.
        num_samples: Samples served so far [B, K].
        stages: Stage of the plan in force [B].
        plan_versions: Version of the plan in force [B].
        holds: Per decision, why the policy kept its old weights, or None.
        held_by: Per decision, how many tasks each guard held back.
    """

    task_names: tuple[str, ...]
    steps: NDArray[np.int64]
    weights: Array
    scores: Array
    measured_scores: Array
    losses: Array
    train_losses: Array
    num_samples: NDArray[np.int64]
    stages: NDArray[np.int64]
    plan_versions: NDArray[np.int64]
    holds: tuple[str | None, ...]
    held_by: tuple[Mapping[str, int], ...]


def simulate(
    setup: EngineSetup,
    learner: LearnerConfig,
    *,
    seed: int,
    measurement: MeasurementConfig | None = None,
    on_record: Callable[[Record], object] | None = None,
) -> SimulatedRun:
    """One run of `setup` on the learner; equal arguments give equal runs, bit for bit.

    Args:
        setup: As a run would have it; its tasks and rows are the learner's, in the learner's order.
        learner: What the tasks are like.
        seed: Draws the learner's spread and the luck of the probes.
        measurement: How the engine is shown the truth.
        on_record: Given every record that the ledger of such a run would hold.

    Raises:
        ConfigError: The setup is of other tasks than the learner, or the learner contradicts itself.
    """
    run = _Run(setup, Learner(learner, seed=seed), measurement or MeasurementConfig(), seed, on_record)
    return run.play()


class _Run:
    """One simulated run in progress."""

    def __init__(
        self,
        setup: EngineSetup,
        learner: Learner,
        measurement: MeasurementConfig,
        seed: int,
        on_record: Callable[[Record], object] | None,
    ) -> None:
        _check_same_tasks(setup, learner)
        self.setup = setup
        self.learner = learner
        self.engine = HeatEngine(setup)
        self.shares = Shares(len(learner.names))
        self.probes = Probes(measurement, undecided=learner.undecided, rejected_share=learner.rejected_share, seed=seed)
        self.on_record = on_record
        self.plans: list[MixturePlan] = [self.engine.plan]
        self.plan = self.engine.plan
        self.num_samples = np.zeros(len(learner.names), dtype=np.int64)
        self.last_counts = self.num_samples
        self.holds: list[str | None] = []
        self.held_by: list[Mapping[str, int]] = []
        self.rows: list[tuple[object, ...]] = []

    def play(self) -> SimulatedRun:
        """From step 0 to the end."""
        total, interval = self.setup.total_steps, self.setup.interval_steps
        self._record(RunRecord(SCHEMA_VERSION, self.setup.model_dump(mode="json"), self.plan))
        self._record(AttemptRecord(attempt=0, step=0))
        for step in range(0, total, interval):
            self._boundary(step)
            self._train(min(interval, total - step))
        truth = self.learner.truth()
        self._record_interval(self._observe_served(total, truth))
        self._note(total, truth, self._measure(total, truth))
        self._record(EndRecord(step=total, reason="finished"))
        return self._run()

    def _boundary(self, step: int) -> None:
        truth = self.learner.truth()
        if self.setup.mode == "sync":
            served = self._observe_served(step, truth)
            self._record(ServedRecord(served))
            shown = self._evaluate(step, truth)
            self._take_plan(step)
            self._record_interval(replace(served, plan_version=self.plan.version))
        else:
            self._take_plan(step)
            self._record_interval(self._observe_served(step, truth))
            shown = self._evaluate(step, truth)
        self._note(step, truth, shown)

    def _take_plan(self, step: int) -> None:
        self.plan = next(plan for plan in reversed(self.plans) if plan.effective_from_step <= step)
        self.plans = [plan for plan in self.plans if plan.version >= self.plan.version]

    def _train(self, num_steps: int) -> None:
        weights = np.array(self.plan.weights)
        self.last_counts = self.shares.serve(weights, num_steps * self.setup.global_batch_size)
        self.num_samples = self.num_samples + self.last_counts
        self.learner.advance(self.last_counts, num_steps=num_steps)

    def _evaluate(self, step: int, truth: Truth) -> Array:
        shown = self._measure(step, truth)
        decision, stage = self.engine.decide(step)
        self.plans.append(self.engine.plan)
        self.holds.append(decision.held)
        self.held_by.append(Counter(task.held_by for task in decision.tasks if task.held_by))
        self._record(decision)
        if stage is not None:
            self._record(stage)
        return shown

    def _measure(self, step: int, truth: Truth) -> Array:
        """Show the engine one evaluation; returns the scores it saw [K]."""
        signals = self.probes.measure(
            self.learner.names,
            truth,
            step=step,
            plan_version=self.plan.version,
            num_probes=self.engine.probes_for(step).num_probes,
        )
        for signal in signals:
            refused = self.engine.observe(signal)
            assert refused is None, refused
            self._record(SignalRecord(signal))
        shown = {signal.task: signal.score for signal in signals}
        return np.array([shown.get(name, np.nan) for name in self.learner.names])

    def _observe_served(self, step: int, truth: Truth) -> IntervalReport:
        """Tell the engine what has been trained; returns what it was told."""
        losses = zip(truth.train_loss.tolist(), self.last_counts.tolist(), strict=True)
        report = IntervalReport(
            attempt=0,
            step=step,
            plan_version=self.plan.version,
            num_samples=tuple(self.num_samples.tolist()),
            num_tokens=tuple(self.num_samples.tolist()),
            train_loss=tuple(loss if count else None for loss, count in losses),
            sequence_hash=0,
        )
        self.engine.observe_interval(report)
        return report

    def _record_interval(self, report: IntervalReport) -> None:
        age = report.step - self.plan.source_step if self.plan.source_step >= 0 else report.step
        self._record(IntervalRecord(report=report, staleness_steps=age))

    def _note(self, step: int, truth: Truth, shown: Array) -> None:
        now = (self.plan.weights, truth.score, shown, truth.loss, truth.train_loss, self.num_samples)
        self.rows.append((step, *now, self.plan.stage, self.plan.version))

    def _record(self, record: Record) -> None:
        if self.on_record is not None:
            self.on_record(record)

    def _run(self) -> SimulatedRun:
        steps, weights, scores, shown, losses, train_losses, num_samples, stages, versions = zip(
            *self.rows, strict=True
        )
        return SimulatedRun(
            task_names=self.learner.names,
            steps=_whole(steps),
            weights=np.array(weights),
            scores=np.array(scores),
            measured_scores=np.array(shown),
            losses=np.array(losses),
            train_losses=np.array(train_losses),
            num_samples=_whole(num_samples),
            stages=_whole(stages),
            plan_versions=_whole(versions),
            holds=tuple(self.holds),
            held_by=tuple(self.held_by),
        )


def _whole(values: Sequence[object]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _check_same_tasks(setup: EngineSetup, learner: Learner) -> None:
    names = tuple(task.name for task in setup.tasks)
    if names != learner.names:
        raise ConfigError(f"the setup is of the tasks {list(names)}, the learner of {list(learner.names)}")
    if setup.num_rows != learner.num_rows:
        raise ConfigError(f"the setup has {list(setup.num_rows)} rows, the learner {list(learner.num_rows)}")
