"""Word that a worker is about to go, and how all ranks come to hear of it at the same boundary.

Two ways it comes: Ray says that a node of the group is being taken away (spot instances, a drained node), or this
process gets SIGTERM (a batch system or Kubernetes ends it). Either way the group takes a checkpoint at the next
interval boundary, waits until it is durable, and trains on until the process or node is gone; then Ray restarts the
group from that very step. After SIGTERM the process ends by itself: at that boundary, or when the grace is over.
"""

import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType

import ray.train
import torch
import torch.distributed as dist

_told_to_end = threading.Event()


@dataclass(frozen=True, slots=True)
class Notices:
    """What some rank has to say at a boundary; the same on every rank.

    Attributes:
        node_goes: Ray says that a node of this group is being taken away.
        told_to_end: A rank got SIGTERM.
        storage_is_lost: Rank 0 has had no durable checkpoint for as long as the run may go without one.
    """

    node_goes: bool
    told_to_end: bool
    storage_is_lost: bool

    @property
    def asks_for_checkpoint(self) -> bool:
        """A worker is about to go."""
        return self.node_goes or self.told_to_end


def gather_notices(*, storage_is_lost: bool) -> Notices:
    """What any rank knows, on every rank. Two small collectives."""
    flags = torch.tensor([_node_goes(), _told_to_end.is_set(), storage_is_lost], dtype=torch.int64)
    if dist.is_initialized():
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    node, told, lost = (bool(flag) for flag in flags.tolist())
    return Notices(node_goes=node, told_to_end=told, storage_is_lost=lost)


def _node_goes() -> bool:
    try:
        return ray.train.get_preemption_info() is not None
    except RuntimeError:  # a worker loop outside of Ray Train, whose node nobody takes away
        return False


def was_told_to_end() -> bool:
    """This process got SIGTERM."""
    return _told_to_end.is_set()


def listen_for_sigterm(grace_s: float) -> None:
    """From now on SIGTERM is a notice: the process ends `grace_s` seconds after it at the latest. Main thread only."""

    def note(_number: int, _frame: FrameType | None) -> None:
        if not _told_to_end.is_set():
            _told_to_end.set()
            timer = threading.Timer(grace_s, os._exit, args=(1,))
            timer.daemon = True
            timer.start()

    signal.signal(signal.SIGTERM, note)
