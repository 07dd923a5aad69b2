"""Online data mixing (ODM): Exp3 with averaged rewards and exploration that decays with the steps of the run.

    r̂_k = r_k / s_k, scaled                      gain r_k made with the share s_k of exposure (`rewards`)
    R_k ← (1 - rate) · R_k + rate · r̂_k
    ε_t = min(1/K, √(ln K / (K t))), at least min(min_exploration, 0.45/K);   t: optimiser steps
    p   = (1 - K ε_t) · prior_k e^{scale · ε_{t-1} · R_k} / Z + K ε_t · prior_k

Source: Albalak et al. (arXiv 2312.02406), with rate 0.1 (their α = 0.9).

Differences: the paper's reward is the training loss itself (the authors' code: the perplexity), which pours data into
noise and into whatever has a high entropy; here it is the relative fall of a loss or a gain in score,
importance-weighted by the realised share and scaled as in `exp3`. As ε_t falls the paper's exponent vanishes and the
mixture drifts back to uniform; as in the DataFlex re-implementation, ε has a least value (0.03) in exponent and
exploration, and the reward a factor (15). So K ε_t, the share that explores, falls as in the paper until it is K times
that value (0.09 of three tasks, in the paper 0), or 0.45 where that is less (16 tasks or more), so that rewards decide
most of the mixture whatever K. Start and exploration are the prior (paper: uniform). Updates come with evaluations, t
counts steps.

Evidence that is missing: as in `exp3`; a task that joins late starts from the mean R.

Known failures: those of `exp3`; K ε_t is 1 for the first K ln K steps, as in the paper, the prior and nothing else: 148
steps with 40 tasks, 3,108 with 500 (`scheduler.policies.notes` names a run that ends before). A baseline, not a
recommendation.
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
from scheduler.policies.rewards import rewards, scaled
from scheduler.policy_config import OdmPolicy

_LARGEST_FLOOR = 0.45


@dataclass(frozen=True, slots=True)
class OdmRule(BeginsAtPrior):
    """See the module docstring."""

    policy: OdmPolicy

    def first_memory(self, num_tasks: int, /) -> Memory:
        """`average` is R / K [K], NaN for a task never rewarded; `scale` is a number."""
        return {"average": np.full(num_tasks, np.nan), "scale": np.zeros(())}

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights p."""
        policy, num_tasks = self.policy, int((evidence.prior > 0.0).sum())
        reward, fresh = rewards(evidence, policy.measure)
        reward, scale = scaled(reward, memory["scale"])
        average = joined_average(memory["average"], reward, fresh=fresh, rate=policy.rate)
        known = np.isfinite(average)
        exponent = policy.reward_scale * self.exploration(evidence.step - 1, num_tasks)
        tilt = anchored(evidence.prior, exponent * np.where(known, average, 0.0), known)
        tilt = mixed_with_prior(tilt, self.exploration(evidence.step, num_tasks))
        target = tilted(evidence.prior, tilt, Driver("average progress for its exposure", average))
        return Answer(target, {"average": average, "scale": scale})

    def exploration(self, step: int, num_tasks: int) -> float:
        """K · ε at `step`, in [0, 1]; at least the lesser of K · `min_exploration` and 0.45."""
        decayed = float(np.sqrt(num_tasks * np.log(num_tasks) / max(step, 1)))
        return min(1.0, max(decayed, min(num_tasks * self.policy.min_exploration, _LARGEST_FLOOR)))
