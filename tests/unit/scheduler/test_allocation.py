"""Where the probes of an evaluation go: bounds for any state of the tasks, and the least error for a budget."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scheduler.allocation import AdaptiveAllocation, AllocationFacts, allocate, uniform

FREE = AdaptiveAllocation(probes_per_task=16, min_probes=1, max_gap_evaluations=1000)


def facts(**columns: object) -> AllocationFacts:
    """Four tasks alike but for `columns`."""
    alike = {
        "importance": 1.0,
        "probe_variance": 0.25,
        "level_variance": 0.01,
        "gap_evaluations": 0.0,
        "prior": 0.25,
        "available": 64.0,
    }
    made = {name: np.broadcast_to(np.array(value, dtype=np.float64), 4) for name, value in {**alike, **columns}.items()}
    return AllocationFacts(**made)


def expected_error(about: AllocationFacts, num_probes: np.ndarray) -> float:
    """L(n) of the docstring of `scheduler.allocation`; comparable between allocations of one decision."""
    precision = 1.0 / about.level_variance + num_probes / about.probe_variance
    return float((about.importance / precision).sum())


def test_tasks_alike_get_the_same() -> None:
    assert allocate(FREE, facts(), covered_ratio=0.0) == (16, 16, 16, 16)


def test_without_memory_it_is_neymans_allocation() -> None:
    """n ∝ standard deviation of a probe times the root of what its error costs."""
    importance, variance = np.array([1.0, 4.0, 1.0, 9.0]), np.array([0.25, 0.25, 0.04, 0.09])
    found = allocate(FREE, facts(importance=importance, probe_variance=variance, level_variance=1e9), covered_ratio=0.0)
    rate = np.sqrt(importance * variance)
    assert found == pytest.approx(64 * rate / rate.sum(), abs=1)


def test_the_more_it_costs_the_less_is_known_and_the_longer_it_is_ago_the_more_probes() -> None:
    for change in ({"importance": [2, 1, 1, 1]}, {"level_variance": [0.03, 0.01, 0.01, 0.01]}):
        found = allocate(FREE, facts(**change), covered_ratio=0.0)
        assert found[0] > found[1] == pytest.approx(found[3], abs=1)


def test_a_task_that_cannot_move_the_decision_is_left_out_and_comes_back_when_it_is_due() -> None:
    config = AdaptiveAllocation(probes_per_task=16, min_probes=8, max_gap_evaluations=4)
    settled = facts(importance=[1e-9, 1, 1, 1], gap_evaluations=[2, 0, 0, 0])
    assert allocate(config, settled, covered_ratio=0.0)[0] == 0
    due = replace(settled, gap_evaluations=np.array([3.0, 0, 0, 0]))
    assert allocate(config, due, covered_ratio=0.0)[0] == 8
    never = replace(settled, gap_evaluations=np.array([np.inf, 0, 0, 0]))
    assert allocate(config, never, covered_ratio=0.0)[0] == 8


def test_enough_of_the_prior_is_measured_that_the_policy_does_not_hold() -> None:
    config = AdaptiveAllocation(probes_per_task=8, min_probes=8)
    quiet = facts(importance=[1, 1e-9, 1e-9, 1e-9], prior=[0.1, 0.3, 0.3, 0.3])
    measured = np.array(allocate(config, quiet, covered_ratio=0.6)) > 0
    assert quiet.prior[measured].sum() >= 0.6


def test_where_nothing_moves_the_decision_probes_go_by_uncertainty() -> None:
    assert sum(allocate(FREE, facts(importance=0.0), covered_ratio=0.0)) == 64


def test_uniform_takes_the_same_of_every_task_as_far_as_it_has_them() -> None:
    assert uniform(10, np.array([64, 5, 10])) == (10, 5, 10)


def test_a_budget_below_the_least_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_probes 8 is more than probes_per_task 4"):
        AdaptiveAllocation(probes_per_task=4, min_probes=8)


@st.composite
def states(draw: st.DrawFn) -> tuple[AdaptiveAllocation, AllocationFacts, float]:
    num_tasks, least = draw(st.integers(1, 30)), draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def column(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), num_tasks))

    config = AdaptiveAllocation(
        probes_per_task=draw(st.integers(least, 40)), min_probes=least, max_gap_evaluations=draw(st.integers(1, 6))
    )
    made = AllocationFacts(
        importance=column(1e-12, 5.0) * rng.integers(0, 2, num_tasks),
        probe_variance=column(0.01, 0.25),
        level_variance=column(1e-6, 1.0),
        gap_evaluations=rng.integers(0, 8, num_tasks).astype(np.float64),
        prior=rng.dirichlet(np.ones(num_tasks)),
        available=rng.integers(1, 70, num_tasks).astype(np.float64),
    )
    return config, made, draw(st.floats(0.0, 1.0))


@given(states())
def test_for_any_state_budget_bounds_and_turns_are_kept(
    state: tuple[AdaptiveAllocation, AllocationFacts, float],
) -> None:
    config, made, covered = state
    found = np.array(allocate(config, made, covered_ratio=covered))
    budget = min(config.probes_per_task * len(found), int(made.available.sum()))
    assert found.sum() == budget
    assert (found <= made.available).all()
    assert ((found == 0) | (found >= np.minimum(config.min_probes, made.available))).all()
    assert (found[made.gap_evaluations + 1 >= config.max_gap_evaluations] > 0).all()
    assert allocate(config, made, covered_ratio=covered) == tuple(found)


@given(states(), st.integers(0, 2**32 - 1))
def test_no_move_of_a_probe_between_measured_tasks_lowers_the_error(
    state: tuple[AdaptiveAllocation, AllocationFacts, float], seed: int
) -> None:
    config, made, covered = state
    found = np.array(allocate(config, made, covered_ratio=covered), dtype=np.float64)
    if not made.importance.any():
        return
    least = np.where(found > 0, np.minimum(config.min_probes, made.available), 0.0)
    rng = np.random.default_rng(seed)
    before = expected_error(made, found)
    for _ in range(20):
        giver, taker = rng.integers(0, len(found), 2)
        moved = found.copy()
        moved[giver] -= 2
        moved[taker] += 2
        if (
            giver != taker
            and found[taker] > 0
            and moved[giver] >= least[giver]
            and moved[taker] <= made.available[taker]
        ):
            assert expected_error(made, moved) >= before * (1 - 1e-6)
