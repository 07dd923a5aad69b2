"""How many probes each task gets in the next evaluation, so that the next decision is as sure as the budget allows.

Per task i: w weight, s sensitivity of its logit to its score (`scheduler.probe_planning`), q = p(1 - p) variance of one
probe, P variance of the score's level before the next evaluation (Kalman, `scheduler.trend`; it grows while a task is
not measured), n probes. Measuring leaves the level with variance 1 / (1/P + n/q), so the decision's error is

    L(n) = Σ c_i / (1/P_i + n_i/q_i),      c_i = w_i (1 - w_i) s_i²

the expected KL divergence, to second order and up to a factor, between the weights decided and those that exact scores
would give (Fisher information of a softmax, cross terms left out). L is convex. Subject to Σ n_i = budget and
lower_i <= n_i <= upper_i it is least where every task within its bounds gains equally from one more probe:

    n_i = clip(√(c_i q_i) · μ - q_i / P_i, lower_i, upper_i)          one μ for all tasks, by bisection

Without memory (P infinite) this is Neyman's optimal allocation n ∝ √c · √q (J. Neyman, JRSS 97, 1934); the marginal
gain is the knowledge gradient of a normal belief (Frazier, Powell, Dayanik, SIAM J. Control Optim. 47, 2008), taken for
the whole decision instead of for the best arm.

A measured task gets at least `min_probes`. Where `max_gap_evaluations` is above 1, one that deserves less is left out,
until then at most: no task is forgotten, however sure the engine is of it. Together the measured tasks hold at least
the share of the prior that the policy asks for (`min_measured_ratio`), so leaving tasks out never holds a plan.

Probes of a task are taken in one fixed order, and n of them are its first n: evaluations share their items. Losses are
averaged over the first `min_probes` only, which every evaluation has in common, so that they stay comparable.

Not here: who fetches the probes (`evalsvc.actor`), and their order (`evalsvc.evaluator`).
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from scheduler.config_model import ConfigModel

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_HALVINGS = 80
_LEAST_IMPORTANCE = 1e-9


class UniformAllocation(ConfigModel):
    """Every task is measured at every evaluation, on equally many probes.

    Attributes:
        probes_per_task: How many of them; null: all that were held out for the task.
    """

    type: Literal["uniform"] = "uniform"
    probes_per_task: int | None = Field(default=None, ge=1)


class AdaptiveAllocation(ConfigModel):
    """Probes go where they make the next decision surer (see `scheduler.allocation`).

    Attributes:
        probes_per_task: Budget of an evaluation: so many probes times the number of tasks, shared out anew each time.
        min_probes: Probes of a task that is measured at all; its loss is averaged over these.
        max_gap_evaluations: Every task is measured at least once in so many evaluations; 1 leaves none out. More than
            1 saves the fixed cost of measuring a task at all, and makes decisions worse: what is not measured does not
            cool.
    """

    type: Literal["adaptive"] = "adaptive"
    probes_per_task: int = Field(default=16, ge=1)
    min_probes: int = Field(default=4, ge=1)
    max_gap_evaluations: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _budget_covers_the_least(self) -> "AdaptiveAllocation":
        if self.min_probes > self.probes_per_task:
            raise ValueError(
                f"min_probes {self.min_probes} is more than probes_per_task {self.probes_per_task}, the mean of all "
                "tasks; lower it"
            )
        return self


AllocationConfig = Annotated[UniformAllocation | AdaptiveAllocation, Field(discriminator="type")]


class Allocation(NamedTuple):
    """Probes per task in an evaluation, 0 for a task left out; empty: all probes of all tasks.

    The held-out loss is the mean over the first `num_loss_probes` of them; 0: over all.
    """

    num_probes: tuple[int, ...] = ()
    num_loss_probes: int = 0


ALL_PROBES = Allocation()


@dataclass(frozen=True, slots=True)
class AllocationFacts:
    """What the next evaluation is planned on, arrays [K].

    Attributes:
        importance: c of the module docstring, >= 0; where all are zero, probes go by uncertainty alone.
        probe_variance: q, in (0, 1/4].
        level_variance: P, > 0.
        gap_evaluations: Evaluations since the task was measured last, that one not counted; infinite if never.
        prior: Shares of the prior.
        available: Probes held out for the task.
    """

    importance: Array
    probe_variance: Array
    level_variance: Array
    gap_evaluations: Array
    prior: Array
    available: Array


def uniform(num_probes: int, available: Array) -> tuple[int, ...]:
    """The first `num_probes` of every task, as far as it has so many."""
    return tuple(int(count) for count in np.minimum(available, num_probes))


def allocate(config: AdaptiveAllocation, facts: AllocationFacts, *, covered_ratio: float) -> tuple[int, ...]:
    """Probes per task [K] of the next evaluation; they sum to the budget, or to all probes where it exceeds them.

    Args:
        config: Budget and bounds.
        facts: Of every task.
        covered_ratio: Least share of the prior that the measured tasks hold together.
    """
    num_tasks = len(facts.available)
    least = np.minimum(float(config.min_probes), facts.available)
    budget = min(float(config.probes_per_task * num_tasks), float(facts.available.sum()))
    due = facts.gap_evaluations + 1.0 >= config.max_gap_evaluations
    wished = _share_out(facts, np.where(due, least, 0.0), facts.available, budget)
    measured = _measured(facts, wished, due, least=least, budget=budget, covered_ratio=covered_ratio)
    available = np.where(measured, facts.available, 0.0)
    settled = bool((due & measured).all())
    shares = wished if settled else _share_out(facts, np.where(measured, least, 0.0), available, budget)
    return _whole(shares, available, int(budget))


def _measured(
    facts: AllocationFacts, wished: Array, due: Mask, *, least: Array, budget: float, covered_ratio: float
) -> Mask:
    """Tasks [K] to measure: those due, then by wish, as many as their least probes fit, and enough to be heard."""
    first_gain = facts.importance * facts.level_variance**2 / facts.probe_variance
    order = np.lexsort((np.arange(len(due)), -first_gain, -wished, ~due))
    fits = np.cumsum(least[order]) <= budget + 1e-9
    wanted = due[order] | (wished[order] >= 0.5 * least[order])
    heard = np.cumsum(facts.prior[order]) - facts.prior[order] < covered_ratio
    spends = np.cumsum(facts.available[order]) - facts.available[order] < budget
    chosen = np.zeros_like(due)
    chosen[order] = fits & (wanted | heard | spends)
    return chosen


def _share_out(facts: AllocationFacts, lower: Array, upper: Array, budget: float) -> Array:
    """The least of L between the bounds for real n [K]; needs sum(lower) <= budget."""
    largest = float(facts.importance.max())
    importance = np.maximum(facts.importance / largest, _LEAST_IMPORTANCE) if largest > 0.0 else np.ones_like(lower)
    rate = np.sqrt(importance * facts.probe_variance)
    known = facts.probe_variance / facts.level_variance
    low, high = 0.0, float(((upper + known) / rate).max())
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.clip(rate * middle - known, lower, upper).sum() < budget else (low, middle)
    return np.clip(rate * low - known, lower, upper)


def _whole(shares: Array, upper: Array, budget: int) -> tuple[int, ...]:
    """Whole numbers near `shares` [K], none above `upper`, that sum to the budget as far as `upper` lets them."""
    counts = np.floor(shares + 1e-9)
    left = min(float(budget), float(upper.sum())) - float(counts.sum())
    while left >= 1.0:
        room = counts < upper
        order = np.lexsort((np.arange(len(shares)), counts - shares, ~room))[: min(int(left), int(room.sum()))]
        counts[order] += 1.0
        left -= len(order)
    return tuple(int(count) for count in counts)
