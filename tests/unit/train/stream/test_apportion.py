"""Counts per step: worked cases, recovery after a change of plan, tasks of weight zero, long runs."""

import numpy as np
import pytest

from scheduler.debt import debt_bound
from train.stream.apportion import ONE, apportion_block, apportion_step, to_units


def served(weights: list[float], *, debts: list[float] | None = None, batch_size: int, num_steps: int) -> np.ndarray:
    """Counts [num_steps, K] under one plan."""
    rates = to_units(np.array(weights)) * batch_size
    units = np.array([round(debt * ONE) for debt in debts or [0.0] * len(weights)], dtype=np.int64)
    counts = []
    for _ in range(num_steps):
        counts.append(apportion_step(units, rates))
        units = units + rates - counts[-1] * ONE
    return np.array(counts)


def test_whole_quotas_are_served_exactly() -> None:
    assert served([0.5, 0.25, 0.25], batch_size=4, num_steps=2).tolist() == [[2, 1, 1], [2, 1, 1]]


def test_a_fraction_of_a_sample_is_served_once_it_adds_up() -> None:
    counts = served([0.95, 0.05], batch_size=2, num_steps=100)
    assert counts.sum(axis=0).tolist() == [190, 10]
    assert np.flatnonzero(counts[:, 1])[0] < 10


def test_the_sample_due_first_goes_first() -> None:
    assert served([0.1, 0.6, 0.3], batch_size=1, num_steps=1).tolist() == [[0, 1, 0]]


def test_weights_become_whole_units_that_sum_to_one_sample() -> None:
    weights = np.array([1e-15, 1.0, 0.0, 1 / 3, 0.1])
    units = to_units(weights / weights.sum())
    assert units.sum() == ONE
    assert units[0] == 1
    assert units[2] == 0
    np.testing.assert_array_equal(to_units(units / ONE), units)


def test_a_task_of_weight_zero_is_not_served_while_others_can_fill_the_step() -> None:
    counts = served([0.0, 0.5, 0.5], debts=[0.9, -0.4, -0.5], batch_size=3, num_steps=50)
    assert counts[:, 0].sum() == 0


def test_a_task_of_weight_zero_gets_the_sample_it_is_owed_when_all_others_are_ahead() -> None:
    counts = served([0.0, 0.0, 0.5, 0.5], debts=[0.9, 0.9, -0.9, -0.9], batch_size=1, num_steps=50)
    assert counts[0].tolist() == [1, 0, 0, 0]
    assert counts[:, :2].sum(axis=0).tolist() == [1, 0]


def test_the_largest_quotas_go_first_when_more_is_due_than_the_batch_holds() -> None:
    counts = served([0.2, 0.4, 0.4, 0.0], debts=[0.9, 0.95, 0.8, -2.65], batch_size=1, num_steps=1)
    assert counts.tolist() == [[0, 1, 0, 0]]


def test_a_plan_that_turns_away_from_tasks_ahead_can_leave_a_debt_above_one_for_a_while() -> None:
    debts = np.array([0.9, 0.9, 0.9, -0.9, -0.9, -0.9])
    rates = to_units(np.array([0.3, 0.3, 0.3, 0.04, 0.03, 0.03]))
    units = np.rint(debts * ONE).astype(np.int64)
    units[0] -= units.sum()
    history = []
    for _ in range(300):
        units = units + rates - apportion_step(units, rates) * ONE
        history.append(units.max() / ONE)
    assert 1 < max(history[:10]) < debt_bound(6)
    steps_to_catch_up = int(np.ceil(0.9 / 0.03))
    assert max(history[steps_to_catch_up:]) < 1


def test_the_bound_is_one_sample_for_three_tasks_and_grows_like_the_logarithm() -> None:
    assert [debt_bound(num_tasks) for num_tasks in (1, 2, 3, 4)] == [1, 1, 1, 1.5]
    assert debt_bound(10_000) == pytest.approx(np.log(5000) + 0.5772, abs=1e-3)


def test_an_adversary_who_pours_on_the_fullest_tasks_stays_under_the_bound() -> None:
    rng = np.random.default_rng(0)
    num_tasks, worst = 40, 0.0
    debts = np.zeros(num_tasks, dtype=np.int64)
    for game in range(30):
        for _ in range(40):
            rates = to_units(rng.dirichlet(np.full(num_tasks, 0.1)))
            debts = debts + rates - apportion_step(debts, rates) * ONE
        alive = np.argsort(-debts)[: 15 + game % 15].tolist()
        while alive:
            weights = np.zeros(num_tasks)
            weights[alive] = 1 / len(alive)
            rates = to_units(weights)
            counts = apportion_step(debts, rates)
            debts = debts + rates - counts * ONE
            worst = max(worst, debts.max() / ONE)
            alive = [task for task in alive if counts[task] == 0]
    assert 1.5 < worst < debt_bound(num_tasks)


def test_a_million_steps_drift_by_nothing() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(7))
    rates = to_units(weights)
    debts, total, num_steps = np.zeros(7, dtype=np.int64), np.zeros(7, dtype=np.int64), 0
    while num_steps < 1_000_000:
        block = apportion_block(debts, rates, num_steps=10_000)
        counts = np.bincount(block.ravel(), minlength=7)
        debts, total = debts + len(block) * rates - counts * ONE, total + counts
        num_steps += len(block)
    assert num_steps % 10_000 == 0
    exact = [int(rate) * num_steps - int(count) * ONE for rate, count in zip(rates, total, strict=True)]
    assert debts.tolist() == exact
    assert np.abs(total - weights * num_steps).max() < 1


def test_a_block_stops_before_the_step_in_which_too_much_falls_due() -> None:
    rates = to_units(np.array([1 / 3, 1 / 3, 1 / 3, 0.0, 0.0, 0.0]))
    debts = np.array([0.625, 0.625, 0.625, -0.625, -0.625, -0.625]) * ONE
    block = apportion_block(debts.astype(np.int64), rates, num_steps=16)
    assert block.tolist() == [[0]]
