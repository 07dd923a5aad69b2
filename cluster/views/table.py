"""The run as a table in a terminal: live while it trains (`TableView` inside `rich.live.Live`), final at its end.

    with Live(view, refresh_per_second=4):
        view.observe(record)

The view draws what `RunState` says and decides nothing. `Live` draws from a thread of its own, so a lock keeps a record
from arriving in the middle of a drawing.
"""

import threading
import time
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.views.run_state import ARROWS, Direction, RunState
from evalsvc.report.page import percent_text, score_text
from evalsvc.report.schema import Report
from evalsvc.report.words import seconds_in_words
from scheduler.records import Record

_STYLES: dict[Direction | None, str] = {"up": "green", "down": "red", "level": "dim", None: ""}
_HEAT_CELLS = 8


class TableView:
    """Live table: progress with time left, and per task its score, heat, weight, training loss and samples."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = RunState(clock)
        self._lock = threading.Lock()

    def observe(self, record: Record) -> None:
        """Take in the next record of the ledger."""
        with self._lock:
            self.state.observe(record)

    def heartbeat(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """Show progress between records."""
        with self._lock:
            self.state.heartbeat(step=step, loss=loss, samples_per_s=samples_per_s)

    def __rich__(self) -> RenderableType:
        with self._lock:
            return self._draw()

    def _draw(self) -> RenderableType:
        if not self.state.started:
            return Text("waiting for the run to start …", style="dim")
        parts: list[RenderableType] = [self._progress(), self._tasks()]
        if self.state.history.events:
            parts.append(Text(self.state.history.events[-1].text, style="dim"))
        return Group(*parts)

    def _progress(self) -> Table:
        state = self.state
        grid = Table.grid(padding=(0, 2))
        facts = [f"step {state.step}/{state.total_steps}", state.state, f"plan v{state.plan_version}"]
        if state.train_loss is not None:
            facts.append(f"loss {state.train_loss:.3f}")
        if state.samples_per_s is not None:
            facts.append(f"{state.samples_per_s:,.0f} samples/s")
        left = state.eta_s
        facts.append("time left unknown" if left is None else f"{seconds_in_words(left)} left")
        grid.add_row(ProgressBar(total=state.total_steps, completed=state.step, width=24), *facts)
        return grid

    def _tasks(self) -> Table:
        table = Table(box=None, header_style="dim", padding=(0, 1))
        table.add_column("task")
        for name in ("score", "", "heat"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for name in ("weight", "", "train loss", "samples"):
            table.add_column(name, justify="right", no_wrap=True)
        for task in self.state.tasks():
            table.add_row(
                escape(task.name),
                score_text(task.score),
                _arrow(task.score_direction),
                "–" if task.heat is None else f"{task.heat:.2f}",
                Text(_bar(task.heat or 0.0), style="red"),
                percent_text(task.weight),
                _arrow(task.weight_direction),
                score_text(task.train_loss),
                f"{task.samples:,}",
            )
        return table


def final_table(report: Report) -> Table:
    """Per task first, last and test score, first and last weight and heat; below it the biggest change, in words."""
    change = report.biggest_change
    caption = escape(change.sentence) if change else "The mixture did not change in this run."
    table = Table(box=None, header_style="dim", caption=caption, caption_justify="left", caption_style="")
    table.add_column("task")
    for name in ("first score", "last score", "test score", "first weight", "last weight", "heat"):
        table.add_column(name, justify="right")
    for name, task in report.tasks.items():
        scores = [score_text(score) for score in (task.first_score, task.last_score, task.test_score)]
        weights = [percent_text(weight) for weight in (task.first_weight, task.last_weight)]
        table.add_row(escape(name), *scores, *weights, "–" if task.heat is None else f"{task.heat:.2f}")
    return table


def _arrow(direction: Direction | None) -> Text:
    return Text(ARROWS[direction], style=_STYLES[direction])


def _bar(ratio: float) -> str:
    return "█" * round(ratio * _HEAT_CELLS)
