"""Adaptive data optimisation (ADO): follow the slope that each task's own scaling law has now.

    y_k(n) ≈ E_k + A_k · (1 + n / n0)^(-α_k)         y: share of the task's first loss left, n: what was served of it
    v_k = α_k (y_k - E_k) / (n_k + n0)               fall of y per unit served that the law expects now
    h_k ← (1 - credit_rate) · h_k + credit_rate · (share of exposure)
    ρ_k ∝ prior_k · (h_k / prior_k)^credit_power · v_k
    p   = mixing · ρ + (1 - mixing) · p̄,             p̄: running mean of all p, beginning with the prior

Source: Jiang et al. (arXiv 2410.11820) and its public code: credit 0.1, power 0.5, mixing 0.1, α from 0.05 to 0.8.

Differences: the code fits log-losses by L-BFGS from 512 starts with a penalty that forbids an irreducible loss below
1.65 nats, which no fine-tuning task obeys: here E is only kept at or above 0. α is one of 0.1, 0.2, … 0.8, and A and
E are solved by least squares in closed form from running sums, with no window to remember. The law is that of the
task's own samples, offset by n0, since a fine-tuned model does not begin at random. Where weights are shares of tokens,
n counts supervised tokens, and n0 the tokens of `offset_samples` mean rows of the task. Losses are relative to the
task's first one. h is relative to the prior, so that a mixture without evidence is the prior. The floor of 0.01 is the
guards'.

Evidence that is missing: a task with fewer than `min_points` measurements keeps its prior share in ρ; one not measured
this time keeps its law.

Known failures: E and α are hardly identifiable over less than a decade of n, and a fine-tuning run seldom has more; a
falling learning rate looks like an irreducible loss; rising losses (overfitting) give A = 0, the least preference. A
baseline, not a recommendation.
"""

from dataclasses import dataclass

import numpy as np

from scheduler.policies.base import (
    Answer,
    Array,
    BeginsAtPrior,
    Driver,
    Evidence,
    Mask,
    Memory,
    anchored,
    share_left,
    tilted,
)
from scheduler.policy_config import AdoPolicy

_EXPONENTS = 0.1 * np.arange(1.0, 9.0)
_LEAST_PREFERENCE = 1e-3
_LEAST_SLOPE = 1e-6
_LARGEST_LOG = 600.0
_LEAST_PRIOR = 1e-9


@dataclass(frozen=True, slots=True)
class AdoRule(BeginsAtPrior):
    """See the module docstring. `offset` is n0 [K] in `unit`: samples or supervised tokens, as `Evidence.served`."""

    policy: AdoPolicy
    offset: Array
    unit: str

    def first_memory(self, num_tasks: int, /) -> Memory:
        """Sums over measurements [K], with x = (1 + n/n0)^(-α) in them [8, K]; h and p̄ over the prior."""
        task, law = np.zeros(num_tasks), np.zeros((len(_EXPONENTS), num_tasks))
        return {
            "points": task,
            "y": task,
            "x": law,
            "xx": law,
            "xy": law,
            "credit": np.ones(num_tasks),
            "mean": np.ones(num_tasks),
            "targets": np.ones(()),
        }

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Target weights p."""
        policy, law = self.policy, self.law(evidence.served)
        memory = self._add_point(evidence, dict(memory), law)
        known = (memory["points"] >= policy.min_points) & (evidence.prior > 0.0)
        speed = np.where(known, self.speed(evidence.served, law, memory), np.nan)
        preferred = np.exp(np.minimum(self._preference(evidence.prior, speed, memory["credit"], known), _LARGEST_LOG))
        ratio = policy.mixing * preferred + (1.0 - policy.mixing) * memory["mean"]
        memory["targets"] = memory["targets"] + 1.0
        memory["mean"] = memory["mean"] + (ratio - memory["mean"]) / memory["targets"]
        driver = Driver(f"fall of the loss its curve expects from 1000 more {self.unit}", 1000.0 * speed)
        return Answer(tilted(evidence.prior, np.log(ratio), driver), memory)

    def _preference(self, prior: Array, speed: Array, credit: Array, known: Mask) -> Array:
        """log(ρ / prior) [K]; all equal where no law expects a fall."""
        fastest = float(np.nan_to_num(speed).max())
        relative = np.where(known, speed, 1.0) / fastest if fastest > 0.0 else np.ones_like(speed)
        preference = np.log(np.maximum(relative, _LEAST_PREFERENCE)) + self.policy.credit_power * np.log(credit)
        return anchored(prior, preference, known)

    def _add_point(self, evidence: Evidence, memory: dict[str, Array], law: Array) -> dict[str, Array]:
        """Add this evaluation to the sums; `memory` is a copy."""
        loss, first = evidence.loss, evidence.first_loss
        if self.policy.measure == "train_loss":
            loss, first = evidence.train_loss, evidence.first_train_loss
        y = share_left(loss, first)
        fresh = np.isfinite(y) & (evidence.fresh if self.policy.measure == "loss" else True)
        y, x = np.where(fresh, y, 0.0), law * fresh
        sums = {"points": fresh * 1.0, "y": y, "x": x, "xx": x * x, "xy": x * y}
        memory |= {name: memory[name] + added for name, added in sums.items()}
        exposed = evidence.fresh & (evidence.total_exposure > 0.0) & (evidence.prior > 0.0)
        exposure, total = np.where(exposed, evidence.exposure, 0.0), np.where(exposed, evidence.total_exposure, 1.0)
        share = exposure / total / np.maximum(evidence.prior, _LEAST_PRIOR)
        rate = np.where(exposed, self.policy.credit_rate, 0.0)
        memory["credit"] = np.clip((1.0 - rate) * memory["credit"] + rate * share, 1e-6, 1e6)
        return memory

    def law(self, served: Array) -> Array:
        """x = (1 + n / n0)^(-α) [8, K]; the exponents are the multiples of the first one."""
        first = (1.0 + served / self.offset) ** -_EXPONENTS[0]
        return np.multiply.accumulate(np.broadcast_to(first, (len(_EXPONENTS), len(first))), axis=0)

    def speed(self, served: Array, law: Array, memory: Memory) -> Array:
        """Fall per unit served [K] that the best-fitting law expects now; 0 where the loss does not fall."""
        points = np.maximum(memory["points"], 1.0)
        mean_y, mean_x = memory["y"] / points, memory["x"] / points
        scatter = memory["xx"] - memory["x"] * mean_x
        covariance = memory["xy"] - memory["x"] * mean_y
        slope = covariance / np.maximum(scatter, 1e-12)
        slope = np.where((scatter > 1e-9) & (slope > _LEAST_SLOPE), slope, 0.0)
        through_zero = memory["xy"] / np.maximum(memory["xx"], 1e-12)
        at_zero = slope * mean_x > mean_y
        explained = np.where(at_zero, through_zero * memory["xy"] - memory["y"] * mean_y, slope * covariance)
        best = (np.argmax(explained, axis=0), np.arange(len(served)))
        fall = np.where(at_zero[best], through_zero[best], slope[best]) * law[best]
        return _EXPONENTS[best[0]] * fall / (served + self.offset)
