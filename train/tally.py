"""Per-task bookkeeping of what this rank trained since the last interval boundary.

A step only puts down what it did; sums and hashes are made of many steps at once, since on so few numbers it is the
call that costs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from train.stream.batch import add_hashes, slots_hash

_UNITS_PER_NAT = 2.0**24
_AT_ONCE = 64
"""Micro-batches whose losses are kept until they are summed."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all ranks since the last boundary: loss (nats) and supervised tokens per task, and the sample hash.

    `tokens` are all that were served, `learnt_tokens` those of steps that were not skipped: `loss` is of these.

    Each token's loss is rounded to a multiple of 2**-24 nats, so that the sums are exact up to 2**29 nats a task: they
    do not depend on how the tokens were spread over ranks and micro-batches.
    """

    loss: tuple[float, ...]
    tokens: tuple[int, ...]
    learnt_tokens: tuple[int, ...]
    sequence_hash: int


class _Losses(NamedTuple):
    """A micro-batch: the task of each row [B], the row and the loss of each token [N], and whether it was learnt."""

    tasks: np.ndarray
    rows: torch.Tensor
    losses: torch.Tensor
    learnt: bool


class Tally:
    """Sums of one rank; `gather` adds them up over the ranks and starts again."""

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        self._sums = torch.zeros(3, num_tasks, dtype=torch.float64, device=device)
        self._hash = 0
        self._losses: list[_Losses] = []
        self._slots: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def add_losses(self, *, tasks: np.ndarray, rows: torch.Tensor, losses: torch.Tensor, learnt: bool = True) -> None:
        """Add the token losses [N] of a micro-batch; `rows` [N] is each token's row, `tasks` [B] each row's task.

        Of a step that was skipped (not `learnt`) the tokens alone are counted. The arrays are kept, not copied.
        """
        self._losses.append(_Losses(tasks, rows, losses.detach(), learnt))
        if len(self._losses) == _AT_ONCE:
            self._sum_losses()

    def add_slots(
        self, *, step: int, slots: np.ndarray, tasks: np.ndarray, rows: np.ndarray, arrangements: np.ndarray
    ) -> None:
        """Add the samples this rank trained at `step`. The arrays are kept, not copied."""
        self._slots.append((step, slots, tasks, rows, arrangements))
        if len(self._slots) == _AT_ONCE:
            self._hash_slots()

    def _sum_losses(self) -> None:
        if not self._losses:
            return
        tasks, rows, losses, learnt = zip(*self._losses, strict=True)
        self._losses = []
        num_tokens = [len(own) for own in rows]
        first_row = np.cumsum([0, *map(len, tasks[:-1])])
        places = np.stack([np.repeat(first_row, num_tokens), np.repeat(learnt, num_tokens)]).astype(np.int64)
        device = self._sums.device
        before, is_learnt = torch.from_numpy(places).to(device)
        of_row = torch.from_numpy(np.concatenate(tasks).astype(np.int64)).to(device)
        of_token = of_row[torch.cat(rows) + before]
        values = torch.round(torch.cat(losses).double() * _UNITS_PER_NAT) / _UNITS_PER_NAT
        counted = is_learnt.double()
        self._sums[0].index_add_(0, of_token, torch.where(is_learnt > 0, values, 0.0))
        self._sums[1].index_add_(0, of_token, torch.ones_like(counted))
        self._sums[2].index_add_(0, of_token, counted)

    def _hash_slots(self) -> None:
        if not self._slots:
            return
        steps, *columns = zip(*self._slots, strict=True)
        self._slots = []
        of_slot = np.repeat(np.array(steps), [len(slots) for slots in columns[0]])
        self._hash = add_hashes(self._hash, slots_hash(of_slot, *map(np.concatenate, columns)))

    def gather(self) -> Totals:
        """Totals over all ranks, equal on each; resets this rank's sums. One collective."""
        self._sum_losses()
        self._hash_slots()
        num_tasks = self._sums.shape[1]
        packed = torch.zeros(3 * num_tasks + 2, dtype=torch.float64)
        packed[: 3 * num_tasks] = self._sums.cpu().flatten()
        packed[-2:] = torch.tensor([self._hash >> 32, self._hash & 0xFFFFFFFF], dtype=torch.float64)
        if dist.is_initialized():
            dist.all_reduce(packed)
        self._sums.zero_()
        self._hash = 0
        loss, tokens, learnt_tokens = packed[:-2].reshape(3, num_tasks)
        high, low = (int(value) for value in packed[-2:].tolist())
        return Totals(
            loss=tuple(loss.tolist()),
            tokens=tuple(int(value) for value in tokens.tolist()),
            learnt_tokens=tuple(int(value) for value in learnt_tokens.tolist()),
            sequence_hash=add_hashes(high << 32, low),
        )
