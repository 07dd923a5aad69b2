"""How far a preparation is, on stderr: a bar a phase on a terminal; elsewhere a plain line every ten seconds.

The bars go when the work is done, and a preparation of a few seconds writes no line at all: what it found is told by
its summary.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from train.data.preparing.progress import Progress as PreparationProgress

LINE_EVERY_S = 10.0


def amount_text(done: float, total: float, unit: str) -> str:
    """How much of how much: `12 of 302 MiB`, `4,096 of 100,000 rows`."""
    scale, shown = _scale(unit)
    return f"{done / scale:,.0f} of {total / scale:,.0f} {shown}"


def rate_text(per_s: float, unit: str) -> str:
    """How fast: `8.6 MiB/s`, `11,204 rows/s`."""
    scale, shown = _scale(unit)
    return f"{per_s / scale:,.{1 if unit == 'bytes' else 0}f} {shown}/s"


def _scale(unit: str) -> tuple[int, str]:
    return (1 << 20, "MiB") if unit == "bytes" else (1, unit)


class _RateColumn(ProgressColumn):
    """The phase's mean rate."""

    def render(self, task: Task) -> Text:
        elapsed_s = task.finished_time or task.elapsed
        return Text(rate_text(task.completed / elapsed_s, task.fields["unit"]) if task.completed and elapsed_s else "")


class _Bars:
    """One bar a phase; a phase that is over stays full."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._phases: dict[str, TaskID] = {}

    def update(self, phase: str, *, done: int, total: int, unit: str) -> None:
        """See `train.data.preparing.progress`."""
        if phase not in self._phases:
            self._phases[phase] = self._bars.add_task(phase, total=total, amount="", unit=unit)
        amount = amount_text(done, total, unit)
        self._bars.update(self._phases[phase], completed=done, total=total, amount=amount)


class Lines:
    """A line at most every ten seconds, for logs."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._phase, self._phase_start, self._last_line = "", 0.0, clock()

    def update(self, phase: str, *, done: int, total: int, unit: str) -> None:
        """See `train.data.preparing.progress`."""
        now = self._clock()
        if phase != self._phase:
            self._phase, self._phase_start = phase, now
        elapsed_s = now - self._phase_start
        if now - self._last_line < LINE_EVERY_S or not done or not elapsed_s:
            return
        self._last_line = now
        rate = done / elapsed_s
        left = f", {(total - done) / rate:,.0f} s left" if done < total else ""
        print(
            f"prepare: {phase}: {amount_text(done, total, unit)}, {rate_text(rate, unit)}{left}",
            file=self._stream,
            flush=True,
        )


@contextmanager
def drawn_progress() -> Iterator[PreparationProgress]:
    """A progress that shows itself on stderr while the block runs."""
    if not sys.stderr.isatty():
        yield Lines(sys.stderr)
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars)
