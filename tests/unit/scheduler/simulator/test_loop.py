from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from scheduler.errors import ConfigError
from scheduler.keeper import replay
from scheduler.records import DecisionRecord, EndRecord, IntervalRecord, Record
from scheduler.setup import HeatPolicy, StaticPolicy
from scheduler.simulator import LearnerConfig, MeasurementConfig, SimulatedRun, simulate
from tests.unit.scheduler.simulator.described import INTERVAL, learner, setup


def run(config: LearnerConfig | None = None, *, seed: int = 0, **fields: Any) -> SimulatedRun:
    config = config or learner()
    return simulate(setup(config, **fields), config, seed=seed)


def test_the_samples_served_add_up_to_steps_times_batch() -> None:
    found = run(steps=410, batch_size=7)
    assert found.num_samples.sum(axis=1).tolist() == (found.steps * 7).tolist()
    assert found.steps[-1] == 410


def test_equal_arguments_give_equal_runs_and_another_seed_another_run() -> None:
    first, again, other = run(seed=3), run(seed=3), run(seed=4)
    assert (first.weights == again.weights).all()
    assert (first.measured_scores == again.measured_scores).all()
    assert (first.measured_scores != other.measured_scores).any()


def test_the_weights_of_a_static_mixture_never_move() -> None:
    weights = run(policy=StaticPolicy()).weights
    assert (weights == weights[0]).all()


def test_what_is_served_follows_the_weights_in_force() -> None:
    found = run(steps=800)
    targets = np.cumsum(found.weights[:-1] * np.diff(found.steps)[:, None] * 16, axis=0)
    assert np.abs(found.num_samples[1:] - targets).max() < 3
    assert np.ptp(found.weights, axis=0).max() > 0.05


def test_a_noise_task_stays_at_chance_and_a_saturated_one_at_its_best_under_any_mixture() -> None:
    found = run(policy=HeatPolicy(strength=10))
    noise, saturated = found.task_names.index("noise"), found.task_names.index("saturated")
    assert set(found.scores[:, noise]) == {0.1}
    assert set(found.scores[:, saturated]) == {0.97}


def records(**fields: Any) -> list[Record]:
    config = learner()
    kept: list[Record] = []
    simulate(setup(config, **fields), config, seed=1, on_record=kept.append)
    return kept


@pytest.mark.parametrize(("mode", "lag"), [("lag1", INTERVAL), ("sync", 0), ("async", INTERVAL)])
def test_a_plan_is_in_force_as_many_steps_after_its_evaluation_as_in_a_run(mode: str, lag: int) -> None:
    in_force_at: dict[int, int] = {}
    decided_at: dict[int, int] = {}
    for record in records(mode=mode):
        if isinstance(record, DecisionRecord):
            decided_at[record.plan.version] = record.plan.source_step
        elif isinstance(record, IntervalRecord):
            in_force_at.setdefault(record.report.plan_version, record.report.step)
    in_force_at.pop(0, None)
    assert len(in_force_at) > 10
    assert {step - decided_at[version] for version, step in in_force_at.items()} == {lag}


def test_no_decision_is_made_at_the_end_though_it_is_measured() -> None:
    kept = records(steps=100)
    assert isinstance(kept[-1], EndRecord)
    decided = [record.plan.source_step for record in kept if isinstance(record, DecisionRecord)]
    assert decided == [0, 25, 50, 75]


@pytest.mark.parametrize("mode", ["lag1", "sync"])
def test_the_ledger_of_a_simulated_run_replays(mode: str) -> None:
    kept = records(mode=mode)
    final = replay(kept)
    assert final.ended is not None
    assert final.engine.plan.version == sum(isinstance(record, DecisionRecord) for record in kept)


def test_the_trust_region_holds_between_any_two_plans() -> None:
    weights = run(policy=HeatPolicy(strength=20), guards={"max_change": 0.03, "late_max_change": 0.03}).weights
    assert max(np.abs(after - before).sum() / 2 for before, after in pairwise(weights)) <= 0.03 + 1e-9


def test_a_learner_of_other_tasks_than_the_setup_is_refused() -> None:
    config = learner()
    with pytest.raises(ConfigError, match="the learner of"):
        simulate(setup(learner({"x": {}})), config, seed=0)
    with pytest.raises(ConfigError, match="rows"):
        simulate(setup(learner({"easy": {"rows": 7}})), learner({"easy": {"rows": 8}}), seed=0)


def test_the_spread_of_a_seed_is_the_same_for_every_policy() -> None:
    config = learner(spread=0.5)
    shown = [
        simulate(setup(config, policy=policy), config, seed=2, measurement=MeasurementConfig(num_probes=64))
        for policy in (StaticPolicy(), HeatPolicy())
    ]
    assert (shown[0].scores[1] == shown[1].scores[1]).all()
    assert (shown[0].scores[1] != run().scores[1]).any()
