"""What paired seeds say: intervals, tests and their correction. Nothing here knows of mixtures.

Differences are paired by seed, [N] numbers. Every random number comes from a fixed seed: equal data give equal
intervals.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.simulator.summary import interval

Array = NDArray[np.float64]

CONFIDENCE = 0.95
_BOOTSTRAP_FROM = 30
_EXACT_UP_TO = 14
_NUM_FLIPS = 20_000
_CHUNK = 1_000_000
_ROUNDING = 1e-12


def mean_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Interval of the mean difference at 95 %; None from fewer than two seeds.

    Below 30 seeds Student's, mean ± t · s / √N: a bootstrap is too narrow there (of five seeds it covers about 85 %).
    From 30 on the percentile bootstrap, which assumes no shape.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        return None
    if len(values) >= _BOOTSTRAP_FROM:
        return _bootstrap_interval(values, num_resamples=10_000)
    found = interval(values.tolist())
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def _bootstrap_interval(values: Array, *, num_resamples: int) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    per_chunk = max(1, _CHUNK // len(values))
    means = [
        values[rng.integers(len(values), size=(min(per_chunk, num_resamples - done), len(values)))].mean(axis=1)
        for done in range(0, num_resamples, per_chunk)
    ]
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the mean difference under random signs (Fisher's randomisation test for pairs).

    All 2^N sign vectors up to 14 seeds, whose least p is 2 / 2^N; 20,000 random ones beyond, the observed included.
    """
    values = np.asarray(differences, dtype=np.float64)
    observed = abs(float(values.sum())) - _ROUNDING * max(1.0, float(np.abs(values).sum()))
    if len(values) <= _EXACT_UP_TO:
        numbers = np.arange(2 ** len(values))[:, None]
        signs = 1.0 - 2.0 * ((numbers >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    rng = np.random.default_rng(0)
    per_chunk = max(1, _CHUNK // len(values))
    extreme = 0
    for done in range(0, _NUM_FLIPS, per_chunk):
        signs = rng.choice([-1.0, 1.0], size=(min(per_chunk, _NUM_FLIPS - done), len(values)))
        extreme += int((np.abs(signs @ values) >= observed).sum())
    return (extreme + 1) / (_NUM_FLIPS + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment: the family-wise error of rejecting every p below a level is at most that level."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def restricted_mean(times: Sequence[float | None], *, horizon: float) -> float:
    """Mean of the time to an event or of `horizon`, whichever comes first; None: it had not come by then.

    Every run is watched until `horizon`, so this is the area under the Kaplan-Meier curve up to there.
    """
    return float(np.mean([horizon if time is None else min(time, horizon) for time in times]))
