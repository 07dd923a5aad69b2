"""How all ranks come to train the same step under the same plan: rank 0 broadcasts, everybody compares.

Control tensors live on the CPU: the process group is created with gloo for them (`cpu:gloo,cuda:nccl` where there are
GPUs).
"""

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal, get_args

import numpy as np
import torch
import torch.distributed as dist

from scheduler.plan import MixturePlan

_HEADER = 10
"""Version, source step, effective step, stage, stage start, ending, three arrangement shares, replay ratio."""
_CLOSED = -1.0

Ending = Literal["", "stopped", "rolled_back"]
"""Why the workers end at a boundary instead of training on; "" where they train on."""
_ENDINGS: tuple[Ending, ...] = get_args(Ending)


def broadcast_plan(
    plan: MixturePlan | None, *, ending: Ending, num_tasks: int, num_levels: Sequence[int] = ()
) -> tuple[MixturePlan, Ending]:
    """Give rank 0's plan and ending to every rank; both are ignored on the others. One fixed-size collective.

    `num_levels` are the difficulty levels per task; empty for a run without any.
    """
    packed = torch.zeros(_HEADER + 4 * num_tasks + sum(num_levels), dtype=torch.float64)
    if plan is not None:
        packed = torch.tensor(_packed(plan, ending=ending, num_places=sum(num_levels)), dtype=torch.float64)
    if dist.is_initialized():
        dist.broadcast(packed, src=0)
    numbers = packed.tolist()
    version, source, effective, stage, start, number = (int(value) for value in numbers[:6])
    single, chain, contrast, replay_ratio = numbers[6:_HEADER]
    rest = numbers[_HEADER:]
    weights, own, bounds = rest[:num_tasks], rest[num_tasks : 2 * num_tasks], rest[2 * num_tasks : 4 * num_tasks]
    places = rest[4 * num_tasks :]
    orders = tuple(tuple(map(int, places[start:end])) for start, end in pairwise(accumulate(num_levels, initial=0)))
    windows = tuple((int(first), int(last)) for first, last in zip(bounds[::2], bounds[1::2], strict=True))
    received = MixturePlan(
        version=version,
        source_step=source,
        effective_from_step=effective,
        stage=stage,
        stage_start_step=start,
        weights=tuple(weights),
        arrangement=(single, chain, contrast),
        windows=() if _CLOSED in bounds else windows,
        replay_ratio=replay_ratio,
        own_answers=tuple(task for task, is_own in enumerate(own) if is_own),
        level_orders=() if _CLOSED in places else orders,
    )
    return received, _ENDINGS[number]


def _packed(plan: MixturePlan, *, ending: Ending, num_places: int) -> list[float]:
    """The plan as numbers; float64 holds each of them exactly."""
    times = (plan.source_step, plan.effective_from_step, plan.stage, plan.stage_start_step)
    header = (plan.version, *times, _ENDINGS.index(ending))
    bounds = [float(level) for window in plan.windows for level in window] or [_CLOSED] * (2 * len(plan.weights))
    own = [float(task in plan.own_answers) for task in range(len(plan.weights))]
    places = [float(level) for order in plan.level_orders for level in order] or [_CLOSED] * num_places
    return [*map(float, header), *plan.arrangement, plan.replay_ratio, *plan.weights, *own, *bounds, *places]


def broadcast_step(step: int) -> int:
    """Give rank 0's step to every rank; `step` is ignored on the others. One collective."""
    packed = torch.tensor([step], dtype=torch.int64)
    if dist.is_initialized():
        dist.broadcast(packed, src=0)
    return int(packed.item())


def counts_digest(counts: np.ndarray) -> int:
    """63-bit hash of one whole number per task, equal on every rank that counts the same for each of them."""
    packed = np.asarray(counts, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def assert_agreement(*values: int) -> None:
    """Raise RuntimeError on every rank unless all ranks pass the same 63-bit values. One collective."""
    if not dist.is_initialized():
        return
    mine = torch.tensor([*values, *(-value for value in values)], dtype=torch.int64)
    largest = mine.clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    top, bottom = largest[: len(values)], -largest[len(values) :]
    if not torch.equal(top, bottom):
        raise RuntimeError(f"ranks disagree on (step, plan, samples served): {mine.tolist()[: len(values)]} here")
