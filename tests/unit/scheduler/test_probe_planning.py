"""The engine plans the next evaluation with every decision; it lowers the error of what is decided."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scheduler.allocation import ALL_PROBES, AdaptiveAllocation, AllocationConfig, UniformAllocation
from scheduler.engine import HeatEngine
from scheduler.keeper import HeatKeeper, replay
from scheduler.ledger import read_ledger
from scheduler.records import DecisionRecord, IntervalRecord, Record, SignalRecord
from scheduler.setup import EngineSetup
from scheduler.signals import TaskSignal
from scheduler.simulator import LearnerConfig, MeasurementConfig, TaskLearner, simulate
from scheduler.simulator.config import PowerLawCurve, SaturatedCurve
from tests.unit.scheduler.made import setup, signal

NUM_PROBES = 64


def made(allocation: AllocationConfig, *, num_tasks: int = 3, **more: object) -> EngineSetup:
    plain = setup([f"t{task}" for task in range(num_tasks)], num_rows=[2000] * num_tasks, **more)
    mixture = plain.mixture.model_copy(update={"allocation": allocation})
    return plain.model_copy(update={"mixture": mixture, "num_probes": (NUM_PROBES,) * num_tasks})


def test_by_default_every_evaluation_reads_all_probes() -> None:
    engine = HeatEngine(setup())
    engine.observe(signal("a"))
    assert engine.probes == ALL_PROBES
    assert engine.decide(0)[0].probes == ()


def test_a_saturated_task_yields_its_probes_to_one_that_is_learnt() -> None:
    engine = HeatEngine(made(AdaptiveAllocation()))
    for step in (0, 25, 50):
        for task, score in (("t0", 1.0), ("t1", 0.5), ("t2", 0.5)):
            engine.observe(signal(task, step=step, score=score, num_probes=16))
        record, _ = engine.decide(step)
    assert record.probes == engine.probes.num_probes
    assert record.probes[0] < 16 < record.probes[1]
    assert sum(record.probes) == 48


def test_the_probes_come_back_from_a_checkpoint_and_from_the_ledger(tmp_path: Path) -> None:
    keeper = HeatKeeper.open(tmp_path / "ledger.jsonl", made(AdaptiveAllocation()))
    keeper.begin_attempt("first", 0)
    for name, score in (("t0", 1.0), ("t1", 0.5), ("t2", 0.2)):
        keeper.observe(signal(name, score=score))
    keeper.evaluation_done(0, 0)
    planned = keeper.probes_for(25)
    assert planned != HeatKeeper.open(tmp_path / "other.jsonl", made(AdaptiveAllocation())).probes_for(25)
    assert HeatKeeper.open(tmp_path / "ledger.jsonl", made(AdaptiveAllocation())).probes_for(25) == planned
    assert replay(read_ledger(tmp_path / "ledger.jsonl")).engine.probes == planned
    restored = HeatEngine(made(AdaptiveAllocation()))
    restored.load_state_dict(keeper.memory.engine.state_dict())
    assert restored.probes == planned
    assert keeper.probes_for(1000) == ALL_PROBES


def test_shared_out_probes_must_be_counted_for_every_task() -> None:
    plain = setup()
    mixture = plain.mixture.model_copy(update={"allocation": AdaptiveAllocation()})
    with pytest.raises(ValueError, match="num_probes has 0 entries for 3 tasks"):
        EngineSetup.model_validate(plain.model_copy(update={"mixture": mixture}).model_dump())


def decision_error(allocation: AllocationConfig, *, seed: int) -> float:
    """Mean KL divergence from the targets an engine with exact scores would set on the same run."""
    curves = [SaturatedCurve()] * 8 + [PowerLawCurve(scale_samples=100.0 * 1.4**task) for task in range(10)]
    learner = LearnerConfig(tasks={f"t{task}": TaskLearner(curve=curve) for task, curve in enumerate(curves)})
    written: list[Record] = []
    run_setup = made(allocation, num_tasks=len(curves), batch_size=32)
    measurement = MeasurementConfig(num_probes=NUM_PROBES)
    run = simulate(run_setup, learner, seed=seed, measurement=measurement, on_record=written.append)
    truth = dict(zip(run.steps.tolist(), run.scores.tolist(), strict=True))
    exact, last, errors = HeatEngine(made(UniformAllocation(), num_tasks=len(curves), batch_size=32)), {}, []
    for record in written:
        match record:
            case IntervalRecord(report=report):
                exact.observe_interval(report)
            case SignalRecord(signal=one):
                last[one.task] = one
            case DecisionRecord(plan=plan, tasks=tasks):
                for name, score in zip(run.task_names, truth[plan.source_step], strict=True):
                    exact.observe(_exactly(last[name], plan.source_step, score))
                ideal = np.array([task.target_weight for task in exact.decide(plan.source_step)[0].tasks])
                asked = np.array([task.target_weight for task in tasks])
                errors.append(float((ideal * np.log(ideal / asked)).sum()))
            case _:
                pass
    return float(np.mean(errors[2:]))


def _exactly(last: TaskSignal, step: int, score: float) -> TaskSignal:
    return dataclasses.replace(last, step=step, score=score, num_probes=10**6)


def test_at_an_equal_budget_decisions_are_nearer_to_those_of_exact_scores_than_with_equal_probes() -> None:
    seeds = range(4)
    uniform = [decision_error(UniformAllocation(probes_per_task=8), seed=seed) for seed in seeds]
    adaptive = [decision_error(AdaptiveAllocation(probes_per_task=8), seed=seed) for seed in seeds]
    assert np.mean(adaptive) < np.mean(uniform)
