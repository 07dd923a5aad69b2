"""The heat policy: anchored to the prior, tilted by heat.

    w ∝ prior · learnability · exp(learnability · (strength · heat + long_tail_boost · gap · [long tail]))

A task whose exposure brings no progress is damped by its learnability; a long-tail task with a bottleneck rises
exponentially with its gap. Same anchored exponential form as DynamixSFT (arXiv 2508.12116), without its bandit: heat is
computed from held-out evidence of every task, so nothing has to be explored by sampling.

A task never measured keeps its prior share; one not measured this time keeps its heat, discounted (`scheduler.heat`).
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import Answer, Evidence, Memory, Memoryless, anchored, tilted
from scheduler.policy_config import HeatPolicy


@dataclass(frozen=True, slots=True)
class HeatRule(Memoryless):
    """See the module docstring."""

    policy: HeatPolicy

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights from heat."""
        policy = self.policy
        boost = np.where(evidence.long_tail, policy.long_tail_boost * evidence.gap, 0.0)
        tilt = (policy.strength * evidence.heat + boost) * evidence.learnability + np.log(evidence.learnability)
        return Answer(tilted(evidence.prior, anchored(evidence.prior, tilt, evidence.measured)), memory)
