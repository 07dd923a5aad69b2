"""The projection at the edges that a random test rarely meets."""

import numpy as np
import pytest

from scheduler import simplex
from scheduler.simplex import project, softmax, step_towards

INF, NAN = np.inf, np.nan


def test_one_task_gets_all() -> None:
    assert project(np.array([-3.0]), np.array([0.2]), np.array([1.0])).tolist() == [1.0]


def test_bounds_that_meet_decide_alone() -> None:
    pinned = np.array([0.2, 0.3, 0.5])
    assert project(np.array([9.0, -9.0, 0.0]), pinned, pinned).tolist() == pinned.tolist()


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([INF, 0.0, 0.0], [0.8, 0.1, 0.1]),
        ([INF, 1e200, 0.0], [0.8, 0.1, 0.1]),
        ([NAN, 0.0, 0.0], [0.1, 0.45, 0.45]),
        ([-INF, -INF, -INF], [1 / 3, 1 / 3, 1 / 3]),
        ([NAN, NAN, NAN], [1 / 3, 1 / 3, 1 / 3]),
        ([INF, INF, -INF], [0.45, 0.45, 0.1]),
        ([1e308, -1e308, 0.0], [0.8, 0.1, 0.1]),
    ],
)
def test_logits_that_are_no_numbers_still_give_a_mixture(logits: list[float], expected: list[float]) -> None:
    weights = project(np.array(logits), np.full(3, 0.1), np.full(3, 0.8))
    assert weights.tolist() == pytest.approx(expected)


def test_only_differences_of_logits_count_however_low_they_lie() -> None:
    logits, lower, upper = np.array([0.0, -1.0, -2.0]), np.zeros(3), np.ones(3)
    for shift in (0.0, -5000.0, 5000.0):
        assert project(logits + shift, lower, upper).tolist() == pytest.approx(softmax(logits).tolist())


def test_ten_thousand_tasks_sum_to_one_within_the_last_bits() -> None:
    rng = np.random.default_rng(0)
    lower, upper = np.full(10_000, 2e-5), np.full(10_000, 2e-3)
    weights = project(rng.normal(0, 5, 10_000), lower, upper)
    assert abs(weights.sum() - 1.0) < 1e-14
    assert np.all((weights >= lower) & (weights <= upper))


def test_both_ways_to_the_scale_end_on_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    logits, lower = rng.normal(0, 3, 200), np.full(200, 1e-3)
    upper = lower + rng.random(200) * 0.05
    by_newton = project(logits, lower, upper)
    monkeypatch.setattr(simplex, "_NEWTON_STEPS", 0)
    np.testing.assert_allclose(by_newton, project(logits, lower, upper), atol=1e-14)


def test_a_target_within_the_limit_is_reached_and_one_beyond_is_not() -> None:
    previous, target = np.array([0.5, 0.5]), np.array([0.7, 0.3])
    near, held = step_towards(previous, target, 0.2)
    assert (near.tolist(), held) == (target.tolist(), False)
    far, held = step_towards(previous, target, 0.05)
    assert far.tolist() == pytest.approx([0.55, 0.45])
    assert held
