"""A block's slots: each step's tasks in a seeded order, and which of its task's samples each slot is."""

import numpy as np

from train.stream.permutation import hash_fields

_SLOT_STREAM = 1


def shuffle_slots(schedule: np.ndarray, *, first_step: int, seed: int) -> np.ndarray:
    """int64 [S * B]: each step's tasks [S, B], step after step, in a slot order that depends on (seed, step) alone."""
    num_steps, batch_size = schedule.shape
    slot_bits = (1 << (batch_size - 1).bit_length()) - 1
    steps, slots = np.arange(first_step, first_step + num_steps)[:, None], np.arange(batch_size, dtype=np.uint64)
    keys = hash_fields(seed, _SLOT_STREAM, steps, slots) & np.uint64(~slot_bits & (1 << 64) - 1) | slots
    keys.sort(axis=1)
    order = (keys & np.uint64(slot_bits)).view(np.int64)
    order += np.arange(0, schedule.size, batch_size)[:, None]
    by_task = schedule.astype(np.int64)
    by_task.sort(axis=1)
    return by_task.ravel()[order.ravel()]


def occurrences(tasks: np.ndarray) -> np.ndarray:
    """How many samples of the same task come before each; `tasks` int64 [N]."""
    place_bits = max(1, (tasks.size - 1).bit_length())
    places = np.arange(tasks.size)
    sorted_ = tasks << place_bits | places
    sorted_.sort()
    by_task, sorted_tasks = sorted_ & (1 << place_bits) - 1, sorted_ >> place_bits
    is_first = np.ones(tasks.size, dtype=bool)
    np.not_equal(sorted_tasks[1:], sorted_tasks[:-1], is_first[1:])
    before = np.empty_like(tasks)
    before[by_task] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return before
