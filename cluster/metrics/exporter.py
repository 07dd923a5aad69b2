"""The view that sets a run's metrics. Ray must be connected.

Ray forgets a gauge about twenty seconds after it was set, so that of a process that is gone nothing stays. `tick` sets
them all again every few seconds; whoever watches the run calls it.
"""

import time
from collections.abc import Callable

from ray.util.metrics import Counter, Gauge

from cluster.metrics.figures import figures
from cluster.metrics.names import FAULT_KINDS, FAULTS, METRICS
from cluster.views.run_state import RunState
from scheduler.records import Record

_EVERY_S = 5.0


class PrometheusExporter:
    """Sets the metrics of one run, under the label `run`."""

    def __init__(self, run: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = RunState(clock)
        self._clock = clock
        self._run = run
        self._last_s = clock()
        self._num_events = 0
        self._gauges = {
            metric.name: Gauge(metric.name, metric.meaning, ("run", "task") if metric.per_task else ("run",))
            for metric in METRICS
            if not metric.is_counter
        }
        self._faults = Counter(FAULTS.name, FAULTS.meaning, ("run", "kind"))

    def observe(self, record: Record) -> None:
        """Take in the next record of the ledger."""
        self._state.observe(record)
        events = self._state.history.events
        for event in events[self._num_events :]:
            if event.kind in FAULT_KINDS:
                self._faults.inc(1, {"run": self._run, "kind": event.kind})
        self._num_events = len(events)

    def heartbeat(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """Take in where the workers are."""
        self._state.heartbeat(step=step, loss=loss, samples_per_s=samples_per_s)

    def tick(self) -> None:
        """Set every gauge, if the last time was five seconds ago or more."""
        now = self._clock()
        if now - self._last_s < _EVERY_S:
            return
        self._last_s = now
        for figure in figures(self._state):
            task = {} if figure.task is None else {"task": figure.task}
            self._gauges[figure.metric.name].set(figure.value, {"run": self._run, **task})
