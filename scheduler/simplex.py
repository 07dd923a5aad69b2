"""Exact projection onto the bounded simplex, in log space.

minimise KL(w || p)  subject to  lower <= w <= upper,  sum(w) = 1

has the solution w_i = clip(c · p_i, lower_i, upper_i) for one scale c > 0, at which their sum, piecewise linear and
rising in c, is one. c is found exactly: by Newton's method, which ends on the right piece after a few steps; where it
does not (hostile bounds), by binary search over the 2K breakpoints at which an entry reaches a bound.
"""

import numpy as np
from numpy.typing import NDArray

from scheduler.arrays import clip

Weights = NDArray[np.float64]

_LOWEST_LOGIT = -600.0
_LARGEST_LOGIT = 1e300
_NEWTON_STEPS = 20
_ROUNDING = 1e-13


def softmax(logits: Weights) -> Weights:
    """Probabilities [K] of unnormalised log-probabilities [K], whatever those are.

    NaN counts as -inf; an entry more than 600 below the largest counts as 600 below it.
    """
    odds = _odds(logits)
    return odds / odds.sum()


def project(logits: Weights, lower: Weights, upper: Weights) -> Weights:
    """Project softmax(logits) onto {lower <= w <= upper, sum(w) = 1}.

    Args:
        logits: Unnormalised log-probabilities [K], finite or not (see `softmax`).
        lower: Least weights [K], >= 0.
        upper: Greatest weights [K], >= lower. Needs sum(lower) <= 1 <= sum(upper).

    Returns:
        Weights [K] within the bounds, summing to one up to rounding of the last bits.
    """
    assert lower.sum() <= 1 + 1e-9 <= upper.sum() + 2e-9, "the bounded simplex is empty"
    assert np.all(lower <= upper)
    odds = _odds(logits)
    weights = _newton(odds, lower, upper)
    return _by_breakpoints(odds, lower, upper) if weights is None else weights


def _odds(logits: Weights) -> Weights:
    """exp(logits) [K] over its largest entry: in [exp(-600), 1], so that no quotient of two weights overflows."""
    finite = clip(np.where(np.isnan(logits), -np.inf, logits), -_LARGEST_LOGIT, _LARGEST_LOGIT)
    return np.exp(np.maximum(finite - finite.max(), _LOWEST_LOGIT))


def _newton(odds: Weights, lower: Weights, upper: Weights) -> Weights | None:
    """The projection, if Newton's method finds the piece it lies on: the entries between their bounds stay the same."""
    scale, before = 1.0 / float(np.add.reduce(odds)), None
    for _ in range(_NEWTON_STEPS):
        raw = odds * scale
        free = (lower < raw) & (raw < upper)
        bounded = np.minimum(np.maximum(raw, lower), upper)
        if before is not None and bool((free == before).all()):
            return bounded if abs(float(np.add.reduce(bounded)) - 1.0) <= _ROUNDING else None
        slope = float(np.add.reduce(odds * free))
        room = 1.0 - float(np.add.reduce(bounded * ~free))
        if not (slope > 0.0 and room > 0.0):
            return None
        scale, before = room / slope, free
    return None


def _by_breakpoints(odds: Weights, lower: Weights, upper: Weights) -> Weights:
    """The projection by binary search, then the closed form on the entries between their bounds."""
    enters, leaves = lower / odds, upper / odds
    scale = _breakpoint(odds, lower, upper, np.sort(np.concatenate((enters, leaves))))
    free = (enters < scale) & (scale <= leaves)
    weights = np.where(scale <= enters, lower, upper)
    room = 1.0 - float(weights[~free].sum())
    if free.any() and room > 0.0:
        weights[free] = odds[free] * (room / odds[free].sum())
    return clip(weights, lower, upper)


def _breakpoint(odds: Weights, lower: Weights, upper: Weights, breakpoints: Weights) -> float:
    """The first of the sorted breakpoints [2K] at which the clipped weights reach one, or the last."""
    low, high, weights = 0, len(breakpoints) - 1, np.empty_like(odds)
    while low < high:
        middle = (low + high) // 2
        np.multiply(odds, breakpoints[middle], out=weights)
        np.minimum(np.maximum(weights, lower, out=weights), upper, out=weights)
        if np.add.reduce(weights) < 1.0:
            low = middle + 1
        else:
            high = middle
    return float(breakpoints[low])


def step_towards(previous: Weights, target: Weights, max_change: float) -> tuple[Weights, bool]:
    """Move from `previous` towards `target` by a total-variation distance of at most `max_change`.

    Both are points of the same bounded simplex, so every point between them is one too; an entry never leaves the span
    between its two ends, so rounding breaks no bound.

    Returns:
        The new weights [K] and whether the limit held them back.
    """
    change = 0.5 * float(np.abs(target - previous).sum())
    if change <= max_change:
        return target, False
    moved = previous + (target - previous) * (max_change / change)
    return clip(moved, np.minimum(previous, target), np.maximum(previous, target)), True
