"""The probes of the next evaluation, from the engine's state: how unsure each score is, and what its error would cost.

The probes are shared out in `scheduler.allocation`. Cost is the sensitivity of the task's logit to its score.

For the heat policy (`scheduler.heat`, `scheduler.policies.heat`), with W the sum of the component weights, t the target
score, b the best level, u the long-tail boost (0 for other tiers) and ℓ the learnability:

    |∂ logit / ∂ level| = ℓ · [strength · (1 - keep) / W · (w_gap · short + w_decay · fallen) + u · short]
    short = P(level < t) / t,   fallen = P(level < b) / max(b, 0.1)

Gap and decay have a kink where the level passes the target or its best; the probabilities, of a normal level with its
Kalman variance, smooth it: a task that is surely beyond its target moves nothing, one that may be below it does.

Other policies read losses or gains whose link to the score is not known; every task's logit counts alike there, and
probes go by weight and uncertainty.
"""

import numpy as np
from scipy.special import ndtr

from scheduler.allocation import AdaptiveAllocation, Allocation, AllocationFacts, UniformAllocation, allocate, uniform
from scheduler.heat import Array, HeatTracker
from scheduler.policies import History
from scheduler.policies.base import Mask
from scheduler.policy_config import AdaptivePolicy, HeatPolicy, Policy
from scheduler.setup import EngineSetup

_UNKNOWN_VARIANCE = 1.0 / 12.0
_LEAST_PROBE_VARIANCE = 0.01


def first_probes(setup: EngineSetup) -> Allocation:
    """The probes of the first evaluation: equally many of every task."""
    config = setup.mixture.allocation
    match config:
        case UniformAllocation(probes_per_task=None):
            return Allocation()
        case UniformAllocation(probes_per_task=int(count)):
            return Allocation(uniform(count, np.array(setup.num_probes)))
        case AdaptiveAllocation():
            return Allocation(uniform(config.probes_per_task, np.array(setup.num_probes)), config.min_probes)
    raise AssertionError(config)


def next_probes(
    setup: EngineSetup,
    policy: Policy,
    heat: HeatTracker,
    history: History,
    *,
    weights: Array,
    prior: Array,
    long_tail: Mask,
) -> Allocation:
    """The probes of the evaluation after the one just decided on, under the `weights` [K] of the new plan."""
    config = setup.mixture.allocation
    if isinstance(config, UniformAllocation):
        return first_probes(setup)
    trend = heat.trend
    variance = np.where(trend.seen, trend.predicted_level_variance(), _UNKNOWN_VARIANCE)
    level = np.where(trend.seen, np.clip(trend.level, 0.0, 1.0), 0.5)
    solved = level + (0.5 - level) * np.minimum(4.0 * variance, 1.0)
    gaps = history.evaluations - history.measured_at
    facts = AllocationFacts(
        importance=weights * (1.0 - weights) * sensitivity(policy, heat, long_tail) ** 2,
        probe_variance=np.maximum(solved * (1.0 - solved), _LEAST_PROBE_VARIANCE),
        level_variance=variance,
        gap_evaluations=np.where(np.isnan(gaps), np.inf, gaps),
        prior=prior,
        available=np.array(setup.num_probes, dtype=np.float64),
    )
    covered = policy.min_measured_ratio if isinstance(policy, AdaptivePolicy) else 0.0
    return Allocation(allocate(config, facts, covered_ratio=covered), config.min_probes)


def sensitivity(policy: Policy, heat: HeatTracker, long_tail: Mask) -> Array:
    """|∂ logit / ∂ level| [K] of every task; 1 where it is not known. `long_tail` are the tasks of that tier."""
    if not isinstance(policy, HeatPolicy):
        return np.ones(len(long_tail))
    config, state, trend = heat.config, heat.state, heat.trend
    spread = np.sqrt(np.maximum(trend.level_variance, 1e-12))
    level = np.where(trend.seen, trend.level, 0.5 * heat.target_scores)
    short = ndtr((heat.target_scores - level) / spread) / heat.target_scores
    fallen = ndtr((state.best_level - level) / spread) / np.maximum(state.best_level, 0.1)
    newest = 1.0 - config.kept_ratio
    moved = config.gap_weight * short + config.decay_weight * fallen
    through_heat = policy.strength * newest * moved / config.total_weight
    return heat.learnability.value * (through_heat + policy.long_tail_boost * long_tail * short)
