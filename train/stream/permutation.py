"""Seeded shuffles that need no memory: a bijection of [0, n), computed position by position.

A Feistel network permutes [0, 2**b), the smallest such range that holds n; a result outside [0, n) is put through the
network again until it falls inside ("cycle walking", fewer than two passes on average). So the row at any position of
any epoch of any task is found directly, which makes a stream seekable and its state a handful of counts.

Networks with less than three bits a side are far from uniform however many rounds they get (at n = 5, some orders
came twice as often as others), so b is at least 6: tasks of fewer than 32 rows walk longer, and no order is favoured.
Where b is odd the sides differ by a bit and swap widths every round.

Sources: Luby & Rackoff, SIAM J. Comput. 17 (1988) for the network; Black & Rogaway, CT-RSA 2002 for cycle walking on
arbitrary ranges; Steele, Lea & Flood, OOPSLA 2014 for the mixing function (SplitMix64, Stafford's variant 13).

What this is not: cryptography. The mixing function is fast and statistically sound, not secret.
"""

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_A = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_B = np.uint64(0x94D049BB133111EB)
_SHIFT_A, _SHIFT_B, _SHIFT_C = np.uint64(30), np.uint64(27), np.uint64(31)
_NUM_ROUNDS = 8
_MIN_BITS = 6
_FEW = 16
_MASK64 = (1 << 64) - 1
_GAMMA_INT, _MULTIPLIER_A_INT, _MULTIPLIER_B_INT = int(_GAMMA), int(_MULTIPLIER_A), int(_MULTIPLIER_B)


def mix64(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 values (any shape but scalar): a bijection whose every output bit depends on every input bit."""
    mixed = (values ^ (values >> _SHIFT_A)) * _MULTIPLIER_A
    mixed = (mixed ^ (mixed >> _SHIFT_B)) * _MULTIPLIER_B
    return mixed ^ (mixed >> _SHIFT_C)


def hash_fields(*fields: np.ndarray | int) -> np.ndarray:
    """64-bit hash of each tuple of whole numbers, order of fields significant.

    Args:
        fields: Integers or integer arrays that broadcast together.

    Returns:
        uint64, of the broadcast shape (at least one-dimensional).
    """
    state = np.zeros(1, dtype=np.uint64)
    for field in fields:
        state = mix64((state ^ np.atleast_1d(np.asarray(field)).astype(np.uint64)) + _GAMMA)
    return state


def permute(positions: np.ndarray, num_rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Row at each position of the shuffle of [0, num_rows) chosen by `keys`.

    Args:
        positions: int64 [N], 0 <= positions < num_rows.
        num_rows: int64 [N], >= 1 and at most 2**52; the size of the range each element is permuted in.
        keys: uint64 [N]; elements of one shuffle carry the same key and the same size.

    Returns:
        int64 [N] rows. Over all positions of one shuffle each row comes exactly once.
    """
    num_bits = np.maximum(np.frexp(num_rows - 1)[1], _MIN_BITS).astype(np.uint64)
    rows = _feistel(positions.astype(np.uint64), num_bits, keys)
    sizes = num_rows.astype(np.uint64)
    rows[sizes == 1] = 0
    outside = np.flatnonzero(rows >= sizes)
    while outside.size > _FEW:
        rows[outside] = _feistel(rows[outside], num_bits[outside], keys[outside])
        outside = outside[rows[outside] >= sizes[outside]]
    for place in outside.tolist():
        rows[place] = _walk(int(rows[place]), int(num_bits[place]), int(keys[place]), size=int(sizes[place]))
    return rows.astype(np.int64)


def _feistel(values: np.ndarray, num_bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """One pass of the network over [0, 2**num_bits); after an even number of rounds the sides are as wide as before."""
    one = np.uint64(1)
    right_bits = num_bits >> one
    left_mask, right_mask = (one << (num_bits - right_bits)) - one, (one << right_bits) - one
    left, right = values >> right_bits, values & right_mask
    round_keys = keys
    for _ in range(_NUM_ROUNDS):
        round_keys = round_keys + _GAMMA
        left, right = right, left ^ (mix64(round_keys ^ right) & left_mask)
        left_mask, right_mask = right_mask, left_mask
    return (left << right_bits) | right


def _walk(value: int, num_bits: int, key: int, *, size: int) -> int:
    """`_feistel` in plain integers, repeated until the value is below `size`; for a few values the cheaper way."""
    right_bits = num_bits >> 1
    while value >= size:
        left_mask, right_mask = (1 << (num_bits - right_bits)) - 1, (1 << right_bits) - 1
        left, right, round_key = value >> right_bits, value & right_mask, key
        for _ in range(_NUM_ROUNDS):
            round_key = round_key + _GAMMA_INT & _MASK64
            left, right = right, left ^ (_mix64(round_key ^ right) & left_mask)
            left_mask, right_mask = right_mask, left_mask
        value = left << right_bits | right
    return value


def _mix64(value: int) -> int:
    """`mix64` of one plain integer."""
    value = (value ^ value >> 30) * _MULTIPLIER_A_INT & _MASK64
    value = (value ^ value >> 27) * _MULTIPLIER_B_INT & _MASK64
    return value ^ value >> 31
