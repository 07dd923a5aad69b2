"""The heat policy: anchored to the prior, tilted by heat.

    w ∝ prior · exp(strength · heat · learnability + long_tail_boost · gap · learnability · [long tail])

A task whose exposure brings no progress is damped by its learnability; a long-tail task with a bottleneck rises
exponentially with its gap. Same anchored exponential form as DynamixSFT (arXiv 2508.12116), without its bandit: heat is
computed from held-out evidence of every task, so nothing has to be explored by sampling.
"""

import numpy as np

from scheduler.policies.base import Evidence, Hold, Target, log_prior
from scheduler.setup import HeatPolicy


def heat_target(policy: HeatPolicy, evidence: Evidence) -> Target | Hold:
    """Target weights from heat; holds when this evaluation measured nothing.

    A task never measured so far is given the mean heat of the others, so that missing evidence does not move it.
    """
    if evidence.fresh == 0:
        return Hold("no task was measured in this evaluation")
    mean_heat = float(evidence.heat[evidence.measured].mean())
    heat = np.where(evidence.measured, evidence.heat, mean_heat)
    boost = np.where(evidence.long_tail & evidence.measured, policy.long_tail_boost * evidence.gap, 0.0)
    return Target(log_prior(evidence.prior) + (policy.strength * heat + boost) * evidence.learnability)
