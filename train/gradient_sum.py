"""The gradients of all ranks added up, while the last backward is still running.

Parameters lie in buckets, the last ones first, since a backward reaches them first; a bucket goes out when all of its
gradients are there and the buckets before it are out. Every rank sends the same buckets in the same order, whatever it
computed: a rank that had nothing to do, or whose backward broke off, sends what it has, and zeros for the rest. So no
rank waits for another that will not come, which is what `DistributedDataParallel` cannot offer; and a rank without
work need not compute anything only to join in. Numbers that all ranks must know go out with the gradients, and so does
which parameters have one: what no rank's loss reached (an expert that no token was sent to) has none afterwards either,
so that the optimiser leaves it alone as it does on one rank.

With two ranks the sum is the same bit for bit as that of the two gradients on one rank.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

_BUCKET_BYTES = 25 << 20


class GradientSum:
    """Adds up over the ranks of the default process group; does nothing where there is one rank."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], *, bucket_bytes: int = _BUCKET_BYTES) -> None:
        self._is_alone = not dist.is_initialized() or dist.get_world_size() == 1
        self._parameters = list(parameters)
        self._without_gradient: set[int] = set()
        self._buckets = [] if self._is_alone else _buckets(parameters, bucket_bytes)
        self._bucket_of = {id(p): place for place, bucket in enumerate(self._buckets) for p in bucket}
        self._sent: list[tuple[torch.Tensor, Any]] = []
        self._missing: list[int] = []
        for bucket in self._buckets:
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(self._arrived)

    def overlap(self) -> None:
        """The next backward is this rank's last of the step: its gradients may go out as they arrive."""
        self._missing = [len(bucket) for bucket in self._buckets]

    def finish(self, numbers: torch.Tensor) -> torch.Tensor:
        """Sum gradients, into `.grad`, and `numbers` (float, 1-d) over all ranks; a collective.

        A parameter without a gradient on any rank has none afterwards.
        """
        if self._is_alone:
            return numbers
        self._missing = []
        while len(self._sent) < len(self._buckets):
            self._send(self._buckets[len(self._sent)])
        reached = numbers.new_tensor([float(id(p) not in self._without_gradient) for p in self._parameters])
        total = torch.cat([numbers, reached])
        self._sent.append((total, dist.all_reduce(total, async_op=True)))
        for _, work in self._sent:
            work.wait()
        self._sent = []
        if self._without_gradient:
            for parameter, num_ranks in zip(self._parameters, total[len(numbers) :].tolist(), strict=True):
                if num_ranks == 0:
                    parameter.grad = None
            self._without_gradient = set()
        return total[: len(numbers)]

    def _arrived(self, parameter: torch.Tensor) -> None:
        if not self._missing:
            return
        self._missing[self._bucket_of[id(parameter)]] -= 1
        while len(self._sent) < len(self._buckets) and self._missing[len(self._sent)] == 0:
            self._send(self._buckets[len(self._sent)])

    def _send(self, bucket: list[torch.nn.Parameter]) -> None:
        """Gradients become views of what travels, so that they are held once."""
        self._without_gradient |= {id(p) for p in bucket if p.grad is None}
        flat = torch.cat([(p.new_zeros(p.shape) if p.grad is None else p.grad).reshape(-1) for p in bucket])
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)
        self._sent.append((flat, dist.all_reduce(flat, async_op=True)))


def _buckets(parameters: Sequence[torch.nn.Parameter], max_bytes: int) -> list[list[torch.nn.Parameter]]:
    buckets: list[list[torch.nn.Parameter]] = []
    filled = max_bytes
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        if filled + size > max_bytes:
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += size
    return buckets
