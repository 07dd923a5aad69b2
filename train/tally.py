"""Per-task bookkeeping of what this rank trained since the last interval boundary."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from train.stream.batch import add_hashes, slots_hash

_UNITS_PER_NAT = 2.0**24


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


class Tally:
    """Sums of one rank; `gather` adds them up over the ranks and starts again."""

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        self._sums = torch.zeros(3, num_tasks, dtype=torch.float64, device=device)
        self._hash = 0

    def add_losses(self, *, tasks: np.ndarray, rows: torch.Tensor, losses: torch.Tensor, learnt: bool = True) -> None:
        """Add the token losses [N] of a micro-batch; `rows` [N] is each token's row, `tasks` [B] each row's task.

        Of a step that was skipped (not `learnt`) the tokens alone are counted.
        """
        of_token = torch.from_numpy(tasks.astype(np.int64)).to(rows.device)[rows]
        values = torch.round(losses.detach().double() * _UNITS_PER_NAT) / _UNITS_PER_NAT
        ones = torch.ones_like(values)
        self._sums[1].index_add_(0, of_token, ones)
        if learnt:
            self._sums[0].index_add_(0, of_token, values)
            self._sums[2].index_add_(0, of_token, ones)

    def add_slots(
        self, *, step: int, slots: np.ndarray, tasks: np.ndarray, rows: np.ndarray, arrangements: np.ndarray
    ) -> None:
        """Add the samples this rank trained at `step`."""
        self._hash = add_hashes(self._hash, slots_hash(step, slots, tasks, rows, arrangements))

    def gather(self) -> Totals:
        """Totals over all ranks, equal on each; resets this rank's sums. One collective."""
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
