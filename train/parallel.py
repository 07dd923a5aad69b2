"""How the workers share a model: every one holds all of it (ddp), or each a part (fsdp2).

    Replicated   each worker computes its own micro-batches, or none; gradients are summed at the end of the step
    Sharded      parameters, gradients and optimiser state are spread over the workers (PyTorch's FSDP2); every layer is
                 gathered when it is needed, so all workers must do the same forwards in the same order

What leaves this module has no layout: whole tensors by name, and the optimiser's state as one process would have it. So
a checkpoint of one layout is gone on from under another.

Sharded calls `torch.distributed.fsdp.fully_shard` itself: accelerate, which calls it too, does so on accelerators alone
(its state keeps MULTI_CPU), and would leave the CPU untested.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grad_norm_

from train.config import Parallelism
from train.gradient_sum import GradientSum
from train.model import check_snapshot, load_snapshot, snapshot, trainable_parameters
from train.supervised_logits import base_of


class Layout(Protocol):
    """What a step and a checkpoint need to know of how the model is shared.

    Attributes:
        parameters: What is trained, in the model's order; the optimiser's parameters.
        gradient_scale: What a loss is multiplied with so that the gradients of all workers add up.
        in_lockstep: All workers must do the same forwards and backwards, those without work included.
    """

    parameters: list[nn.Parameter]
    gradient_scale: float
    in_lockstep: bool

    def before_backward(self, *, is_last: bool) -> None:
        """A backward of this step follows, this worker's last one or not."""
        ...

    def sum_over_workers(self, numbers: torch.Tensor) -> torch.Tensor:
        """End of the step's backwards: gradients become those of the global batch; sums `numbers` [N] too."""
        ...

    def clip(self, max_norm: float) -> torch.Tensor:
        """Scale the gradients down to a global 2-norm of at most `max_norm`; returns the norm before."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """Whole trainable parameters on rank 0's CPU, a copy; elsewhere nothing. All workers call it."""
        ...

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over what `weights` gave, under any layout."""
        ...

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimiser's state dict with whole tensors, on rank 0; elsewhere nothing. All workers call it."""
        ...

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Take over what `optimizer_state` gave, under any layout."""
        ...


def lay_out(
    build: Callable[[torch.device], Any], *, parallelism: Parallelism, device: torch.device
) -> tuple[Any, Layout]:
    """Build the model and share it out as asked. With one worker there is nothing to share, and both are the same.

    A model that is shared out need not fit on one device, nor several times into a host's memory: it is built on the
    CPU, goes from there to the device layer by layer, and the workers of a host do so one after another.

    Args:
        build: Makes the model, the same on every worker, with its weights on the device it is given.
        parallelism: How it is shared.
        device: What this worker computes on.
    """
    if parallelism == "ddp" or not dist.is_initialized() or dist.get_world_size() == 1:
        model = build(device)
        return model, Replicated(model)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    place = int(os.environ.get("LOCAL_RANK", "0"))
    turns = torch.tensor(place + 1, device=device)
    dist.all_reduce(turns, dist.ReduceOp.MAX)
    model, layout = None, None
    for turn in range(int(turns)):
        if turn == place:
            model = build(torch.device("cpu"))
            layout = Sharded(model, mesh)
        dist.all_reduce(turns, dist.ReduceOp.MAX)  # wait for those whose turn it is
        turns.item()
    assert layout is not None
    return model, layout


class Replicated:
    """Every worker holds the whole model. Satisfies `Layout`."""

    gradient_scale = 1.0
    in_lockstep = False

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.parameters = list(trainable_parameters(model).values())
        self._sum = GradientSum(self.parameters)
        if dist.is_initialized():
            for parameter in self.parameters:  # kinds of devices may draw differently from equal seeds
                dist.broadcast(parameter.data, src=0)

    def before_backward(self, *, is_last: bool) -> None:
        if is_last:
            self._sum.overlap()

    def sum_over_workers(self, numbers: torch.Tensor) -> torch.Tensor:
        return self._sum.finish(numbers)

    def clip(self, max_norm: float) -> torch.Tensor:
        return clip_grad_norm_(self.parameters, max_norm)

    def weights(self) -> dict[str, torch.Tensor]:
        return snapshot(self._model) if _is_first() else {}

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        load_snapshot(self._model, weights)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return optimizer.state_dict() if _is_first() else {}

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        _load(optimizer, state)


class Sharded:
    """Every worker holds a part of every parameter. Satisfies `Layout`.

    The layers that a model names as not to be split are gathered one by one; what is left, embeddings and head, is
    gathered as one.
    """

    in_lockstep = True

    def __init__(self, model: Any, mesh: DeviceMesh) -> None:
        for layer in _layers(model):
            fully_shard(layer, mesh=mesh)
        self._model: FSDPModule = fully_shard(model, mesh=mesh)
        self._named = trainable_parameters(model)  # between a forward and its backward the model shows whole ones
        self.parameters = list(self._named.values())
        self.gradient_scale = float(mesh.size())  # FSDP averages

    def before_backward(self, *, is_last: bool) -> None:
        self._model.set_is_last_backward(is_last)
        self._model.set_requires_gradient_sync(is_last)

    def sum_over_workers(self, numbers: torch.Tensor) -> torch.Tensor:
        total = numbers.clone()
        dist.all_reduce(total)
        return total

    def clip(self, max_norm: float) -> torch.Tensor:
        return _whole(clip_grad_norm_(self.parameters, max_norm))

    def weights(self) -> dict[str, torch.Tensor]:
        return _gathered({name: value.detach() for name, value in self._named.items()})

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        check_snapshot(self._named, weights)
        self._model.reshard()  # what an earlier forward gathered is of the old weights
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(_like(weights[name], parameter))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        moments = {place: _gathered(entries) for place, entries in state["state"].items()}
        return {**state, "state": moments} if _is_first() else {}

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        ours = {
            place: {
                name: _like(value, self.parameters[place]) if value.shape == self.parameters[place].shape else value
                for name, value in entries.items()
            }
            for place, entries in state["state"].items()
        }
        _load(optimizer, {**state, "state": ours})


def _layers(model: Any) -> Sequence[nn.Module]:
    base = base_of(model)
    names: set[str] = set(base._no_split_modules or ())
    return [module for module in base.modules() if type(module).__name__ in names]


def _load(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load `state` and leave nothing of it in use: its tensors may be pages of a file that will be deleted."""
    optimizer.load_state_dict(dict(state))
    for entries in optimizer.state.values():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor) and value.device.type == "cpu":
                entries[name] = value.clone()


def _is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _gathered(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CPU copies of whole tensors on rank 0, nothing elsewhere; one at a time is whole on a device."""
    found: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        whole = _whole(value)
        if _is_first():
            found[name] = whole.to("cpu", copy=True)
    return found


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """`value` shared out as `parameter` is."""
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
