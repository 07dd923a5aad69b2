"""Skill-It: train what the tasks with much loss left depend on, by a graph that is given.

    p_i ∝ prior_i · exp(strength · Σ_τ Σ_j A_ij · ℓ_j(τ)),     τ: the last `window` evaluations

    A_ij: what training on task i is worth to task j; A_ii = 1, `prerequisite_effect` where j builds on i, else 0
    ℓ_j:  share of the first held-out loss of task j that is left

Source: Chen et al. (arXiv 2307.14430), algorithm 1 and section 4; window 3, strength 0.5 (LEGO; 0.2 for Natural
Instructions), and the 0.5 that the public code puts for an edge.

Differences: the graph is the operator's knowledge; the paper's ways to learn it (training on pairs of tasks) cost more
than the run. ℓ is relative to the task's first loss, so that tasks of different entropy compare. Anchored to the prior
(paper: uniform). The run begins at the prior (paper: at p_1 ∝ exp(strength · Σ_j A_ij), by the graph alone).

Evidence that is missing: a task never measured keeps its prior share, and counts in others' sums as the mean of those
measured; one not measured this time counts with its last loss.

Known failures: an empty graph only follows the task's own loss, a complete one moves nothing; a wrong edge feeds a
useless prerequisite for as long as the other task's loss stays high (ceiling and step limit bound it). Against
stratified sampling the published final gains are small (99.4 ± 0.2 against 98.5 ± 0.9 on LEGO); the gain is speed.
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import Answer, Array, BeginsAtPrior, Driver, Evidence, Memory, anchored, share_left, tilted
from scheduler.policy_config import SkillItPolicy


@dataclass(frozen=True, slots=True)
class SkillItRule(BeginsAtPrior):
    """See the module docstring. Edge e says that training task `sources[e]` is worth `worth[e]` to task `helped[e]`."""

    policy: SkillItPolicy
    sources: np.ndarray
    helped: np.ndarray
    worth: Array

    def first_memory(self, num_tasks: int, /) -> Memory:
        """`left` holds the shares of loss left of the last evaluations [window, K], the newest last."""
        return {"left": np.full((self.policy.window, num_tasks), np.nan)}

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights from losses and the graph."""
        newest = share_left(evidence.loss, evidence.first_loss)
        left = np.concatenate((memory["left"][1:], newest[None]))
        summed = np.zeros_like(newest)
        for row in left:
            known = np.isfinite(row)
            if known.any():
                summed = summed + np.where(known, row, float(row[known].mean()))
        worth = np.zeros_like(newest)
        np.add.at(worth, self.sources, self.worth * summed[self.helped])
        tilt = anchored(evidence.prior, self.policy.strength * worth, evidence.measured)
        driver = Driver("loss left in it and in what builds on it", np.where(evidence.measured, worth, np.nan))
        return Answer(tilted(evidence.prior, tilt, driver), {"left": left})
