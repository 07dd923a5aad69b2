"""How far a preparation is: a bar on the terminal (stderr), nothing where there is none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from train.data.preparing.progress import NoProgress
from train.data.preparing.progress import Progress as PreparationProgress


class _Bars:
    """One bar a phase."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._phases: dict[str, TaskID] = {}

    def update(self, phase: str, *, done: int, total: int, unit: str) -> None:
        """See `train.data.preparing.progress`."""
        scale, shown = (1 << 20, "MiB") if unit == "bytes" else (1, unit)
        if phase not in self._phases:
            self._phases[phase] = self._bars.add_task(phase, total=total, amount="")
        amount = f"{done // scale:,} of {total // scale:,} {shown}"
        self._bars.update(self._phases[phase], completed=done, total=total, amount=amount)


@contextmanager
def drawn_progress() -> Iterator[PreparationProgress]:
    """A progress that draws itself while the block runs, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield NoProgress()
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars)
