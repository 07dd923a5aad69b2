"""Watching a run from the driver: follows the ledger through the engine actor and feeds the views."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from cluster.views.run_view import RunView
from scheduler.records import from_json

_POLL_S = 0.3


class StopRequestedError(Exception):
    """What a view raises to have the run stopped with a checkpoint at the next boundary."""


def watch(engine: Any, view: RunView, *, is_done: Callable[[], bool], stop: threading.Event) -> None:
    """Feed `view` until `is_done`; a set `stop` asks the workers to end at the next boundary.

    It asks at every poll: an engine that died in between has forgotten. A view may ask for the same with
    `StopRequestedError`.
    """
    seen = 0
    while True:
        finished = is_done()
        if stop.is_set():
            with contextlib.suppress(RayActorError, GetTimeoutError):
                ray.get(engine.request_stop.remote(), timeout=5)
        with contextlib.suppress(RayActorError, GetTimeoutError):
            lines, pulse = ray.get(engine.watch.remote(seen), timeout=5)
            seen += len(lines)
            for line in lines:
                try:
                    view.observe(from_json(line))
                except StopRequestedError:
                    stop.set()
            finished = finished and not lines
            if pulse.step > 0:
                view.heartbeat(step=pulse.step, loss=pulse.loss, samples_per_s=pulse.samples_per_s)
        view.tick()
        if finished:
            return
        time.sleep(_POLL_S)
