"""Who does the work of a pass: this process, a pool of processes here, or (elsewhere) a cluster.

A pass is one function over many shards. Its results come back in the order of the shards whoever did the work, so a
preparation does not depend on it.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import Protocol, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Items handed out per process beyond the one whose result is awaited."""


class Executor(Protocol):
    """Applies a function to shards; function, items and results can be pickled."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield `function(item)` for every item, in order."""
        ...


class LocalExecutor:
    """`num_processes` processes of this machine; 1 means this very process. Close it, or use it in a `with`."""

    def __init__(self, num_processes: int = 1) -> None:
        if num_processes < 1:
            raise ValueError(f"num_processes {num_processes} is less than 1")
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield `function(item)` for every item, in order; one item alone never starts a process."""
        if self._num_processes == 1 or len(items) < 2:
            yield from map(function, items)
            return
        pool = self._started()
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= _AHEAD * self._num_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._num_processes, mp_context=context, initializer=use_one_thread)
        return self._pool


def use_one_thread() -> None:
    """One thread for tokenizers and numpy: the processes together use the cores already."""
    os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1")
