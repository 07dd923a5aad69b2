"""Cutting a step's samples into micro-batches: by number of samples, or by tokens so that all cost alike.

    lengths of the batch's slots ─► [slots of micro-batch 0], [slots of micro-batch 1], …

The cut is a function of the lengths and the limits alone: the same on every worker and for every number of workers.
Which worker computes which is decided in `train.step`. Every slot is in exactly one micro-batch.

By tokens, packed: as few micro-batches as hold the tokens, each slot, longest first, into the emptiest one (longest
processing time first; Graham 1969), so that they differ by less than the longest row. By tokens, padded: rows of like
length together, rows times the longest of them being what a micro-batch costs.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from scheduler.errors import ConfigError
from train.data.arrangement import ARRANGEMENTS, SINGLE
from train.data.store import TokenStore


@dataclass(frozen=True, slots=True)
class MicroBatchLimits:
    """How large a micro-batch may be: `max_tokens` (padding included) where it is given, else `num_samples`."""

    num_samples: int
    max_tokens: int | None = None

    def halved(self, *, longest: int) -> "MicroBatchLimits | None":
        """Half of it; None where a micro-batch would be less than one row of `longest` tokens."""
        if self.max_tokens is None:
            return MicroBatchLimits(self.num_samples // 2) if self.num_samples > 1 else None
        half = max(self.max_tokens // 2, longest)
        return MicroBatchLimits(self.num_samples, half) if half < self.max_tokens else None

    def check(self, *, longest: int, where: str) -> None:
        """Raise ConfigError where a row of `longest` tokens does not fit."""
        if self.max_tokens is not None and longest > self.max_tokens:
            raise ConfigError(
                f"{where}: micro_batch_tokens is {self.max_tokens}, but a row has {longest} tokens; "
                f"raise it to {longest} at least, or lower max_length"
            )

    def __str__(self) -> str:
        return f"{self.num_samples} samples" if self.max_tokens is None else f"{self.max_tokens} tokens"


def longest_row(store: TokenStore, *, max_arranged_length: int | None = None) -> int:
    """Tokens of the longest training row, in any arrangement; rows in context count up to `max_arranged_length`."""
    longest = 0
    for task in range(len(store.task_names)):
        for code in range(len(ARRANGEMENTS)):
            lengths = store.lengths(task, arrangement=code)
            if code != SINGLE and max_arranged_length is not None:
                lengths = lengths[lengths <= max_arranged_length]
            longest = max(longest, int(lengths.max(initial=0)))
    return longest


def cut(lengths: np.ndarray, limits: MicroBatchLimits, *, packed: bool) -> list[np.ndarray]:
    """Slots of each micro-batch, ascending, int64.

    Args:
        lengths: int [B], tokens of every slot's row; read only where the limit is in tokens.
        limits: No single row may be above it.
        packed: Rows are laid end to end, so that a micro-batch costs the sum of its lengths.
    """
    if limits.max_tokens is None:
        return np.split(np.arange(len(lengths)), range(limits.num_samples, len(lengths), limits.num_samples))
    longest_first = np.argsort(-lengths, kind="stable").tolist()
    sizes = lengths.tolist()
    if packed:
        parts = _balanced(longest_first, sizes, limits.max_tokens)
    else:
        parts = _alike(longest_first, sizes, limits.max_tokens)
    return [np.array(sorted(part), dtype=np.int64) for part in parts]


def _balanced(order: list[int], sizes: list[int], max_tokens: int) -> list[list[int]]:
    """The fewest micro-batches into which longest-first goes. Raises ValueError where one row is above the limit."""
    if order and sizes[order[0]] > max_tokens:
        raise ValueError(f"a row of {sizes[order[0]]} tokens cannot be in a micro-batch of {max_tokens}")
    num_parts = -(-sum(sizes) // max_tokens)
    while True:
        emptiest = [(0, part) for part in range(num_parts)]
        parts: list[list[int]] = [[] for _ in range(num_parts)]
        for slot in order:
            filled, part = emptiest[0]
            if filled + sizes[slot] > max_tokens:
                break
            heapq.heapreplace(emptiest, (filled + sizes[slot], part))
            parts[part].append(slot)
        else:
            return parts
        num_parts += 1


def _alike(order: list[int], sizes: list[int], max_tokens: int) -> list[list[int]]:
    """Rows in order of length, a new micro-batch where the next one would not fit."""
    parts: list[list[int]] = []
    for slot in order:
        if not parts or (len(parts[-1]) + 1) * sizes[parts[-1][0]] > max_tokens:
            parts.append([])
        parts[-1].append(slot)
    return parts
