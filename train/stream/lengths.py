"""Supervised tokens of every training row, found by (task, row)."""

from collections.abc import Sequence

import numpy as np

from scheduler.errors import ConfigError, DataError
from train.stream.permutation import hash_fields
from train.stream.tokens import MAX_ROW_TOKENS, MAX_TASKS


class RowLengths:
    """Lengths of all tasks in one array.

    Attributes:
        means: float64 [K] mean supervised tokens of a task's rows.
        longest: Supervised tokens of the longest row.

    Raises:
        ConfigError: There is not one length per row, or more than 2**14 tasks.
        DataError: A row has no supervised token, or more than 2**16.
    """

    def __init__(self, lengths: Sequence[np.ndarray], *, num_rows: np.ndarray) -> None:
        sizes = [len(own) for own in lengths]
        if sizes != num_rows.tolist():
            raise ConfigError(f"supervised_lengths are of {sizes} rows, the tasks have {num_rows.tolist()}")
        if len(sizes) > MAX_TASKS:
            raise ConfigError(
                f"the mixture has {len(sizes)} tasks; with weight_unit: tokens at most {MAX_TASKS} fit: "
                "merge tasks, or use weight_unit: samples"
            )
        self._lengths = np.concatenate(lengths).astype(np.int32)
        self._first_rows = np.cumsum(num_rows) - num_rows
        self.longest = int(self._lengths.max())
        if self._lengths.min() < 1 or self.longest > MAX_ROW_TOKENS:
            place = int(np.argmax((self._lengths < 1) | (self._lengths > MAX_ROW_TOKENS)))
            task = int(np.searchsorted(self._first_rows, place, side="right")) - 1
            raise DataError(
                f"row {place - self._first_rows[task]} of task {task} has {self._lengths[place]} supervised tokens; "
                f"with weight_unit: tokens a row needs 1 to {MAX_ROW_TOKENS}"
            )
        sums = np.add.reduceat(self._lengths, self._first_rows, dtype=np.int64)
        self.means = sums / num_rows

    def at(self, tasks: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int64 [N]: supervised tokens of `rows` [N] of `tasks` [N]."""
        return self._lengths[self._first_rows[tasks] + rows].astype(np.int64)

    def fingerprint(self) -> int:
        """63-bit hash of every length and its place."""
        hashes = hash_fields(np.arange(len(self._lengths)), self._lengths)
        return int(hashes.sum(dtype=np.uint64)) >> 1
