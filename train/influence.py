"""Which task moves the model: each task's gradient beside the update that was really applied.

    last step of an interval, weights θ:  a few tasks in turn, two halves of h rows each ─► gradients a, b of the mean
                                          loss per supervised token ─► the step ─► update u that was applied

    g = (a + b) / 2            norm |g|, cosine −⟨g, u⟩ / (|g| |u|): above 0 where the update lowers the task's loss
    variance = h/2 · |a − b|²  of the gradient of a single row, summed over the parameters; unbiased
    |E g|² ≈ |g|² − variance / (2h) = ⟨a, b⟩: what is left of the norm without the luck of the rows; unbiased

Why two halves: the norm of a mean over few rows is mostly noise, and the noise has to be known to be taken off (the
statistics of PiKE, arXiv 2502.06244, section 4). The gradients are taken before the step: after it they lean against u
by the curvature, which near the edge of stability is as large as the gain. The rows are drawn afresh from the task's
training rows, so that they share no luck with the update.

Budget: after s steps of B samples at most ceil(max_cost_ratio · s · B / rows) measurements have been made, and which
task comes next is their number modulo the number of tasks: a function of the step, with nothing to remember. Where
every worker holds the whole model, a measurement is made by one of them, the n-th due one by rank n mod world size, so
that its figures do not depend on their number; the ranks share them at the boundary. Where each holds a part (fsdp2),
all of them make every measurement together.

Training is the same, bit for bit, with and without: nothing here writes to a weight, the optimiser or the tally, and
the random numbers of a micro-batch are seeded anew before each of them. Memory, for one step: a copy of the trainable
weights (of this worker's part of them), and one for each due task; little for adapters, much for a large model that is
trained whole.

This module does not say what influence means for a decision; see `scheduler.policies.gradient` and the report.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from scheduler.setup import EngineSetup
from scheduler.signals import TaskGradient
from train.config import TrainConfig
from train.data.store import TokenStore
from train.memory import ALLOCATION_ERRORS, is_out_of_memory, release
from train.schedule import StageTraining
from train.step import Stepper

logger = logging.getLogger(__name__)

_FIGURES = 4
_STREAM = 0x1F


class _Look(NamedTuple):
    """A task's mean gradient, one tensor a parameter, and what the two halves say of its length."""

    num_rows: int
    norm: float
    variance: float
    mean: list[torch.Tensor]


