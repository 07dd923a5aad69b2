"""Static mixtures and the random walk, as they are defined."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.policies.arms import ARMS, Arm, nested, random_walk, static_weights, unimax
from bench.policies.worlds import mixture_of

SIZES = (700, 12_000, 3_000)


@pytest.mark.parametrize("arm", [arm for arm in ARMS.values() if arm.kind == "static"], ids=lambda arm: arm.name)
def test_every_static_mixture_is_a_mixture(arm: Arm) -> None:
    weights = static_weights(arm.name, SIZES, total_samples=10_000)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0.0).all()


@pytest.mark.parametrize("arm", [arm for arm in ARMS.values() if arm.kind == "engine"], ids=lambda arm: arm.name)
def test_every_engine_arm_is_a_valid_mixture_setting_of_its_own(arm: Arm) -> None:
    own = mixture_of(arm)
    assert arm.name in ("heat", "heat-free-probes") or own != mixture_of(ARMS["heat"])


def test_unimax_gives_small_pools_their_epochs_and_shares_the_rest_evenly() -> None:
    samples = unimax(np.array([100.0, 1000.0, 5000.0]), budget=3000.0, max_epochs=4.0)
    assert samples.tolist() == [400.0, 1300.0, 1300.0]
    assert unimax(np.array([10.0, 20.0]), budget=1000.0, max_epochs=4.0).tolist() == [40.0, 80.0]


@given(
    st.lists(st.floats(0.05, 1.0), min_size=2, max_size=12),
    st.lists(st.floats(0.0, 0.12), min_size=1, max_size=8),
    st.integers(0, 99),
)
def test_a_random_walk_moves_as_far_as_it_is_told_and_stays_a_mixture(
    raw: list[float], moves: list[float], seed: int
) -> None:
    start = np.array(raw) / sum(raw)
    floor = 0.1 * float(start.min())
    plans = random_walk(start, moves, num_plans=len(moves) + 1, floor=floor, seed=seed)
    for before, after, move in zip(plans, plans[1:], moves, strict=False):
        moved = 0.5 * float(np.abs(after - before).sum())
        assert moved <= move + 1e-9
        assert after.sum() == pytest.approx(1.0)
        assert after.min() >= floor - 1e-12


def test_with_room_enough_the_walk_moves_exactly_as_far() -> None:
    plans = random_walk(np.full(10, 0.1), [0.02, 0.05], num_plans=4, floor=0.01, seed=0)
    moved = [0.5 * float(np.abs(b - a).sum()) for a, b in pairwise(plans)]
    assert moved == pytest.approx([0.02, 0.05, 0.05])


def test_nesting_leaves_what_it_is_laid_over_alone() -> None:
    over = {"policy": {"type": "heat"}, "steps": 1}
    assert nested({"policy.type": "exp3", "heat.decay_weight": 0.0}, over=over) == {
        "policy": {"type": "exp3"},
        "heat": {"decay_weight": 0.0},
        "steps": 1,
    }
    assert over == {"policy": {"type": "heat"}, "steps": 1}
