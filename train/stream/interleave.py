"""Dealing a run of samples to a few options by fixed shares, as a closed form of the sample's number.

    sample number m ─► [0, L) ─┬─ left half  [0, L/2)  ─┬─ ...      at each node the share of the left half decides,
                               └─ right half [L/2, L)  ─┴─ ...      the number within that half goes on down

No counter is kept: which option sample m gets, and its number within that option, follow from m alone. So a run can
be entered at any place, and its state is the number at which it began.

One node. Its two sides have whole-number shares n : d - n. The smaller side (share a/d <= 1/2) gets exactly one sample
of every *cell*: cell k holds the m with floor(m·a/d) = k, at least two of them, and a hash of k says which one. After m
samples the side has k or k + 1 of them while its target m·a/d lies in [k, k + 1), and k + 1 only once past the cell's
first sample: the error is less than one. Down the tree an error e of the parent reaches a child of share p as p·e, so
at depth D it stays below D. After a whole period (d samples) the error is zero. The place within the cell is hashed
so that two runs dealt side by side (levels and arrangements) do not fall into step with each other.

All arithmetic is exact in int64 for shares that sum to less than 2**31, whatever m.
"""

import numpy as np

from train.stream.permutation import hash_fields

MAX_TOTAL = (1 << 31) - 1


def split(
    numbers: np.ndarray, shares: np.ndarray, totals: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One node: which samples go left, and how many went left before each.

    Args:
        numbers: int64 [N] sample numbers, >= 0.
        shares: int64 [N] share of the left side, 0 <= share <= total.
        totals: int64 [N], 0 to `MAX_TOTAL`.
        keys: uint64 [N] or [1], the node's key.

    Returns:
        bool [N], int64 [N].
    """
    minor = np.minimum(shares, totals - shares)
    periods, places = np.divmod(numbers, np.maximum(totals, 1))
    cells = places * minor // np.maximum(totals, 1)
    divisor = np.maximum(minor, 1)
    begins, ends = -(-cells * totals // divisor), -(-(cells + 1) * totals // divisor)
    before = periods * minor + cells
    draws = (hash_fields(keys, before) >> np.uint64(1)).astype(np.int64)
    chosen = begins + draws % np.maximum(ends - begins, 1)
    is_minor = (minor > 0) & (places == chosen)
    before += (minor > 0) & (places > chosen)
    swapped = shares > minor
    return is_minor ^ swapped, np.where(swapped, numbers - before, before)


def deal(
    cuts: np.ndarray,
    groups: np.ndarray,
    numbers: np.ndarray,
    *,
    first: np.ndarray,
    end: np.ndarray,
    seed: int,
    towards: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The option of each sample and its number within that option.

    Args:
        cuts: int64 [G, L + 1] cumulative shares of a group's options; options [l, m) hold cuts[m] - cuts[l].
        groups: int64 [N] rows of `cuts`.
        numbers: int64 [N] number of the sample within its group, >= 0.
        first: int64 [N] first option that takes part.
        end: int64 [N] one beyond the last; first < end. Those options together have a share above zero.
        seed: Chooses the places within the cells.
        towards: int64 [N]; descend to this option instead, so that the second result is how many of the group's first
            `numbers` samples are its.

    Returns:
        int64 [N] options, int64 [N] numbers.
    """
    low, high, within = first.astype(np.int64), end.astype(np.int64), numbers.astype(np.int64)
    while (open_ := np.flatnonzero(high - low > 1)).size:
        group, begin, stop = groups[open_], low[open_], high[open_]
        middle = (begin + stop) >> 1
        base = cuts[group, begin]
        keys = hash_fields(seed, group, begin, stop)
        left, before = split(within[open_], cuts[group, middle] - base, cuts[group, stop] - base, keys)
        if towards is not None:
            left = towards[open_] < middle
        within[open_] = np.where(left, before, within[open_] - before)
        low[open_], high[open_] = np.where(left, begin, middle), np.where(left, middle, stop)
    return low, within
