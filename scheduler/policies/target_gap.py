"""Target gap: weight by what a task still has to go to its target, at once and without memory.

    gap_k = (target - level) / target                  the filtered score against the card's `target_score`
    gap_k = (L - L_target) / (L_first - L_target)      where a loss to reach is given
    p_k ∝ prior_k · exp(strength · gap_k · learnability_k)           gaps clipped to [0, 1]

Source: the statistic is the excess over a per-domain reference of Sheared LLaMA's dynamic batch loading (arXiv
2310.06694, algorithm 1) and of DoReMi (arXiv 2305.10429); the reference is the operator's goal: a score, or the loss of
a single-task run.

Differences: those multiply the weights up evaluation after evaluation (an integral controller, here `group_dro`); this
is a proportional one: a task at its target is back at its prior, and no history can wind up. The excess is relative to
the task's own way instead of in nats, so that tasks of different entropy compare. Learnability damps a task whose
exposure brings no progress.

Evidence that is missing: a task never measured keeps its prior share; one not measured this time keeps its last gap.

Known failures: an unreachable target draws weight until learnability falls (the ceiling and the step limit bound it); a
wrong reference is as bad as a wrong goal. A reference at or above the first loss counts as reached.
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import Answer, Array, BeginsAtPrior, Driver, Evidence, Memory, Memoryless, anchored, tilted
from scheduler.policy_config import TargetGapPolicy


@dataclass(frozen=True, slots=True)
class TargetGapRule(BeginsAtPrior, Memoryless):
    """See the module docstring. `target_losses` are nats [K], NaN for a task judged by its score."""

    policy: TargetGapPolicy
    target_losses: Array

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights from gaps."""
        gap = np.where(np.isnan(self.target_losses), evidence.gap, way_left(evidence, self.target_losses))
        gap = np.where(evidence.measured, gap * evidence.learnability, np.nan)
        tilt = self.policy.strength * np.where(evidence.measured, gap, 0.0)
        driver = Driver("gap to target, as far as it can be learnt", gap)
        return Answer(tilted(evidence.prior, anchored(evidence.prior, tilt, evidence.measured), driver), memory)


def way_left(evidence: Evidence, references: Array) -> Array:
    """(L - reference) / (L_first - reference) [K] clipped to [0, 1]; 0 where the first loss was not above it."""
    way = np.maximum(evidence.first_loss - references, 0.0)
    left = np.clip(evidence.loss - references, 0.0, way)
    return np.where(way > 0.0, left / np.maximum(way, 1e-300), 0.0)
