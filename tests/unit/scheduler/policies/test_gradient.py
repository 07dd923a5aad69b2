"""Gradient statistics: the arithmetic of both forms by hand, and what happens while nothing is measured."""

import numpy as np
import pytest

from scheduler.policies.base import Hold
from scheduler.policies.gradient import GradientRule
from scheduler.policy_config import GradientPolicy
from tests.unit.scheduler.policies.made import asked, evidence, last_asked


def rule(batch_size: int = 16, **settings: object) -> GradientRule:
    return GradientRule(GradientPolicy.model_validate({"anchor": 0.0, **settings}), batch_size)


def test_pike_weighs_the_squared_norm_less_the_noise_relative_to_all_tasks() -> None:
    seen = evidence(2, gradient_squared=[3.0, 1.0], gradient_variance=[32.0, 64.0])
    statistic = rule(16).statistic(seen)
    assert statistic.tolist() == pytest.approx([(3 - 1) / 3.5, (1 - 2) / 3.5])  # 2B = 32, noise 1 and 2
    shares, _ = last_asked(rule(16, rate=1.0), [seen])
    assert shares[0] / shares[1] == pytest.approx(np.exp(3 / 3.5))


def test_a_task_of_noisy_gradients_falls_and_without_the_noise_term_it_does_not() -> None:
    seen = evidence(2, gradient_squared=[1.0, 1.0], gradient_variance=[1.0, 100.0])
    assert last_asked(rule(), [seen] * 5)[0][1] < 0.45
    assert last_asked(rule(noise=0.0), [seen] * 5)[0].tolist() == pytest.approx([0.5, 0.5])


def test_alignment_raises_what_points_along_the_update_and_lowers_what_points_against_it() -> None:
    seen = evidence(3, gradient_pull=[0.3, 0.0, -0.3])
    shares, _ = last_asked(rule(form="alignment", rate=0.5), [seen])
    assert shares[0] / shares[1] == pytest.approx(np.exp(0.5 * 1.5))
    assert shares[1] / shares[2] == pytest.approx(np.exp(0.5 * 1.5))


def test_only_a_new_measurement_moves_a_task() -> None:
    seen = evidence(2, gradient_squared=[3.0, 1.0])
    stale = evidence(2, gradient_squared=[3.0, 1.0], gradient_fresh=[False, False])
    once, memory = last_asked(rule(), [seen])
    twice = rule().step(stale, memory)
    assert asked(twice).tolist() == pytest.approx(once.tolist())


def test_an_anchor_keeps_a_single_statistic_from_running_away() -> None:
    seen = [evidence(2, gradient_squared=[3.0, 1.0])] * 200
    free, held = last_asked(rule(), seen)[0], last_asked(rule(anchor=0.1), seen)[0]
    assert free[1] < 1e-3 < 0.02 < held[1]


def test_no_weight_moves_until_enough_of_the_prior_has_been_measured() -> None:
    nothing = evidence(2, gradient_squared=[np.nan, np.nan])
    answer = rule().step(nothing, rule().first_memory(2))
    assert answer.outcome == Hold(
        "the tasks whose gradient has been measured hold 0% of the prior; 20% are asked for (min_measured_ratio)"
    )
    one_of_ten = evidence(10, gradient_squared=[1.0] + [np.nan] * 9)
    assert isinstance(rule().step(one_of_ten, rule().first_memory(10)).outcome, Hold)
    three = evidence(10, gradient_squared=[1.0, 2.0, 3.0] + [np.nan] * 7)
    shares = asked(rule().step(three, rule().first_memory(10)))
    assert shares[3:].tolist() == pytest.approx([0.1] * 7)
    assert shares[2] > 0.1 > shares[0]
