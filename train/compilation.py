"""torch.compile for the forward and backward of training, where the machine can do it.

What is compiled is the step's own call of the model, not the model: its parameters keep their names in checkpoints,
snapshots and exports, and whoever else calls the model, as generation does, calls it as it is. Attention over packed
rows is left out of the graphs (`train.attention`): its shapes are never the same twice. All else is compiled once for
all lengths. Losses are the uncompiled ones up to rounding, so a run that is resumed elsewhere is too.

A trial before the first step finds out whether it works. Where it does not, training goes on uncompiled, with a warning
that says why: the same result, only later.
"""

import logging
import time

import numpy as np
import torch

from train.attention import register
from train.batch import collate
from train.data.store import EncodedRow
from train.model import SupervisedLoss, trainable_parameters

logger = logging.getLogger(__name__)

_TRIAL_LENGTHS = (5, 11, 8), (9, 4)


def compiled(
    loss: SupervisedLoss, *, packed: bool, device: torch.device, in_lockstep: bool, backend: str = "inductor"
) -> SupervisedLoss:
    """`loss`, compiled, or as it was where that cannot be done; the log says which.

    Call it under the autocast context of training. No `.grad` is touched.

    Args:
        loss: In training mode, its model prepared for packed rows where there will be any.
        packed: What micro-batches will look like.
        device: Where they will be.
        in_lockstep: The model is shared out over the workers, which cannot be compiled.
        backend: As `torch.compile` has it.
    """
    if in_lockstep:
        logger.warning("train.compile is not used: under launch.parallelism fsdp2 training is not compiled")
        return loss
    register(in_graphs=False)
    attempt, started = SupervisedLoss(loss.model).train(), time.perf_counter()
    attempt.compile(dynamic=True, backend=backend)
    try:
        _try(attempt, packed=packed, device=device)
    except (RuntimeError, OSError, ImportError) as error:
        reason = " ".join(str(error).split("\n")[:2])  # the second line has the cause where a backend failed
        logger.warning("train.compile is not used, training is not compiled, which is slower: %s", reason)
        return loss
    logger.info("forward and backward are compiled, which took %.0f s", time.perf_counter() - started)
    return attempt


def _try(loss: SupervisedLoss, *, packed: bool, device: torch.device) -> None:
    """A forward and a backward of rows of two shapes."""
    parameters = list(trainable_parameters(loss).values())
    for lengths in _TRIAL_LENGTHS:
        rows = [
            EncodedRow(np.arange(length, dtype=np.int32), np.array([[1, length]], dtype=np.int32)) for length in lengths
        ]
        losses = loss(collate(rows, pad_id=0, device=device, packed=packed))
        torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
