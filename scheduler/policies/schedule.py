"""A mixture that passes from one to another by the clock of the run, whatever is measured.

    w = (1 - x) · before + x · after,   u = (progress - begins) / (ends - begins) clipped to [0, 1]
    x = u (linear), (1 - cos(π u)) / 2 (cosine), 1 from `begins` on (step)

`before` and `after` are priors; `base_weight` and `business_value` of the tasks apply to both. A run whose first policy
it is begins with `before`. With `begins` 0.8 it is a cooldown over the last fifth; with temperature priors of a large
and then a small tau it is COOLDOWN ("Upsample or Upweight? Balanced Training on Heavily Imbalanced Datasets"; there τ
jumps once, 5 → 1.25: shape `step`).

Difference: COOLDOWN moves τ; `linear` and `cosine` here move the shares themselves, so that both ends are exact
whatever kinds of priors they are.

Known failure: a schedule does not notice that a task is forgotten. The guards bound it as any policy: with the default
step limit of 0.12 falling to 0.04 a late jump takes several plans.
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import Answer, Array, Driver, Evidence, Memory, Memoryless, Target, log_prior
from scheduler.policy_config import SchedulePolicy


@dataclass(frozen=True, slots=True)
class ScheduleRule(Memoryless):
    """See the module docstring. `before` and `after` are shares [K]."""

    policy: SchedulePolicy
    before: Array
    after: Array

    def first_weights(self, _prior: Array, /) -> Array:
        """The scheduled shares at step 0: `before`, unless the schedule has begun by then."""
        return self.shares(0.0)

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights at the moment the new plan begins."""
        shares = self.shares(evidence.progress)
        return Answer(Target(log_prior(shares), Driver("scheduled share", shares)), memory)

    def shares(self, progress: float) -> Array:
        """Scheduled shares [K] at `progress` in [0, 1]."""
        passed = self.passed(progress)
        return (1.0 - passed) * self.before + passed * self.after

    def passed(self, progress: float) -> float:
        """Share of the way from `before` to `after` at `progress`, both in [0, 1]."""
        policy = self.policy
        if policy.shape == "step" or policy.begins == policy.ends:
            return float(progress >= policy.begins)
        way = min(max((progress - policy.begins) / (policy.ends - policy.begins), 0.0), 1.0)
        return way if policy.shape == "linear" else 0.5 - 0.5 * float(np.cos(np.pi * way))
