import numpy as np
import pytest
from scipy.stats import t as student_t

from scheduler.setup import StaticPolicy
from scheduler.simulator import simulate
from scheduler.simulator.summary import interval, macro_scores, outcome
from tests.unit.scheduler.simulator.described import learner, setup


def test_an_outcome_leaves_noise_out_of_the_scores_and_shows_what_it_was_fed() -> None:
    config = learner()
    run = simulate(setup(config, policy=StaticPolicy(), prior={"type": "uniform"}), config, seed=0)
    found = outcome(run, config, target_macro_score=0.6)
    last = dict(zip(run.task_names, run.scores[-1].tolist(), strict=True))
    assert found.final_worst == min(last["easy"], last["hard"]) > last["noise"]
    assert found.final_macro == pytest.approx((last["easy"] + last["hard"] + last["saturated"]) / 3)
    assert (found.noise_share, found.saturated_share) == (0.25, 0.25)
    assert found.steps_to_target is not None
    before = macro_scores(run, config)[run.steps < found.steps_to_target]
    assert before.max() < 0.6
    assert outcome(run, config, target_macro_score=0.999).steps_to_target is None


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(size=7).tolist()
    found = interval(values)
    low, high = student_t.interval(0.95, 6, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(7))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert interval([0.5]) == (type(found))(0.5, None, None, (0.5,))
