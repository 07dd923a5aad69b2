"""The mixture plan: the versioned, immutable result of a decision."""

import hashlib
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MixturePlan:
    """Sampling weights and the stage, in force from the first interval boundary >= `effective_from_step`.

    Attributes:
        version: 0 for the initial plan, then one more per decision.
        source_step: Step of the evaluation the plan was decided on; -1 for the initial plan.
        effective_from_step: First step the plan may be in force.
        stage: 1 or 2.
        stage_start_step: Step at which that stage began.
        weights: Probability per task, in the order of the run's tasks; sums to one.
    """

    version: int
    source_step: int
    effective_from_step: int
    stage: int
    stage_start_step: int
    weights: tuple[float, ...]

    def digest(self) -> int:
        """63-bit hash of the plan's exact content, equal on every rank that holds the same plan."""
        header = (self.version, self.source_step, self.effective_from_step, self.stage, self.stage_start_step)
        packed = struct.pack(f"<5q{len(self.weights)}d", *header, *self.weights)
        return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1
