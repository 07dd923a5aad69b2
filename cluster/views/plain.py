"""The run as lines of text, for logs and pipes: one line a decision, and one for everything out of the ordinary.

step  400/2000 stage 1 plan v3  lcr .12→.31 heat .64 w .08→.12 ▲ | qa .70→.71 heat .10 w .30→.28 ▼ | 3 min 20 s left
"""

import time
from collections.abc import Callable

from cluster.views.run_state import ARROWS, RunState, TaskState
from evalsvc.report.words import seconds_in_words
from scheduler.records import DecisionRecord, Record, TaskDecision

MAX_TASKS_A_LINE = 6


class PlainView:
    """Writes lines through `write` (default: `print`). A line names at most the six tasks whose weight moved most."""

    def __init__(self, write: Callable[[str], object] = print, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = RunState(clock)
        self._write = write

    def observe(self, record: Record) -> None:
        """Take in the next record of the ledger; write a line if it is a decision or an event."""
        known = len(self.state.history.events)
        self.state.observe(record)
        for event in self.state.history.events[known:]:
            self._write(f"{self._place(event.step)}  {event.text}")
        if isinstance(record, DecisionRecord):
            self._write(self._decision_line(record))

    def heartbeat(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """Keep the time left up to date; writes nothing."""
        self.state.heartbeat(step=step, loss=loss, samples_per_s=samples_per_s)

    def _place(self, step: int) -> str:
        total = self.state.total_steps
        return f"step {step:>{len(str(total))}}/{total}"

    def _decision_line(self, record: DecisionRecord) -> str:
        plan = record.plan
        head = f"{self._place(plan.source_step)} {record.state} plan v{plan.version}"
        left = self.state.eta_s
        tail = "" if left is None else f" | {seconds_in_words(left)} left"
        if record.held is not None:
            return f"{head}  weights kept: {record.held}{tail}"
        states = {task.name: task for task in self.state.tasks()}
        moved = sorted(record.tasks, key=lambda task: -abs(task.weight_after - task.weight_before))[:MAX_TASKS_A_LINE]
        parts = [self._task_part(task, states[task.task]) for task in record.tasks if task in moved]
        more = len(record.tasks) - len(parts)
        return f"{head}  {' | '.join(parts)}{f' | {more} more' if more else ''}{tail}"

    def _task_part(self, task: TaskDecision, state: TaskState) -> str:
        scores = [signal.score for signal in self.state.history.signals[task.task][-2:]]
        score = "→".join(_short(value) for value in scores) or "–"
        weight = f"{_short(task.weight_before)}→{_short(task.weight_after)}"
        return f"{task.task} {score} heat {_short(task.heat)} w {weight} {ARROWS[state.weight_direction]}"


def _short(value: float) -> str:
    """Two decimals without the leading zero: `.08`, `1.00`."""
    return f"{value:.2f}".removeprefix("0")
