"""Exact projection onto the bounded simplex, in log space.

minimise KL(w || p)  subject to  lower <= w <= upper,  sum(w) = 1

has the solution w_i = clip(c · p_i, lower_i, upper_i) for one scale c > 0; c is found exactly: binary search over the
2K breakpoints at which an entry reaches a bound, then the closed form on the entries in between.
"""

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]

_LOWEST_LOGIT = -600.0


def project(logits: Weights, lower: Weights, upper: Weights) -> Weights:
    """Project softmax(logits) onto {lower <= w <= upper, sum(w) = 1}.

    Args:
        logits: Unnormalised log-probabilities [K]; NaN counts as the lowest, infinities are clamped.
        lower: Least weights [K], >= 0.
        upper: Greatest weights [K], >= lower. Needs sum(lower) <= 1 <= sum(upper).

    Returns:
        Weights [K] within the bounds, summing to one up to rounding of the last bit.
    """
    assert lower.sum() <= 1 + 1e-9 <= upper.sum() + 2e-9, "the bounded simplex is empty"
    assert np.all(lower <= upper)
    logits = np.nan_to_num(logits, nan=-np.inf, posinf=700.0, neginf=-np.inf)
    shifted = np.maximum(logits - max(float(logits.max()), _LOWEST_LOGIT), _LOWEST_LOGIT)
    with np.errstate(divide="ignore"):
        enters = np.log(lower) - shifted
        leaves = np.log(upper) - shifted
    breakpoints = np.sort(np.concatenate((enters, leaves)))
    low, high = 0, len(breakpoints) - 1
    while low < high:
        middle = (low + high) // 2
        if _clipped(shifted, lower, upper, breakpoints[middle]).sum() < 1.0:
            low = middle + 1
        else:
            high = middle
    scale = breakpoints[low]
    free = (enters < scale) & (scale <= leaves)
    fixed = np.where(scale <= enters, lower, upper)
    room = 1.0 - fixed[~free].sum()
    if not free.any() or room <= 0.0:
        return _settle(fixed, lower, upper)
    mass = np.exp(shifted[free] - shifted[free].max())
    weights = fixed.copy()
    weights[free] = mass * (room / mass.sum())
    return _settle(np.clip(weights, lower, upper), lower, upper)


def _clipped(shifted: Weights, lower: Weights, upper: Weights, log_scale: float) -> Weights:
    return np.clip(np.exp(np.minimum(shifted + log_scale, 700.0)), lower, upper)


def _settle(weights: Weights, lower: Weights, upper: Weights) -> Weights:
    """Give what rounding left over to the entries that have room for it, most room first."""
    weights = weights.copy()
    residual = 1.0 - float(weights.sum())
    for index in np.argsort(-(upper - weights) if residual > 0 else -(weights - lower), kind="stable"):
        if residual == 0.0:
            break
        moved = float(np.clip(weights[index] + residual, lower[index], upper[index]))
        residual -= moved - weights[index]
        weights[index] = moved
        if abs(residual) < 1e-15:
            break
    return weights


def step_towards(previous: Weights, target: Weights, max_change: float) -> tuple[Weights, bool]:
    """Move from `previous` towards `target` by a total-variation distance of at most `max_change`.

    Both are points of the same bounded simplex, so every point between them is one too.

    Returns:
        The new weights [K] and whether the limit held them back.
    """
    change = 0.5 * float(np.abs(target - previous).sum())
    if change <= max_change:
        return target, False
    return previous + (target - previous) * (max_change / change), True
