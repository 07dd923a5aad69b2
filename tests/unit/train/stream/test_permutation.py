"""The memory-free shuffle: a bijection for every size, without favourite places or orders."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chisquare

from train.stream.permutation import hash_fields, mix64, permute


def shuffles(num_rows: int, num_epochs: int) -> np.ndarray:
    """int64 [num_epochs, num_rows]: one shuffle an epoch."""
    keys = np.repeat(hash_fields(5, 0, np.arange(num_epochs)), num_rows)
    positions = np.tile(np.arange(num_rows), num_epochs)
    rows = permute(positions, np.full(len(positions), num_rows), keys)
    return rows.reshape(num_epochs, num_rows)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 63, 64, 65, 1000, 4096, 4097])
def test_every_row_comes_exactly_once(num_rows: int) -> None:
    rows = np.sort(shuffles(num_rows, 3), axis=1)
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(num_rows), rows.shape))


def test_one_shuffle_is_neither_the_identity_nor_that_of_another_epoch() -> None:
    first, second = shuffles(1000, 2)
    assert (first == np.arange(1000)).sum() < 20
    assert (first == second).sum() < 20


def test_positions_of_a_huge_task_are_found_one_at_a_time() -> None:
    num_rows = 2**40 + 7
    positions = np.array([0, 1, num_rows - 1])
    rows = permute(positions, np.full(3, num_rows), np.full(3, 99, dtype=np.uint64))
    assert len(set(rows.tolist())) == 3
    assert (rows < num_rows).all()
    assert rows.max() > 2**32


def test_the_row_at_a_position_does_not_depend_on_what_is_computed_beside_it() -> None:
    sizes, positions = np.array([3, 1000, 1, 17]), np.array([2, 999, 0, 5])
    keys = hash_fields(1, np.arange(4))
    together = permute(positions, sizes, keys)
    alone = [int(permute(positions[[i]], sizes[[i]], keys[[i]])[0]) for i in range(4)]
    assert together.tolist() == alone


@pytest.mark.parametrize("num_rows", [2, 3, 5, 8, 17, 100])
def test_every_row_is_as_likely_at_every_place(num_rows: int) -> None:
    rows = shuffles(num_rows, 6000)
    table = np.stack([np.bincount(rows[:, place], minlength=num_rows) for place in range(num_rows)])
    assert chisquare(table.ravel(), ddof=2 * num_rows - 2).pvalue > 1e-4


@pytest.mark.parametrize("num_rows", [3, 4, 5])
def test_every_order_of_a_tiny_task_is_as_likely(num_rows: int) -> None:
    rows = [tuple(shuffle) for shuffle in shuffles(num_rows, 12_000).tolist()]
    counts = [rows.count(order) for order in permutations(range(num_rows))]
    assert chisquare(counts).pvalue > 1e-4


def test_neighbours_in_one_shuffle_are_unrelated() -> None:
    rows = shuffles(500, 200).astype(float)
    correlation = np.corrcoef(rows[:, :-1].ravel(), rows[:, 1:].ravel())[0, 1]
    assert abs(correlation) < 0.015


def test_the_hash_depends_on_every_field_and_on_their_order() -> None:
    hashes = {
        int(hash_fields(*fields)[0]) for fields in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (0, 2, 3), (1, 2), (1, 2, 0)]
    }
    assert len(hashes) == 6


def test_one_flipped_bit_changes_about_half_of_the_mixed_bits() -> None:
    values = np.arange(1, 2001, dtype=np.uint64)
    for bit in (0, 31, 63):
        flipped = mix64(values) ^ mix64(values ^ np.uint64(1 << bit))
        assert abs(np.bitwise_count(flipped).mean() - 32) < 1
