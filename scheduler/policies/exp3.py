"""Exp3.S: an adversarial bandit whose arms are the tasks and whose reward is what a task learns for its exposure.

    r̂_k = r_k / (K · s_k), scaled to [-1, 1]        gain r_k made with the share s_k of exposure (`rewards`)
    w_k ← w_k · exp(rate · r̂_k),                     normalised
    w   ← (1 - share) · w + share · prior
    p   = (1 - exploration) · w + exploration · prior

Source: Exp3 and Exp3.S of Auer et al. (SIAM J. Comput. 32:1, 2002), used for curricula by Graves et al. (arXiv
1704.03003, section 2.2; its ε 0.05 is the default).

Differences: an interval of training plays all tasks at once, in proportion to what was really served, so that every
task has a reward, importance-weighted by its realised share instead of by the probability of one draw; this is the sum
over the draws of an interval. The reward is a relative fall of the loss or a gain in score, never a raw loss, which
would pour data into noise; it is scaled by the largest absolute reward so far, forgotten by a tenth an evaluation
(Graves: by quantiles of a reservoir). The bandit starts at the prior and shares and explores towards it (papers:
towards uniform). `share`, their α, stays the same over the run (Graves: 1/t, which shares less and less).

Evidence that is missing: a task without two measurements, or without exposure between them, has no reward and keeps its
weight against the others; one never rewarded keeps its prior share.

Known failures: a task on a plateau before its jump is starved, a noisy probe looks like progress (floor and step limit
bound both); rewards from a small share are noisy, their clipping to ±1 before scaling is the only variance control;
published gains are small when the evaluation is held out (Collier & Beel 2018).
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import Answer, BeginsAtPrior, Driver, Evidence, Memory, anchored, mixed_with_prior, tilted
from scheduler.policies.rewards import rewards, scaled
from scheduler.policy_config import Exp3Policy


@dataclass(frozen=True, slots=True)
class Exp3Rule(BeginsAtPrior):
    """See the module docstring."""

    policy: Exp3Policy

    def first_memory(self, num_tasks: int, /) -> Memory:
        """`tilt` is log(w / prior) [K], NaN for a task never rewarded; `reward` the last one; `scale` a number."""
        return {
            "tilt": np.full(num_tasks, np.nan),
            "reward": np.full(num_tasks, np.nan),
            "scale": np.zeros(()),
        }

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights p."""
        policy = self.policy
        reward, fresh = rewards(evidence, policy.measure)
        reward, scale = scaled(reward, memory["scale"])
        known = np.isfinite(memory["tilt"]) | fresh
        tilt = anchored(evidence.prior, np.nan_to_num(memory["tilt"]) + policy.rate * reward, known)
        tilt = mixed_with_prior(tilt, policy.share)
        last_reward = np.where(fresh, reward, memory["reward"])
        driver = Driver("progress for its exposure", last_reward)
        target = tilted(evidence.prior, mixed_with_prior(tilt, policy.exploration), driver)
        return Answer(target, {"tilt": np.where(known, tilt, np.nan), "reward": last_reward, "scale": scale})
