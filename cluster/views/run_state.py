"""Where a run stands now, for the live views.

Settled history comes from the ledger's records (`evalsvc.report.history`, which also undoes what a restart undid);
between boundaries, `heartbeat` brings the step, the loss and the speed. Time enters only through the clock given.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from evalsvc.report.history import RunHistory
from scheduler.records import AttemptRecord, Record

Direction = Literal["up", "down", "level"]
ARROWS: dict[Direction | None, str] = {"up": "▲", "down": "▼", "level": "=", None: " "}
_LEVEL_BELOW = 0.005
_SPEED_WINDOW = 64


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task now. None: not known yet. `score_direction` is against the evaluation before, `weight_direction` of the
    last decision; `weight` is of the newest plan, which may come into force a little later."""

    name: str
    score: float | None
    score_direction: Direction | None
    loss: float | None
    heat: float | None
    weight: float
    weight_direction: Direction | None
    train_loss: float | None
    samples: int


class RunState:
    """Feed it ledger records and heartbeats; read where the run stands. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.history = RunHistory()
        self.train_loss: float | None = None
        self.samples_per_s: float | None = None
        self._clock = clock
        self._heartbeat_step = 0
        self._progress: deque[tuple[float, int]] = deque(maxlen=_SPEED_WINDOW)

    def observe(self, record: Record) -> None:
        """Take in the next record of the ledger."""
        before = self.step if self.started else 0
        self.history.observe(record)
        if isinstance(record, AttemptRecord):
            self._heartbeat_step = record.step
            self._progress.clear()
            self._note_progress()
        elif self.started and self.step > before:
            self._note_progress()

    def heartbeat(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """A worker says: `step` steps are done, with this mean training loss (nats per token) and speed."""
        self._heartbeat_step, self.train_loss, self.samples_per_s = step, loss, samples_per_s
        self._note_progress()

    @property
    def started(self) -> bool:
        """Whether the run record was seen; until then nothing else is known."""
        return self.history.setup is not None

    @property
    def step(self) -> int:
        """Steps done."""
        return max(self._heartbeat_step, self.history.step)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.history.run_setup.total_steps

    @property
    def stage(self) -> int:
        """Stage of the plan in force."""
        return self.history.plan_in_force.stage

    @property
    def state(self) -> str:
        """State of the run under the plan in force, such as `stage 1` or `late`."""
        return self.history.state

    @property
    def plan_version(self) -> int:
        """Version of the plan in force."""
        return self.history.plan_in_force.version

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the recent speed of this attempt; None while the speed is not known, 0.0 at the end."""
        if self.history.end is not None or self.step >= self.total_steps:
            return 0.0
        if not self._progress:
            return None
        (start_s, start_step), (last_s, last_step) = self._progress[0], self._progress[-1]
        if last_step <= start_step or last_s <= start_s:
            return None
        seconds_per_step = (last_s - start_s) / (last_step - start_step)
        return max(0.0, (self.total_steps - last_step) * seconds_per_step - (self._clock() - last_s))

    def tasks(self) -> list[TaskState]:
        """All tasks, in the run's order."""
        history = self.history
        decided = {task.task: task for task in history.decisions[-1].tasks} if history.decisions else {}
        report = history.boundaries[-1].report if history.boundaries else None
        states = []
        for index, name in enumerate(history.task_names):
            signals, decision = history.signals[name], decided[name] if decided else None
            moved = decision.weight_after - decision.weight_before if decision else None
            states.append(
                TaskState(
                    name=name,
                    score=signals[-1].score if signals else None,
                    score_direction=_direction(signals[-1].score - signals[-2].score) if len(signals) > 1 else None,
                    loss=signals[-1].loss if signals else None,
                    heat=decision.heat if decision else None,
                    weight=history.plans[-1].weights[index],
                    weight_direction=_direction(moved) if moved is not None else None,
                    train_loss=report.train_loss[index] if report else None,
                    samples=report.num_samples[index] if report else 0,
                )
            )
        return states

    def _note_progress(self) -> None:
        self._progress.append((self._clock(), self.step))


def _direction(difference: float) -> Direction:
    if abs(difference) < _LEVEL_BELOW:
        return "level"
    return "up" if difference > 0 else "down"