class InfluenceProbe:
    """Measures on this rank, and shares with the others; does nothing where `train.influence` is null."""

    def __init__(self, train: TrainConfig, setup: EngineSetup, *, stepper: Stepper, store: TokenStore) -> None:
        self._config, self._train, self._stepper, self._store = train.influence, train, stepper, store
        self._seed, self._interval_steps = setup.seed, setup.interval_steps
        self._due: list[tuple[int, int]] = []
        self._measured: dict[int, list[float]] = {}

    @contextmanager
    def around(self, step: int, stage: StageTraining) -> Iterator[None]:
        """Wrap the optimiser step `step` (from 0): what is due is measured before it, and held against its update."""
        end = step + 1
        at_boundary = end % self._interval_steps == 0 or end == self._train.steps
        tasks = self.due(end) if at_boundary else []
        looks = [self._look(turn, task, step, stage) for turn, task in enumerate(tasks)]
        parameters = self._stepper.layout.parameters
        before = [parameter.detach().clone() for parameter in parameters] if tasks else []
        yield
        if tasks:
            update = [after.detach() - old for after, old in zip(parameters, before, strict=True)]
            length = math.sqrt(self._product(update, update))
            for task, look in zip(tasks, looks, strict=True):
                self._hold_against(update, length, task, step, look)

    def due(self, end: int) -> list[int]:
        """Tasks to be measured at the boundary after `end` steps, in turn; each at most once."""
        if self._config is None:
            return []
        num_tasks, ratio = len(self._store.task_names), self._config.max_cost_ratio / self._config.rows
        start = (end - 1) // self._interval_steps * self._interval_steps
        done, now = (math.ceil(ratio * steps * self._train.global_batch_size - 1e-9) for steps in (start, end))
        return [index % num_tasks for index in range(max(done, now - num_tasks), now)]

    def _look(self, turn: int, task: int, step: int, stage: StageTraining) -> _Look | None:
        """A task's gradient before the step; None where another rank takes it or the task has no two rows."""
        assert self._config is not None
        stepper = self._stepper
        is_mine = stepper.layout.in_lockstep or turn % stepper.world_size == stepper.rank
        num_rows = len(self._store.supervised_lengths(task))
        half = min(self._config.rows // 2, num_rows // 2, stepper.rows_at_once(stage))
        if half == 0 or not is_mine:
            return None
        drawn = np.random.default_rng([self._seed, _STREAM, step, task]).choice(num_rows, 2 * half, replace=False)
        try:
            return self._compared(task, drawn.tolist(), step)
        except ALLOCATION_ERRORS as error:
            if stepper.layout.in_lockstep or not is_out_of_memory(error):
                raise
        release(stepper.device)
        logger.warning(
            "no memory to measure what moves the model (task %s, step %d): it is left out; lower train.influence.rows, "
            "or set train.influence: null",
            *(self._store.task_names[task], step),
        )
        return None

    def _compared(self, task: int, drawn: list[int], step: int) -> _Look:
        """Two gradients, of half of the rows each, and what they have in common."""
        stepper, half = self._stepper, len(drawn) // 2
        one, other = (stepper.gradient(task, rows, step=step) for rows in (drawn[:half], drawn[half:]))
        mean = [(left + right) / 2 for left, right in zip(one, other, strict=True)]
        apart = [left - right for left, right in zip(one, other, strict=True)]
        norm = math.sqrt(self._product(mean, mean))
        return _Look(2 * half, norm, half / 2 * self._product(apart, apart), mean)

    def _hold_against(
        self, update: list[torch.Tensor], length: float, task: int, step: int, look: _Look | None
    ) -> None:
        """Note what falls to this rank; in lockstep all ranks have it, and rank 0 keeps it."""
        place = len(self._due)
        self._due.append((task, step))
        if look is None or length == 0.0:
            return
        cosine = -self._product(look.mean, update) / max(look.norm * length, 1e-300)
        if self._stepper.rank == 0 or not self._stepper.layout.in_lockstep:
            self._measured[place] = [look.num_rows, look.norm, look.variance, min(max(cosine, -1.0), 1.0)]

    def _product(self, one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
        """Inner product over all tensors, summed in double precision; of parts, over all workers: a collective."""
        products = [(_own(left).double() * _own(right).double()).sum() for left, right in zip(one, other, strict=True)]
        total = torch.stack(products).sum()
        if self._stepper.layout.in_lockstep:
            dist.all_reduce(total)
        return float(total)

    def gather(self) -> tuple[TaskGradient, ...]:
        """What all ranks have measured since it was last asked for, equal on each. A collective when anything is due.

        What is no finite number is left out; a run that diverges is refused elsewhere.
        """
        if not self._due:
            return ()
        shared = torch.zeros(len(self._due), _FIGURES, dtype=torch.float64)
        for place, figures in self._measured.items():
            shared[place] = torch.tensor(figures, dtype=torch.float64)
        if dist.is_initialized():
            dist.all_reduce(shared)
        names = self._store.task_names
        found = [
            TaskGradient(task=names[task], step=step, num_rows=int(rows), norm=norm, variance=variance, cosine=cosine)
            for (task, step), (rows, norm, variance, cosine) in zip(self._due, shared.tolist(), strict=True)
            if rows > 0 and math.isfinite(norm) and math.isfinite(variance) and math.isfinite(cosine)
        ]
        self._due, self._measured = [], {}
        return tuple(found)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """This worker's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
