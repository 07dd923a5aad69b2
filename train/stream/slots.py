"""A block's slots: each step's tasks in a seeded order, and which of its task's samples each slot is."""

import numpy as np

from train.stream.permutation import hash_fields

_SLOT_STREAM = 1


def shuffle_slots(schedule: np.ndarray, *, first_step: int, seed: int) -> np.ndarray:
    """Put each step's tasks [S, B] into a slot order that depends on (seed, step) alone."""
    num_steps, batch_size = schedule.shape
    slot_bits = (1 << (batch_size - 1).bit_length()) - 1
    steps, slots = np.arange(first_step, first_step + num_steps)[:, None], np.arange(batch_size, dtype=np.uint64)
    keys = hash_fields(seed, _SLOT_STREAM, steps, slots) & np.uint64(~slot_bits & (1 << 64) - 1) | slots
    order = (np.sort(keys, axis=1) & np.uint64(slot_bits)).astype(np.int64)
    return np.take_along_axis(np.sort(schedule, axis=1), order, axis=1)


def occurrences(tasks: np.ndarray, *, num_tasks: int) -> np.ndarray:
    """How many samples of the same task come before each; `tasks` int64 [N]."""
    place_bits = max(1, (tasks.size - 1).bit_length())
    by_task = np.sort(tasks << place_bits | np.arange(tasks.size)) & (1 << place_bits) - 1
    counts = np.bincount(tasks, minlength=num_tasks)
    starts = np.cumsum(counts) - counts
    before = np.empty_like(tasks)
    before[by_task] = np.arange(tasks.size) - starts[tasks[by_task]]
    return before
