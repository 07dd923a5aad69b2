"""The passes of a preparation on a Ray cluster, by Ray Data: a shard is an item, its result comes back in order.

What is large stays in files of the prepared folder, which every node must reach under the same path; only shards and
their small results travel.
"""

import logging
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import ray
import ray.data
from ray import cloudpickle  # pyright: ignore[reportPrivateImportUsage]
from ray.data import DataContext

from scheduler.errors import ResourceError
from train.data.preparing.execute import Item, Result, use_one_thread

_CONNECT_TIMEOUT_S = 10


class RayExecutor:
    """An executor on the Ray cluster at an address; `local` starts one on this machine. Use it in a `with`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._started = False

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield `function(item)` for every item, in order."""
        if not items:
            return
        rows = [{"item": cloudpickle.dumps(item)} for item in items]  # pyright: ignore[reportPrivateImportUsage]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        applied = dataset.map(partial(_apply, function=cloudpickle.dumps(function)))  # pyright: ignore[reportPrivateImportUsage]
        for row in applied.iter_rows():
            yield pickle.loads(row["result"])

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            try:
                _require_listener(self._address)
                ray.init(
                    address=self._address,
                    include_dashboard=False if self._address == "local" else None,
                    logging_level=logging.WARNING,
                    log_to_driver=False,
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise ResourceError(
                    f"--ray {self._address}: no Ray cluster there ({error}); start one, or use --ray local"
                ) from error
            self._started = True
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            ray.shutdown()
            self._started = False


def _require_listener(address: str) -> None:
    """Require that something listens at `host:port`, since Ray itself would ask for many minutes.

    Raises:
        OSError: Nothing does.
        ValueError: The port is not a number.
    """
    host, colon, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _apply(row: dict[str, Any], *, function: bytes) -> dict[str, Any]:
    use_one_thread()
    return {"result": pickle.dumps(pickle.loads(function)(pickle.loads(row["item"])))}
