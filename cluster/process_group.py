"""The workers' process group, as Ray Train's controller sets it up.

The controller's process unpickles what is defined here before it asks for any worker, so this module imports what
that takes and no more: with the model libraries that the worker loop needs, each start would wait for them twice.
"""

from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig

from train.notices import listen_for_sigterm

_Backend: Any = TorchConfig().backend_cls


@dataclass
class GroupConfig(TorchConfig):
    """The process group of torch, on workers that take SIGTERM as notice instead of ending at once."""

    sigterm_grace_s: float = 60.0

    @property
    def backend_cls(self) -> type:
        """See `_GroupBackend`."""
        return _GroupBackend


class _GroupBackend(_Backend):
    """Signal handlers can only be set in a process's main thread; training runs in another, this method's call not."""

    def on_start(self, worker_group: Any, backend_config: GroupConfig) -> None:
        worker_group.execute(listen_for_sigterm, backend_config.sigterm_grace_s)
        super().on_start(worker_group, backend_config)
