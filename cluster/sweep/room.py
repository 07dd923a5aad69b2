"""How many runs the cluster holds at once, and a place for each.

What is free on the cluster says too little: runs that begin at the same moment all see the same free CPUs, and all
start the processes of a run before one of them has taken any. So each takes a place first, by a lock on a file, which
the system lets go of when its process ends, however it ends. Processes on several nodes share the places where the
file system has locks (NFS 4 does).
"""

import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cluster.config import LaunchConfig
from cluster.placement import STAGES, described_nodes, place, total_of

_POLL_S = 0.5


def concurrency(launch: LaunchConfig, cluster: Mapping[str, float]) -> int:
    """How many runs of this launch the cluster holds at once, each in its larger stage; at least one.

    Of a cluster that grows by itself what it may become counts, for nodes come only when runs ask for them.
    """
    if launch.grows:
        largest = total_of(described_nodes(launch.cluster.groups))
        cluster = {kind: max(cluster.get(kind, 0.0), largest.get(kind, 0.0)) for kind in {*cluster, *largest}}
    fits = [
        math.floor(cluster.get(kind, 0) / amount + 1e-6)
        for stage in STAGES
        for kind, amount in place(launch.for_stage(stage), cluster).total().items()
        if amount
    ]
    return max(1, min(fits))


@contextmanager
def room(folder: Path, num_places: Callable[[], int]) -> Iterator[int]:
    """Wait for one of the places in `folder`, and hold it; gives its number. Every try asks anew how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    while (taken := _taken(folder, num_places())) is None:
        time.sleep(_POLL_S)
    number, lock = taken
    with lock:
        yield number


def _taken(folder: Path, num_places: int) -> tuple[int, IO[str]] | None:
    for number in range(num_places):
        lock = (folder / f"place-{number}").open("a", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return number, lock
    return None
