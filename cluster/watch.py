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


class Watch:
    """Follows one run, whichever group of workers is at it. A set `stop` asks them to end at the next boundary."""

    def __init__(self, engine: Any, view: RunView, stop: threading.Event) -> None:
        self.view = view
        self._engine, self._stop, self._seen = engine, stop, 0

    def until(self, is_done: Callable[[], bool]) -> None:
        """Feed the view until `is_done` and everything is seen.

        It asks to stop at every poll: an engine that died in between has forgotten. A view may ask for the same with
        `StopRequestedError`.
        """
        while True:
            finished = is_done()
            if self._stop.is_set():
                with contextlib.suppress(RayActorError, GetTimeoutError):
                    ray.get(self._engine.request_stop.remote(), timeout=5)
            with contextlib.suppress(RayActorError, GetTimeoutError):
                finished = not self._poll() and finished
            self.view.tick()
            if finished:
                return
            time.sleep(_POLL_S)

    def _poll(self) -> int:
        """Show what is new; returns how many lines of the ledger that was."""
        lines, pulse = ray.get(self._engine.watch.remote(self._seen), timeout=5)
        self._seen += len(lines)
        for line in lines:
            try:
                self.view.observe(from_json(line))
            except StopRequestedError:
                self._stop.set()
        if pulse.step > 0:
            self.view.heartbeat(step=pulse.step, loss=pulse.loss, samples_per_s=pulse.samples_per_s)
        return len(lines)
