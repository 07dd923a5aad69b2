"""Anchored learning progress: more of the tasks that are learning fastest, held to the prior.

    r_k = (L_before - L_after) / L_before          gain since the measurement before, relative
    r_k ← (r_k - min r) / max(max r - min r, min_spread)
    Q_k ← (1 - rate) · Q_k + rate · r_k
    p_k = (1 - exploration) · prior_k e^{strength · Q_k} / Z + exploration · prior_k

Source: DynamixSFT (arXiv 2508.12116 v2), with its defaults α = 0.05, β = 4, γ = 0.3 under the names rate, strength,
exploration.

Differences: the paper makes a virtual step on a mini-batch of each task and takes the loss before and after; here the
gain is that of real training between two evaluations on the same probes, which costs nothing more, includes transfer,
and grows with the share that the task had. Where a loss rises, the change is relative to the risen loss, so that it
stays above -1. The min-max spread has a least value, so that noise is not blown up when all tasks stand still.
Exploration goes to the prior instead of to the uniform mixture; the guards' floor is there for every task's minimum.

Evidence that is missing: a task without two measurements keeps its prior share; one not measured this time keeps its Q;
one that joins late starts from the mean Q.

Known failures: a task that sits on a plateau before it jumps is starved (the floor keeps it alive); progress falls with
the learning rate, which min-max hides (only differences count); few evaluations move Q little at the paper's rate: with
20 evaluations Q goes 64 % of its way. A duplicate of a quick task draws weight twice.
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import (
    Answer,
    BeginsAtPrior,
    Driver,
    Evidence,
    Memory,
    anchored,
    joined_average,
    mixed_with_prior,
    tilted,
)
from scheduler.policies.rewards import gains
from scheduler.policy_config import ProgressPolicy


@dataclass(frozen=True, slots=True)
class ProgressRule(BeginsAtPrior):
    """See the module docstring."""

    policy: ProgressPolicy

    def first_memory(self, num_tasks: int, /) -> Memory:
        """No progress known; `quality` is Q [K]."""
        return {"quality": np.full(num_tasks, np.nan)}

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights from averaged progress."""
        policy, quality = self.policy, memory["quality"]
        gain, fresh = gains(evidence, policy.measure)
        if fresh.any():
            least, most = float(gain[fresh].min()), float(gain[fresh].max())
            newest = (gain - least) / max(most - least, policy.min_spread)
            quality = joined_average(quality, newest, fresh=fresh, rate=policy.rate)
        known = np.isfinite(quality)
        tilt = anchored(evidence.prior, policy.strength * np.where(known, quality, 0.0), known)
        target = tilted(
            evidence.prior, mixed_with_prior(tilt, policy.exploration), Driver("learning progress", quality)
        )
        return Answer(target, {"quality": quality})
