"""The heat policy: anchored to the prior, tilted by heat.

    w ∝ prior · damping · exp(learnability · (strength · heat + long_tail_boost · gap · [long tail]))

Learnability alone takes a task in doubt back to its prior share. Damping is the learnability of a task recognised as
noise, else 1: only such a task falls below that share. What it gives up is for tasks with something to gain: a task
without a gap is damped with the least damped of those that have one, to a half at most, so that solved tasks do not
inherit from tasks that stall, and noise does not inherit from solved ones. A long-tail task with a bottleneck rises
exponentially with its gap.

Same anchored exponential form as DynamixSFT (arXiv 2508.12116), without its bandit: heat is computed from held-out
evidence of every task, so nothing has to be explored by sampling.

A task never measured keeps its prior share; one not measured this time keeps its heat, discounted (`scheduler.heat`).
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import Answer, Array, BeginsAtPrior, Evidence, Memory, Memoryless, anchored, tilted
from scheduler.policy_config import HeatPolicy


@dataclass(frozen=True, slots=True)
class HeatRule(BeginsAtPrior, Memoryless):
    """See the module docstring."""

    policy: HeatPolicy

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights from heat."""
        policy = self.policy
        boost = policy.long_tail_boost * evidence.gap * evidence.long_tail
        tilt = (policy.strength * evidence.heat + boost) * evidence.learnability
        if evidence.given_up.any():
            tilt = tilt + np.log(_damping(evidence))
        return Answer(tilted(evidence.prior, anchored(evidence.prior, tilt, evidence.measured)), memory)


def _damping(evidence: Evidence) -> Array:
    """Learnability [K] of what was given up; of a task without a gap the greatest of those with one, a half or more."""
    has_gap = evidence.measured & (evidence.gap > 0.0)
    damping = np.where(evidence.given_up, evidence.learnability, 1.0)
    top = float(damping[has_gap].max()) if has_gap.any() else 1.0
    return np.where(has_gap, damping, np.minimum(damping, max(top, 0.5)))
