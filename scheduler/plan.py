"""The mixture plan: the versioned, immutable result of a decision."""

import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Self

from scheduler.fields import build, to_plain

Window = tuple[int, int]
"""First and last open difficulty level of a task, both included, counted from 0: places in its order of levels."""

SINGLE_ONLY = (1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class MixturePlan:
    """What is trained from the first interval boundary >= `effective_from_step` on.

    Attributes:
        version: 0 for the initial plan, then one more per decision.
        source_step: Step of the evaluation the plan was decided on; -1 for the initial plan.
        effective_from_step: First step the plan may be in force.
        stage: 1 or 2.
        stage_start_step: Step at which that stage began.
        weights: Share per task, in the order of the run's tasks; sums to one.
        arrangement: Shares of a task's samples offered to single, chain and contrast arrangement; sums to one.
        windows: Open difficulty levels per task; empty where the run has no difficulty levels.
        replay_ratio: Share of a task's samples drawn from the levels below its window.
        own_answers: Tasks, by number, whose answers in the context of a chain are the model's own.
        level_orders: Difficulty levels of every task, easiest for the model first; empty where all tasks have the order
            of their rows.
    """

    version: int
    source_step: int
    effective_from_step: int
    stage: int
    stage_start_step: int
    weights: tuple[float, ...]
    arrangement: tuple[float, float, float] = SINGLE_ONLY
    windows: tuple[Window, ...] = ()
    replay_ratio: float = 0.0
    own_answers: tuple[int, ...] = ()
    level_orders: tuple[tuple[int, ...], ...] = ()

    def to_fields(self) -> dict[str, Any]:
        """All fields, as JSON gives them back."""
        return to_plain(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Inverse of `to_fields`."""
        return build(cls, fields)

    def digest(self) -> int:
        """63-bit hash of the plan's exact content, equal on every rank that holds the same plan."""
        header = (self.version, self.source_step, self.effective_from_step, self.stage, self.stage_start_step)
        numbers = (*self.weights, *self.arrangement, self.replay_ratio)
        levels = [level for window in self.windows for level in window]
        places = [level for order in self.level_orders for level in order]
        wholes = (len(levels), *levels, len(places), *places, *self.own_answers)
        packed = struct.pack(f"<5q{len(numbers)}d{len(wholes)}q", *header, *numbers, *wholes)
        return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1
