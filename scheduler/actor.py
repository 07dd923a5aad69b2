"""The task-heat engine as a Ray actor: transport only; every decision is made in `scheduler.keeper` and below.

Driver-owned, named, restarted for ever; its memory is the ledger, so a restart loses nothing. Methods are idempotent.
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from scheduler.allocation import Allocation
from scheduler.keeper import HeatKeeper
from scheduler.ledger import read_setup
from scheduler.plan import MixturePlan
from scheduler.selection import Ranked, SelectionRule
from scheduler.signals import IntervalReport, TaskSignal


@dataclass(frozen=True, slots=True)
class PlanReply:
    """The plan for a step; `late` if it is the old one because the new one was not ready; `stop` to end the run.

    `roll_back_to` is the step of a checkpoint to go back to instead of training on.
    """

    plan: MixturePlan
    late: bool
    stop: bool
    roll_back_to: int | None = None


@dataclass(frozen=True, slots=True)
class Pulse:
    """Where the workers are, for the live view only: never part of a decision."""

    step: int
    loss: float
    samples_per_s: float


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class HeatEngineActor:
    """One run's engine. The ledger file is created or replayed; its setup lies beside it (`scheduler.ledger`)."""

    def __init__(self, ledger_path: str) -> None:
        self._keeper = HeatKeeper.open(Path(ledger_path), read_setup(Path(ledger_path)))
        self._decided = asyncio.Condition()
        self._stop = False
        self._pulse = Pulse(step=0, loss=0.0, samples_per_s=0.0)
        if ray.get_runtime_context().was_current_actor_reconstructed:
            version = self._keeper.memory.engine.plan.version
            self._keeper.note_restart("engine", f"state replayed from {self._keeper.num_lines} records, plan {version}")

    async def begin_attempt(
        self, token: str, step: int, engine_state: dict[str, Any] | None, refused: tuple[str, ...]
    ) -> int:
        """A worker group starts at `step` with the engine state of its checkpoint; returns its attempt number."""
        return self._keeper.begin_attempt(token, step, engine_state, refused)

    async def observe(self, signals: tuple[TaskSignal, ...]) -> None:
        """Take signals in."""
        for signal in signals:
            self._keeper.observe(signal)

    async def note_refused_verdicts(self, step: int, reason: str) -> None:
        """The evaluation at `step` did not count lines of people's verdicts."""
        self._keeper.note_refused_verdicts(step, reason)

    async def probes_for(self, step: int) -> Allocation:
        """The probes of the evaluation at `step`, which is about to begin."""
        return self._keeper.probes_for(step)

    async def evaluation_done(self, attempt: int, step: int) -> None:
        """Decide on the evaluation at `step`."""
        self._keeper.evaluation_done(attempt, step)
        async with self._decided:
            self._decided.notify_all()

    async def plan_for(self, step: int, timeout_s: float) -> PlanReply:
        """The plan for `step`, waiting at most `timeout_s` seconds for the decision it depends on."""
        plan = self._keeper.ready_plan(step)
        if plan is None:
            try:
                async with asyncio.timeout(timeout_s), self._decided:
                    await self._decided.wait_for(lambda: self._keeper.ready_plan(step) is not None or self._stop)
            except TimeoutError:
                pass
            plan = self._keeper.ready_plan(step)
        late = plan is None
        plan = plan or self._keeper.keep_late_plan(step)
        return PlanReply(plan, late=late, stop=self._stop, roll_back_to=self._keeper.rollback_for(step))

    async def observe_served(self, report: IntervalReport) -> None:
        """What the workers had trained when they began to wait for a decision."""
        self._keeper.observe_served(report)

    async def observe_interval(self, report: IntervalReport) -> None:
        """Workers reached a boundary."""
        self._keeper.observe_interval(report)

    async def skip(self, step: int) -> None:
        """The snapshot at `step` will not be evaluated."""
        self._keeper.skip(step)
        async with self._decided:
            self._decided.notify_all()

    async def checkpoint(self, step: int) -> dict[str, Any]:
        """Engine state for the checkpoint at `step`."""
        return self._keeper.checkpoint(step)

    async def note_restart(self, actor: str, detail: str) -> None:
        """Another actor came back after it died."""
        self._keeper.note_restart(actor, detail)

    async def observe_selection(self, attempt: int, step: int, scores: dict[str, float]) -> None:
        """Scores of the weights of `step` on the selection set."""
        self._keeper.observe_selection(attempt, step, scores)

    async def ranking(self, rule: SelectionRule) -> list[Ranked]:
        """Measured steps, the best first."""
        return self._keeper.ranking(rule)

    async def note_export(self, step: int, why: str) -> None:
        """The weights of `step` are the run's result."""
        self._keeper.note_export(step, why)

    async def note_storage(self, step: int, detail: str) -> None:
        """Storage failed for a checkpoint, or was mended."""
        self._keeper.note_storage(step, detail)

    async def end(self, step: int, reason: str) -> None:
        """The run ended."""
        self._keeper.end(step, reason)

    async def request_stop(self) -> None:
        """Ask the workers to checkpoint and stop at the next interval boundary."""
        self._stop = True
        async with self._decided:
            self._decided.notify_all()

    async def pulse(self, pulse: Pulse) -> None:
        """Remember where the workers are."""
        self._pulse = pulse

    async def watch(self, from_line: int) -> tuple[list[str], Pulse]:
        """Ledger lines from `from_line` on (ask again for the rest), and the last pulse."""
        return self._keeper.lines_from(from_line), self._pulse

    async def ready(self) -> int:
        """Process id, once the actor is up."""
        return os.getpid()
