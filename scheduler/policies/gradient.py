"""Gradient statistics: raise the tasks whose gradient is large beside its noise, or points where the model is going.

    q_k ← q_k · exp(rate · learnability_k · x_k),   normalised, for every task measured anew
    q   ← (1 - anchor) · q + anchor · prior

    pike        x_k = (|g_k|² - noise · σ_k² / 2B) / mean over the known tasks of (|g|² + σ² / 2B)
    alignment   x_k = ⟨g_k, -u⟩ / mean over the known tasks of |⟨g, -u⟩|

with g the expected gradient of the mean loss per supervised token, σ² the variance of a single row's gradient, B the
samples of a step, u the update the optimiser applied; all measured by `train.influence`. x is clipped to [-2, 2].

Source: PiKE (Li et al., arXiv 2502.06244): w ← w · exp(ζ1 |g|² - ζ2 / 2b · σ²), which minimises a bound on the loss
after the next step where gradients do not conflict. R&B (Ge et al., arXiv 2505.00358): shares by the Gram matrix of the
domains' gradients met in training; the row of that matrix times the shares in use is the inner product of a domain's
gradient with the whole one, for which `alignment` takes the update that was really applied.

Differences: the papers measure every domain at every update, from the training batch; here a few tasks in turn, on rows
of their own, so a task moves when it has been measured anew (PiKE: every T0 steps). |g|² is the inner product of two
half-batch gradients, free of the luck of the rows. Statistics are relative to the mean of all tasks, so that `rate`
does not depend on the model; ζ1 is then the rate and ζ2 / ζ1 is `noise`. R&B solves for the shares with an entropy term
and regroups the data; here the shares move by multiplication, from the prior, and lean back to it. Learnability damps.

Evidence that is missing: no weight moves until the tasks measured so far hold `min_measured_ratio` of the prior; a task
never measured keeps its prior share. A task of one row has no two halves and is never measured.

Known failures: a gradient is large where a task is new or its answers short, not where it is worth most; random labels
have a large one (the noise term and learnability stop it); what is aligned with the present update is what leads
already, so `alignment` feeds the leader (anchor, ceiling and step limit bound it).
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
    thin_evidence,
    tilted,
)
from scheduler.policy_config import GradientPolicy

_LARGEST = 2.0


@dataclass(frozen=True, slots=True)
class GradientRule(BeginsAtPrior):
    """See the module docstring. `batch_size` is in samples a step."""

    policy: GradientPolicy
    batch_size: int

    def first_memory(self, num_tasks: int, /) -> Memory:
        """`tilt` is log(q / prior) [K], NaN for a task never measured."""
        return {"tilt": np.full(num_tasks, np.nan)}

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights q; a hold until enough has been measured."""
        policy, known = self.policy, np.isfinite(evidence.gradient_squared)
        what = "the tasks whose gradient has been measured"
        held = thin_evidence(evidence.prior, known, min_ratio=policy.min_measured_ratio, what=what)
        if held is not None:
            return Answer(held, memory)
        statistic = self.statistic(evidence)
        added = policy.rate * evidence.learnability * np.clip(statistic, -_LARGEST, _LARGEST)
        fresh = known & evidence.gradient_fresh
        tilt = np.nan_to_num(memory["tilt"]) + np.where(fresh, added, 0.0)
        tilt = mixed_with_prior(anchored(evidence.prior, tilt, known), policy.anchor)
        names = {"pike": "squared gradient norm less its noise", "alignment": "pull along the applied update"}
        driver = Driver(f"{names[policy.form]}, relative", statistic)
        return Answer(tilted(evidence.prior, tilt, driver), {"tilt": np.where(known, tilt, np.nan)})

    def statistic(self, evidence: Evidence) -> Array:
        """x [K] before it is clipped; NaN for a task never measured."""
        if self.policy.form == "alignment":
            return _relative(evidence.gradient_pull, np.abs(evidence.gradient_pull))
        squared, noise = evidence.gradient_squared, evidence.gradient_variance / (2.0 * self.batch_size)
        return _relative(squared - self.policy.noise * noise, np.maximum(squared, 0.0) + noise)


def _relative(values: Array, sizes: Array) -> Array:
    known = np.isfinite(sizes)
    mean = float(sizes[known].mean()) if known.any() else 0.0
    return values / mean if mean > 0.0 else np.where(known, 0.0, np.nan)
