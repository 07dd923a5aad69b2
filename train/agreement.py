"""How all ranks come to train the same step under the same plan: rank 0 broadcasts, everybody compares.

Control tensors live on the CPU: the process group is created with gloo for them (`cpu:gloo,cuda:nccl` where there are
GPUs).
"""

import torch
import torch.distributed as dist

from scheduler.plan import MixturePlan

_HEADER = 6


def broadcast_plan(plan: MixturePlan | None, *, stop: bool, num_tasks: int) -> tuple[MixturePlan, bool]:
    """Give rank 0's plan and stop flag to every rank; `plan` is ignored on the others. One fixed-size collective."""
    packed = torch.zeros(_HEADER + num_tasks, dtype=torch.float64)
    if plan is not None:
        header = (plan.version, plan.source_step, plan.effective_from_step, plan.stage, plan.stage_start_step, stop)
        packed[:_HEADER] = torch.tensor(header, dtype=torch.float64)
        packed[_HEADER:] = torch.tensor(plan.weights, dtype=torch.float64)
    if dist.is_initialized():
        dist.broadcast(packed, src=0)
    version, source, effective, stage, start, stopping = (int(value) for value in packed[:_HEADER].tolist())
    received = MixturePlan(
        version=version,
        source_step=source,
        effective_from_step=effective,
        stage=stage,
        stage_start_step=start,
        weights=tuple(packed[_HEADER:].tolist()),
    )
    return received, bool(stopping)


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
