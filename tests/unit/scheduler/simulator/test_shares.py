import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scheduler.simulator.shares import Shares

WEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda weights: sum(weights) > 0.01)


@given(weights=WEIGHTS, num_samples=st.integers(1, 5000), num_intervals=st.integers(1, 20))
def test_under_one_plan_no_task_is_ever_a_sample_off_its_target(
    weights: list[float], num_samples: int, num_intervals: int
) -> None:
    shares, probabilities = Shares(len(weights)), np.array(weights) / sum(weights)
    served = np.zeros(len(weights))
    for interval in range(1, num_intervals + 1):
        counts = shares.serve(probabilities, num_samples)
        assert counts.min() >= 0
        assert counts.sum() == num_samples
        served += counts
        assert np.abs(served - probabilities * num_samples * interval).max() < 1 + 1e-6


@given(plans=st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), max_size=12), batch=st.integers(1, 64))
def test_whatever_the_plans_every_interval_is_full_and_debts_cancel(plans: list[list[float]], batch: int) -> None:
    shares = Shares(5)
    for plan in plans:
        weights = np.array(plan) + 1e-6
        assert shares.serve(weights / weights.sum(), batch).sum() == batch
        assert abs(shares.debts.sum()) < 1e-6
