"""Cuts of a batch: every slot once, within the limit, balanced, and what cannot be cut is told before training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import ConfigError
from train.micro_batches import MicroBatchLimits, cut

LENGTHS = st.lists(st.integers(2, 200), min_size=1, max_size=64).map(np.array)


def costs(lengths: np.ndarray, parts: list[np.ndarray], *, packed: bool) -> list[int]:
    return [int(lengths[part].sum() if packed else len(part) * lengths[part].max()) for part in parts]


@given(lengths=LENGTHS, spare=st.integers(0, 800), packed=st.booleans())
def test_every_slot_is_in_one_micro_batch_and_none_is_above_the_limit(
    lengths: np.ndarray, spare: int, packed: bool
) -> None:
    limits = MicroBatchLimits(num_samples=4, max_tokens=int(lengths.max()) + spare)
    parts = cut(lengths, limits, packed=packed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    assert max(costs(lengths, parts, packed=packed)) <= limits.max_tokens  # type: ignore[operator]
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)


@given(lengths=LENGTHS, spare=st.integers(0, 800))
def test_packed_micro_batches_differ_by_less_than_the_longest_row(lengths: np.ndarray, spare: int) -> None:
    limits = MicroBatchLimits(num_samples=4, max_tokens=int(lengths.max()) + spare)
    found = costs(lengths, cut(lengths, limits, packed=True), packed=True)
    assert max(found) - min(found) <= lengths.max()


@given(lengths=LENGTHS, size=st.integers(1, 70), packed=st.booleans())
def test_by_samples_slots_stay_in_order_and_only_the_last_micro_batch_may_be_smaller(
    lengths: np.ndarray, size: int, packed: bool
) -> None:
    parts = cut(lengths, MicroBatchLimits(size), packed=packed)
    assert np.concatenate(parts).tolist() == list(range(len(lengths)))
    assert {len(part) for part in parts[:-1]} <= {size}
    assert 1 <= len(parts[-1]) <= size


def test_half_of_a_limit_still_holds_the_longest_row_and_one_row_cannot_be_halved() -> None:
    assert MicroBatchLimits(5).halved(longest=9) == MicroBatchLimits(2)
    assert MicroBatchLimits(1).halved(longest=9) is None
    assert MicroBatchLimits(8, 100).halved(longest=9) == MicroBatchLimits(8, 50)
    assert MicroBatchLimits(8, 100).halved(longest=70) == MicroBatchLimits(8, 70)
    assert MicroBatchLimits(8, 70).halved(longest=70) is None


def test_a_row_that_does_not_fit_is_refused_by_name_with_the_limit_it_needs() -> None:
    MicroBatchLimits(8).check(longest=10**9, where="stages.0")
    with pytest.raises(ConfigError, match=r"stages.1 \(tasks\): micro_batch_tokens is 64, but a row has 70 tokens"):
        MicroBatchLimits(8, 64).check(longest=70, where="stages.1 (tasks)")


def test_a_row_above_the_limit_is_an_error_and_no_endless_search() -> None:
    with pytest.raises(ValueError, match="a row of 420 tokens cannot be in a micro-batch of 400"):
        cut(np.array([10, 420]), MicroBatchLimits(8, 400), packed=True)
