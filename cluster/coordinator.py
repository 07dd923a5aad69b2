"""Rank 0's line to the engine and evaluation actors, over Ray. Implements `train.coordination.Coordinator`.

Actors are looked up by name: a handle in a constructor would not survive restarts. Losing an actor never stops
training: the old plan is kept, the snapshot is dropped, and the ledger says so as soon as the engine is back.
"""

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from scheduler.actor import PlanReply, Pulse
from scheduler.selection import Ranked, SelectionRule
from scheduler.signals import IntervalReport
from train.coordination import PlanAnswer

logger = logging.getLogger(__name__)

_MAX_IN_FLIGHT = 2
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class RayCoordinatorFactory:
    """What travels to the workers: names and limits."""

    engine_name: str
    evaluator_name: str
    namespace: str
    plan_timeout_s: float

    def open(self) -> "RayCoordinator":
        """Look the actors up; called on rank 0."""
        return RayCoordinator(
            engine=ray.get_actor(self.engine_name, namespace=self.namespace),
            evaluator=ray.get_actor(self.evaluator_name, namespace=self.namespace),
            plan_timeout_s=self.plan_timeout_s,
        )


@dataclass(slots=True)
class RayCoordinator:
    """See `train.coordination.Coordinator` for the contract of each method."""

    engine: Any
    evaluator: Any
    plan_timeout_s: float
    _in_flight: list[Any] = field(default_factory=list)

    def begin(self, step: int, engine_state: dict[str, Any] | None, refused: tuple[str, ...]) -> int:
        """Must succeed: without an attempt number nothing can be recorded."""
        return ray.get(self.engine.begin_attempt.remote(uuid.uuid4().hex, step, engine_state, refused))

    def plan_for(self, step: int) -> PlanAnswer | None:
        """Bounded twice: the engine answers within its time-out, and a dead engine within that and a grace period."""
        try:
            reply: PlanReply = ray.get(
                self.engine.plan_for.remote(step, self.plan_timeout_s), timeout=self.plan_timeout_s + _GRACE_S
            )
        except (GetTimeoutError, RayActorError):
            logger.warning("step %d: the heat engine does not answer; keeping the old plan", step)
            return None
        return PlanAnswer(plan=reply.plan, stop=reply.stop, roll_back_to=reply.roll_back_to)

    def publish(
        self,
        *,
        step: int,
        attempt: int,
        plan_version: int,
        weights: Mapping[str, torch.Tensor],
        for_selection: bool = False,
    ) -> None:
        """Fire and forget; skipped while two snapshots are still being evaluated."""
        if self._in_flight:
            done, self._in_flight = ray.wait(self._in_flight, num_returns=len(self._in_flight), timeout=0)
            self._report_failures(done)
        if len(self._in_flight) >= _MAX_IN_FLIGHT:
            self.engine.skip.remote(step)
            return
        reference = ray.put(dict(weights))
        self._in_flight.append(self.evaluator.evaluate.remote(step, attempt, plan_version, reference, for_selection))

    def ranking(self, rule: SelectionRule) -> list[Ranked]:
        """Bounded: an engine that does not answer ranks nothing."""
        try:
            return ray.get(self.engine.ranking.remote(rule), timeout=_GRACE_S)
        except (GetTimeoutError, RayActorError) as error:
            logger.warning("the engine does not say which checkpoint is best: %s", error)
            return []

    def note_export(self, step: int, why: str) -> None:
        """Waits, so that it stands before the end in the ledger."""
        self._await(self.engine.note_export.remote(step, why))

    def report_served(self, report: IntervalReport) -> None:
        """Waits, so that it stands before the decision."""
        self._await(self.engine.observe_served.remote(report))

    def report(self, report: IntervalReport) -> None:
        """Waits for the acknowledgement, so that the ledger's order does not depend on timing."""
        self._await(self.engine.observe_interval.remote(report))

    def checkpoint(self, step: int) -> dict[str, Any]:
        """Must succeed: a checkpoint without the engine's state could not be resumed from."""
        return ray.get(self.engine.checkpoint.remote(step))

    def note_storage(self, step: int, text: str) -> None:
        """Fire and forget."""
        self.engine.note_storage.remote(step, text)

    def pulse(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """Fire and forget."""
        self.engine.pulse.remote(Pulse(step=step, loss=loss, samples_per_s=samples_per_s))

    def finish(self, *, step: int, reason: str) -> None:
        """Wait for the evaluations in flight, then close the ledger."""
        self.settle()
        self._await(self.engine.end.remote(step, reason))

    def settle(self) -> None:
        """As long as a plan may take, together."""
        deadline = time.monotonic() + self.plan_timeout_s
        for reference in self._in_flight:
            self._await(reference, timeout_s=max(1.0, deadline - time.monotonic()))
        self._in_flight = []

    def _report_failures(self, references: list[Any]) -> None:
        for reference in references:
            self._await(reference)

    def _await(self, reference: Any, timeout_s: float = _GRACE_S) -> None:
        try:
            ray.get(reference, timeout=timeout_s)
        except (GetTimeoutError, RayActorError) as error:
            logger.warning("a call to the engine or the evaluation was lost: %s", error)
        except RayTaskError as error:
            logger.error("a call to the engine or the evaluation failed and is left out: %s", error)
