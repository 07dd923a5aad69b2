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

_GAMMA, _MULTIPLIER_A, _MULTIPLIER_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_SHIFT_A, _SHIFT_B, _SHIFT_C = 30, 27, 31
# As arrays of no dimension they cost numpy half of what its scalars do, per operation.
_ADDEND, _FACTOR_A, _FACTOR_B = (np.array(value, np.uint64) for value in (_GAMMA, _MULTIPLIER_A, _MULTIPLIER_B))
_BITS_A, _BITS_B, _BITS_C = (np.array(value, np.uint64) for value in (_SHIFT_A, _SHIFT_B, _SHIFT_C))
_ONE_BIT = np.array(1, np.uint64)
_NUM_ROUNDS = 8
_MIN_BITS = 6
_FEW = 3
_MASK64 = (1 << 64) - 1


def mix64(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 values (any shape but scalar): a bijection whose every output bit depends on every input bit."""
    return _mix(values.copy(), np.empty_like(values))


def hash_fields(*fields: np.ndarray | int) -> np.ndarray:
    """64-bit hash of each tuple of whole numbers, order of fields significant.

    Args:
        fields: Integers or integer arrays that broadcast together.

    Returns:
        uint64, of the broadcast shape (at least one-dimensional).
    """
    prefix, num_plain = 0, 0
    while num_plain < len(fields) and isinstance(fields[num_plain], int):
        prefix = _mix_int((prefix ^ int(fields[num_plain])) + _GAMMA & _MASK64)
        num_plain += 1
    state = np.array([prefix], dtype=np.uint64)
    for field in fields[num_plain:]:
        state = state ^ np.asarray(field).astype(np.uint64)
        state += _ADDEND
        state = _mix(state, np.empty_like(state))
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
    rows, sizes = positions.astype(np.uint64), num_rows.astype(np.uint64)
    rows = _feistel(rows, num_bits, keys)
    rows[sizes == _ONE_BIT] = 0
    outside = np.flatnonzero(rows >= sizes)
    while outside.size > _FEW:
        again = _feistel(rows[outside], num_bits[outside], keys[outside])
        rows[outside] = again
        outside = outside[again >= sizes[outside]]
    for place in outside.tolist():
        rows[place] = _walk(int(rows[place]), int(num_bits[place]), int(keys[place]), size=int(sizes[place]))
    return rows.view(np.int64)


def _mix(values: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """`mix64` in place; `scratch` is as large as `values`."""
    np.right_shift(values, _BITS_A, scratch)
    np.bitwise_xor(values, scratch, values)
    np.multiply(values, _FACTOR_A, values)
    np.right_shift(values, _BITS_B, scratch)
    np.bitwise_xor(values, scratch, values)
    np.multiply(values, _FACTOR_B, values)
    np.right_shift(values, _BITS_C, scratch)
    return np.bitwise_xor(values, scratch, values)


def _feistel(values: np.ndarray, num_bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """One pass of the network over [0, 2**num_bits); after an even number of rounds the sides are as wide as before."""
    right_bits = num_bits >> _ONE_BIT
    left_mask, right_mask = (_ONE_BIT << (num_bits - right_bits)) - _ONE_BIT, (_ONE_BIT << right_bits) - _ONE_BIT
    left, right = values >> right_bits, values & right_mask
    round_keys, mixed, scratch = keys.copy(), np.empty_like(values), np.empty_like(values)
    for _ in range(_NUM_ROUNDS):
        round_keys += _ADDEND
        np.bitwise_xor(round_keys, right, mixed)
        _mix(mixed, scratch)
        mixed &= left_mask
        left ^= mixed
        left, right = right, left
        left_mask, right_mask = right_mask, left_mask
    return (left << right_bits) | right


def _walk(value: int, num_bits: int, key: int, *, size: int) -> int:
    """`_feistel` in plain integers, repeated until the value is below `size`; for a few values the cheaper way."""
    right_bits = num_bits >> 1
    while value >= size:
        left_mask, right_mask = (1 << (num_bits - right_bits)) - 1, (1 << right_bits) - 1
        left, right, round_key = value >> right_bits, value & right_mask, key
        for _ in range(_NUM_ROUNDS):
            round_key = round_key + _GAMMA & _MASK64
            left, right = right, left ^ (_mix_int(round_key ^ right) & left_mask)
            left_mask, right_mask = right_mask, left_mask
        value = left << right_bits | right
    return value


def _mix_int(value: int) -> int:
    """`mix64` of one plain integer."""
    value = (value ^ value >> _SHIFT_A) * _MULTIPLIER_A & _MASK64
    value = (value ^ value >> _SHIFT_B) * _MULTIPLIER_B & _MASK64
    return value ^ value >> _SHIFT_C
