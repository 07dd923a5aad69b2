"""The static mixture: the prior, whatever the evidence. The yardstick of every adaptive policy.

The target is reached at once but for the guards: the overfit guard, the epoch cap and the core hold still bound it.
"""

from dataclasses import dataclass

from scheduler.policies.base import Answer, BeginsAtPrior, Driver, Evidence, Memory, Memoryless, Target, log_prior


@dataclass(frozen=True, slots=True)
class StaticRule(BeginsAtPrior, Memoryless):
    """See the module docstring."""

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights equal to the prior."""
        return Answer(Target(log_prior(evidence.prior), Driver("prior share", evidence.prior)), memory)
