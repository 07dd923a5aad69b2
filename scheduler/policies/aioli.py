"""Aioli as a corrector: tilt another policy's target by what each task's share is estimated to do for all tasks.

    d_i = Σ_j A_ij · s_j + noise      d: relative fall of task i's held-out loss, s: realised shares of the interval
    Ā   = (A - min A) / Σ (A - min A)
    p_j ∝ base_j · exp(strength · Σ_i Ā_ij)

A is found by least squares over the evaluations so far, older ones forgotten by the factor `forgetting` at each new
one: by default 0.9 up to five tasks, then 1 - 3/K², so that an estimate of K effects a task counts enough of them. The
estimate has a covariance, and the gate is closed, leaving the base policy's target as it is, until more evaluations
count than there are tasks and the largest difference of the column sums Σ_i A_ij between tasks is `min_z` times the
largest standard error among them.

Source: Chen et al. (arXiv 2411.05735), algorithm 1 and its use on top of other methods (section 6); strength as its η
of 0.1-0.2.

Differences: Aioli trains short probes on smoothed one-hot mixtures and evaluates after each; here A comes from the
moves that the base policy makes anyway, which costs nothing and finds nothing while nothing moves: over a static base
the gate stays closed but for the guards' first moves. No correction is carried over: each starts from the base's
target, so no two weights are moved against each other by more than exp(strength), as with the paper's moving average.
The gate is ours: mixing laws fit instruction tuning badly (published R² 0.42).

Evidence that is missing: an evaluation that did not measure all tasks with a prior, now and the time before, is not
used. An allocation of probes that leaves tasks out would leave nothing to estimate from, and is refused: where tasks
are measured at different times, their falls belong to shares of different intervals.

Known failures: gains shrink as training goes on, which forgetting follows late, the later the more tasks there are; the
gate stays closed in a run of no more evaluations with a gain than tasks (`scheduler.policies.notes` says so); a share
that never moves cannot be told from the rest.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scheduler.policies.base import Answer, Array, Driver, Evidence, Memory, Rule, Target
from scheduler.policies.rewards import gains
from scheduler.policy_config import AioliPolicy

_LEAST_CONDITION = 1e-9


class Effects(NamedTuple):
    """Estimated effects A [target, source] and the standard errors [source] of its column sums about their mean."""

    matrix: Array
    standard_errors: Array


def default_forgetting(num_tasks: int) -> float:
    """The factor where the policy states none; of the 19 gains of a default run more count than tasks, up to 16."""
    return max(0.9, 1.0 - 3.0 / num_tasks**2)


def counted_evaluations(forgetting: float, num_gains: float = np.inf) -> float:
    """How many evaluations the estimate counts, older ones in part, after `num_gains` of them."""
    if forgetting == 1.0:
        return num_gains
    return (1.0 - forgetting**num_gains) / (1.0 - forgetting)


@dataclass(frozen=True, slots=True)
class AioliRule:
    """See the module docstring. `forgetting` is the factor in force, which the policy may leave open."""

    policy: AioliPolicy
    base: Rule
    forgetting: float

    def first_weights(self, prior: Array, /) -> Array:
        """Those of the base."""
        return self.base.first_weights(prior)

    def first_memory(self, num_tasks: int, /) -> Memory:
        """Sums over evaluations: of s sᵀ, of d sᵀ, of (Σ d)², and of ones."""
        square = np.zeros((num_tasks, num_tasks))
        return {"shares": square, "falls": square, "total_fall": np.zeros(()), "points": np.zeros(())}

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """The base's target, corrected while the gate is open."""
        memory = self._add_point(evidence, memory)
        outcome = self.base.step(evidence, {}).outcome
        effects = self.estimate(memory, evidence.prior > 0.0)
        if effects is None or not isinstance(outcome, Target):
            return Answer(outcome, memory)
        sums = effects.matrix.sum(axis=0)
        if np.ptp(sums) < self.policy.min_z * float(effects.standard_errors.max()) or np.ptp(sums) == 0.0:
            return Answer(outcome, memory)
        above = effects.matrix - effects.matrix.min()
        tilt = np.zeros(len(evidence.prior))
        tilt[evidence.prior > 0.0] = self.policy.strength * above.sum(axis=0) / above.sum()
        shown = np.full(len(evidence.prior), np.nan)
        shown[evidence.prior > 0.0] = sums
        driver = Driver("estimated effect of its share on all tasks, beside the base policy", shown)
        return Answer(Target(outcome.logits + tilt, driver), memory)

    def _add_point(self, evidence: Evidence, memory: Memory) -> Memory:
        gain, known = gains(evidence, "loss")
        usable = known & (evidence.span == 1.0) & (evidence.total_exposure > 0.0)
        if not usable[evidence.prior > 0.0].all():
            return memory
        fall = np.where(evidence.prior > 0.0, gain, 0.0)
        share = np.where(usable, evidence.exposure, 0.0) / np.where(usable, evidence.total_exposure, 1.0)
        added = {
            "shares": np.outer(share, share),
            "falls": np.outer(fall, share),
            "total_fall": fall.sum() ** 2,
            "points": 1.0,
        }
        return {name: self.forgetting * memory[name] + added[name] for name in memory}

    def estimate(self, memory: Memory, counted: np.ndarray) -> Effects | None:
        """Effects among the tasks in `counted` [K], or None while the evaluations cannot tell them apart."""
        num_tasks = int(counted.sum())
        spare = float(memory["points"]) - num_tasks
        if num_tasks < 2 or spare <= 0.0:
            return None
        shares, falls = memory["shares"][np.ix_(counted, counted)], memory["falls"][np.ix_(counted, counted)]
        spectrum = np.linalg.eigvalsh(shares)
        if spectrum[0] <= _LEAST_CONDITION * spectrum[-1]:
            return None
        inverse = np.linalg.inv(shares)
        matrix = falls @ inverse
        residual = max(float(memory["total_fall"]) - float(matrix.sum(axis=0) @ falls.sum(axis=0)), 0.0)
        centre = np.eye(num_tasks) - 1.0 / num_tasks
        variances = np.diag(centre @ inverse @ centre) * residual / spare
        return Effects(matrix, np.sqrt(np.maximum(variances, 0.0)))
