"""The global batch of a step, and the hash by which ranks and ledger agree on what was trained."""

from dataclasses import dataclass

import numpy as np

from train.stream.permutation import hash_fields

HASH_MASK = (1 << 63) - 1
_ARRANGEMENT_SHIFT = 56


@dataclass(frozen=True, slots=True)
class Batch:
    """The global batch of one optimiser step, in slot order.

    Attributes:
        step: The optimiser step, from 0.
        tasks: int32 [B], index of each slot's task.
        rows: int64 [B], each slot's row within its task.
        arrangements: int8 [B], what each slot is offered: 0 single, 1 chain, 2 contrast.
    """

    step: int
    tasks: np.ndarray
    rows: np.ndarray
    arrangements: np.ndarray


def add_hashes(first: int, second: int) -> int:
    """Hash of the union of two disjoint sets of samples."""
    return (first + second) & HASH_MASK


def slots_hash(
    step: int | np.ndarray,
    slots: np.ndarray,
    tasks: np.ndarray,
    rows: np.ndarray,
    arrangements: np.ndarray | None = None,
) -> int:
    """Order-independent hash of (step, slot, task, row, arrangement) tuples: 64-bit hashes summed modulo 2**63.

    Hashes of disjoint sets of slots add up, modulo 2**63, to the hash of their union: ranks hash what they trained, the
    sum is compared with the stream's own.

    Args:
        step: The optimiser step all slots belong to, or int [N], that of each.
        slots: int [N] positions in the global batch.
        tasks: int [N].
        rows: int [N], below 2**52.
        arrangements: int [N] codes 0 to 2; None: every sample stands alone.
    """
    codes = np.zeros(len(slots), dtype=np.int64) if arrangements is None else arrangements.astype(np.int64)
    if not len(slots) == len(tasks) == len(rows) == len(codes):
        lengths = (len(slots), len(tasks), len(rows), len(codes))
        raise ValueError(f"slots, tasks, rows and arrangements differ in length: {lengths}")
    if not len(slots):
        return 0
    return int(hash_fields(step, slots, tasks, rows | codes << _ARRANGEMENT_SHIFT).sum(dtype=np.uint64)) & HASH_MASK


def sequence_hash(batch: Batch) -> int:
    """`slots_hash` of a whole batch."""
    return slots_hash(batch.step, np.arange(len(batch.tasks)), batch.tasks, batch.rows, batch.arrangements)
