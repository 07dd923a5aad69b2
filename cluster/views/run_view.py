"""Everything that shows one run at once: a live table on a terminal, plain lines elsewhere; TensorBoard and Prometheus
always; trackers where the launch names some.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from cluster.metrics.exporter import PrometheusExporter
from cluster.views.plain import PlainView
from cluster.views.table import TableView
from cluster.views.tensorboard import TensorBoardWriter
from cluster.views.trackers import Tracker, Trackers
from scheduler.records import Record

Listener = Callable[[Record], None]


class RunView:
    """Opens the views that fit where the output goes; close it at the end of the run. Ray must be connected.

    `listener` is told every record too, after the views.

    Raises:
        ConfigError: A tracker is missing or cannot be opened.
    """

    def __init__(
        self,
        *,
        run: str,
        metrics: Path,
        console: Console,
        trackers: Sequence[Tracker] = (),
        listener: Listener | None = None,
    ) -> None:
        self._listener, self._console = listener, console
        self._trackers = Trackers(trackers, run=run, folder=metrics)
        self._board = TensorBoardWriter(metrics)
        self._exporter = PrometheusExporter(run)
        self._screen: TableView | PlainView
        self._live: Live | None = None
        if console.is_terminal:
            self._screen = TableView()
            self._live = Live(self._screen, console=console, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self._screen = PlainView(write=_print_now)

    def observe(self, record: Record) -> None:
        """Show the next record of the ledger."""
        self._screen.observe(record)
        self._board.observe(record)
        self._exporter.observe(record)
        self._trackers.observe(record)
        if self._listener is not None:
            self._listener(record)

    def say(self, line: str) -> None:
        """Show a line that is not from the ledger."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def heartbeat(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """Show where the workers are."""
        self._screen.heartbeat(step=step, loss=loss, samples_per_s=samples_per_s)
        self._exporter.heartbeat(step=step, loss=loss, samples_per_s=samples_per_s)

    def tick(self) -> None:
        """Keep alive what is forgotten without being told again; call it every second or so."""
        self._exporter.tick()

    def close(self) -> None:
        """Leave the terminal as it was; finish the TensorBoard file and the trackers' runs."""
        if self._live is not None:
            self._live.stop()
        self._board.close()
        self._trackers.close()


def _print_now(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
