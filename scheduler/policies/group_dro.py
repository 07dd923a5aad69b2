"""Group DRO: multiplicative weights raise the task that is worst off, as long as it is.

    q_k ← q_k · exp(rate · learnability_k · (badness_k + C / √rows_k)),   normalised
    q   ← (1 - anchor) · q + anchor · prior

    badness = 1 - score                                          (error)
            = (L - L_reference) / (L_first - L_reference)        (loss; clipped to [0, 2])

Source: Sagawa et al. (arXiv 1911.08731), algorithm 1, and its group adjustment C / √n; mixing with a fixed mixture as
DoReMi (arXiv 2305.10429) does with the uniform one.

Differences: the paper's badness is the raw training loss of a group, which is not comparable between tasks and bottoms
out at different entropies: here it is the held-out error, or the excess of the held-out loss over a reference, relative
to where the task began. The paper updates every step with η = 0.01; the default 0.5 is that times 50 steps between
evaluations. It weighs losses; here tasks are sampled by q. q starts at the prior and leans back to it (DoReMi: 0.001 a
step towards uniform). Learnability damps the update of a task whose exposure brings no progress.

Evidence that is missing: a task not measured this time keeps its q against the others known; one never measured keeps
its prior share.

Known failures: a task of noise is the worst for ever (learnability, the anchor and the ceiling stop its rise); without
regularisation the worst training loss says nothing of the worst test loss, hence held-out badness and the overfit
guard.
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import (
    Answer,
    Array,
    BeginsAtPrior,
    Driver,
    Evidence,
    Memory,
    anchored,
    mixed_with_prior,
    tilted,
)
from scheduler.policy_config import GroupDroPolicy


@dataclass(frozen=True, slots=True)
class GroupDroRule(BeginsAtPrior):
    """See the module docstring. `references` are nats [K]."""

    policy: GroupDroPolicy
    references: Array

    def first_memory(self, num_tasks: int, /) -> Memory:
        """`tilt` is log(q / prior) [K], NaN for a task never measured."""
        return {"tilt": np.full(num_tasks, np.nan)}

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights q."""
        policy, badness = self.policy, self.badness(evidence)
        known = np.isfinite(memory["tilt"]) | evidence.fresh
        adjusted = badness + policy.size_adjustment / np.sqrt(evidence.num_rows)
        added = np.where(evidence.fresh, policy.rate * evidence.learnability * adjusted, 0.0)
        tilt = anchored(evidence.prior, np.nan_to_num(memory["tilt"]) + added, known)
        tilt = mixed_with_prior(tilt, policy.anchor)
        label = "error" if policy.badness == "error" else "share of the first loss left above its reference"
        target = tilted(evidence.prior, tilt, Driver(label, badness))
        return Answer(target, {"tilt": np.where(known, tilt, np.nan)})

    def badness(self, evidence: Evidence) -> Array:
        """How badly off each task is [K], comparable between tasks; NaN for one never measured."""
        if self.policy.badness == "error":
            return 1.0 - evidence.score
        way = np.maximum(evidence.first_loss - self.references, 1e-12)
        return np.maximum(2.0 * np.minimum(0.5 * (evidence.loss - self.references), way) / way, 0.0)
