"""Intervals and tests against scipy's and against values worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from bench.policies.inference import holm, mean_interval, restricted_mean, sign_flip_p

DIFFERENCES = [0.03, -0.01, 0.05, 0.02, 0.0, 0.04, 0.07, -0.02, 0.03, 0.01]


def test_the_interval_of_few_seeds_is_scipys_t_interval() -> None:
    low, high = mean_interval(DIFFERENCES) or (0.0, 0.0)
    expected = stats.ttest_1samp(DIFFERENCES, 0.0).confidence_interval()
    assert low == pytest.approx(expected.low)
    assert high == pytest.approx(expected.high)


def test_the_interval_of_many_seeds_is_scipys_percentile_bootstrap_up_to_its_own_luck() -> None:
    values = DIFFERENCES * 4
    low, high = mean_interval(values) or (0.0, 0.0)
    expected = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert low == pytest.approx(expected.low, abs=1e-3)
    assert high == pytest.approx(expected.high, abs=1e-3)


def test_one_seed_has_no_interval_and_equal_seeds_have_one_of_no_width() -> None:
    assert mean_interval([0.1]) is None
    assert mean_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


def test_the_sign_flip_test_is_scipys_paired_permutation_test() -> None:
    expected = stats.permutation_test((DIFFERENCES,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(DIFFERENCES) == pytest.approx(expected.pvalue)


def test_seeds_that_all_agree_reach_the_least_p_their_number_allows() -> None:
    assert sign_flip_p([0.1, 0.2, 0.3]) == 2 / 2**3
    assert sign_flip_p([-0.1] * 10) == 2 / 2**10


def test_no_difference_at_all_has_p_one() -> None:
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_p([0.0] * 40) == 1.0


def test_many_seeds_give_nearly_the_p_of_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, size=400)
    assert sign_flip_p(values.tolist()) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, abs=0.01)


def test_under_no_effect_the_test_rejects_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    rejected = np.mean([sign_flip_p(rng.standard_normal(10).tolist()) <= 0.05 for _ in range(400)])
    assert 0.02 < rejected < 0.09


def test_holm_multiplies_the_least_by_all_and_never_goes_down() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_a_run_that_never_arrives_counts_with_the_whole_horizon() -> None:
    assert restricted_mean([0.5, None, 2.0], horizon=1.0) == pytest.approx((0.5 + 1.0 + 1.0) / 3)
