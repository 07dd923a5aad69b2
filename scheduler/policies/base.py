"""What every policy sees and what it may answer. Per-task arrays have shape [K]."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Statistics in hand when a decision is made.

    Attributes:
        prior: Probability per task before any evidence; zero where the user wants none.
        heat: In [0, 1].
        learnability: In [0, 1]; below 1 where exposure has brought no progress.
        gap: Shortfall of the score against the task's target, in [0, 1].
        long_tail: Tasks of tier `long_tail`.
        measured: Tasks with at least one signal so far.
        fresh: Number of tasks with a signal in this very evaluation.
    """

    prior: Array
    heat: Array
    learnability: Array
    gap: Array
    long_tail: Mask
    measured: Mask
    fresh: int


@dataclass(frozen=True, slots=True)
class Target:
    """Weights asked for, as unnormalised log-probabilities [K]."""

    logits: Array


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the previous weights, for this reason."""

    reason: str


def log_prior(prior: Array) -> Array:
    """Log of the prior [K], with a finite value far below any other where it is zero."""
    return np.log(np.maximum(prior, 1e-30))
