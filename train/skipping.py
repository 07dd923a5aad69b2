"""Steps that are left out because their loss or gradient is not a number, and when that ends the run.

One such batch must not cost a run: the step changes no weight, and the rows that did it are named. Many of them are a
diagnosis: weights that have grown beyond bounds, or rows that no weights can be trained on. It depends on the batch and
the weights alone, so a run that is started again would come to the same step; a diagnosis is not tried again.
"""

import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from scheduler.errors import RunFailedError
from scheduler.signals import SkippedStep
from train.data.store import TokenStore
from train.stream.batch import Batch

logger = logging.getLogger(__name__)

_SHOWN = 4


class SkippedSteps:
    """Counts skipped steps since step 0 and keeps those since the last boundary; the same on every rank.

    Attributes:
        count: Skipped since step 0.
        last: The latest of them; -1 for none since this process began.
        max_count: One more than so many end the run.
    """

    def __init__(self, *, max_count: int) -> None:
        self.count, self.last, self.max_count = 0, -1, max_count
        self._recent: list[SkippedStep] = []
        self._latest: deque[SkippedStep] = deque(maxlen=_SHOWN)

    def add(self, skipped: SkippedStep) -> None:
        """Note it. Raises RunFailedError, naming rows and tasks, when it is one too many."""
        self.count += 1
        self.last = skipped.step
        self._recent.append(skipped)
        self._latest.append(skipped)
        logger.warning("step %d is skipped: its %s is not a finite number; %s", *_described(skipped))
        if self.count > self.max_count:
            raise RunFailedError(self._diagnosis())

    def take(self) -> tuple[SkippedStep, ...]:
        """Those since the last call."""
        recent, self._recent = tuple(self._recent), []
        return recent

    def _diagnosis(self) -> str:
        told = "; ".join("step {}: {}, {}".format(*_described(skipped)) for skipped in self._latest)
        return (
            f"training diverged: {self.count} steps had a loss or a gradient that is not a finite number, more than "
            f"train.max_skipped_steps {self.max_count} ({told}); where the rows are always the same, look at them, "
            "else lower the learning rate or train.max_grad_norm, lengthen train.warmup_steps, or set model.dtype: "
            "float32"
        )


def skipped_step(store: TokenStore, batch: Batch, *, broken_slots: np.ndarray) -> SkippedStep:
    """What the records say of a skipped step.

    Args:
        store: Names tasks and rows.
        batch: The global batch.
        broken_slots: bool [B], slots whose loss is not finite; where there is none, the gradient is at fault.
    """
    is_loss = bool(broken_slots.any())
    slots = np.flatnonzero(broken_slots) if is_loss else np.arange(len(batch.tasks))
    places = sorted({(int(batch.tasks[slot]), int(batch.rows[slot])) for slot in slots})
    tasks = dict.fromkeys(store.task_names[task] for task, _ in places)
    rows = tuple(f"{store.task_names[task]}: {_row(store, task, row)}" for task, row in places)
    return SkippedStep(step=batch.step, broken="loss" if is_loss else "gradient", tasks=tuple(tasks), rows=rows)


def summed_over_ranks(mask: np.ndarray) -> np.ndarray:
    """Whether any rank has set a place of `mask`, bool [B]; a collective."""
    counts = torch.from_numpy(mask.astype(np.int64))
    if dist.is_initialized():
        dist.all_reduce(counts)
    return counts.numpy() > 0


def _row(store: TokenStore, task: int, row: int) -> str:
    (text,) = store.texts(task, [row])
    return f"{text['id']} ({Path(text['source']).name}, line {text['line']})"


def _described(skipped: SkippedStep) -> tuple[int, str, str]:
    return skipped.step, skipped.broken, f"tasks {_few(skipped.tasks)}, rows {_few(skipped.rows)}"


def _few(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
