"""The prior: the mixture before any evidence, from the operator's wish and the sizes of the pools.

A pool's size is counted in what weights are shares of: rows, or supervised tokens.
"""

import math

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import ConfigError
from scheduler.setup import EngineSetup, ExplicitPrior, ProportionalPrior, TemperaturePrior, UniformPrior


def prior_weights(setup: EngineSetup) -> NDArray[np.float64]:
    """Probabilities [K]: the configured prior; a task's own `base_weight` replaces its share, its value multiplies it.

    Raises:
        ConfigError: An explicit weight names no task of the run, or no weight is left.
    """
    sizes = np.array(setup.num_rows, dtype=np.float64) * (setup.mean_supervised_tokens or 1.0)
    match setup.mixture.prior:
        case ProportionalPrior():
            shares = sizes
        case UniformPrior():
            shares = np.ones_like(sizes)
        case TemperaturePrior(tau=tau):
            shares = sizes ** (1.0 / tau)
        case ExplicitPrior(weights=weights):
            names = [task.name for task in setup.tasks]
            unknown = sorted(set(weights) - set(names))
            if unknown:
                raise ConfigError(
                    f"mixture.prior.weights names {unknown}, which are not tasks of this run; the tasks are {names}"
                )
            shares = np.array([weights.get(name, 0.0) for name in names])
    shares = shares / max(float(shares.max()), 1e-300)
    shares = shares / max(float(shares.sum()), 1e-300)
    weights = [
        (share if task.base_weight is None else task.base_weight) * task.business_value
        for share, task in zip(shares.tolist(), setup.tasks, strict=True)
    ]
    total = sum(weights)
    if not total > 0.0:
        raise ConfigError(
            "every task's weight is zero (mixture.prior and tasks.*.base_weight); "
            "give at least one task a positive weight"
        )
    if total == math.inf:
        raise ConfigError(
            "the weights of the tasks (mixture.prior, tasks.*.base_weight, tasks.*.business_value) add up to infinity; "
            "only their proportions count: give smaller numbers"
        )
    return np.array(weights) / total


def base_samples(setup: EngineSetup, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples [K] of every task in the whole run under `prior` [K]; above 0, those of a hundredth of 1/K at least."""
    shares = prior / np.array(setup.mean_supervised_tokens or np.ones(len(prior)))
    shares = np.maximum(shares / shares.sum(), 0.01 / len(prior))
    return shares * setup.total_steps * setup.global_batch_size
