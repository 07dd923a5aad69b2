"""Score trends with their uncertainty: one local-linear Kalman filter per task, all tasks at once.

State per task: level and slope of the score, unit of time = one evaluation. A new score y on n probes is an observation
of the level with variance p(1-p)/n, p = (n·y + 1)/(n + 2). The slope comes with a standard error, so that a fall is
counted only as far as the evidence supports it. (Local linear trend model: Durbin & Koopman, "Time Series Analysis by
State Space Methods", section 3.2.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LEVEL_NOISE = 0.01**2
_SLOPE_NOISE = 0.02**2
_FIRST_SLOPE_VARIANCE = 0.1**2


def observation_variance(score: Array, num_probes: Array) -> Array:
    """Variance of a mean score [K] over `num_probes` [K] probes, never zero."""
    smoothed = (num_probes * score + 1.0) / (num_probes + 2.0)
    return smoothed * (1.0 - smoothed) / num_probes


@dataclass(slots=True)
class Trend:
    """Filter state, arrays [K]. `seen` is false for a task without any observation yet."""

    level: Array
    slope: Array
    level_variance: Array
    covariance: Array
    slope_variance: Array
    seen: NDArray[np.bool_]

    @classmethod
    def new(cls, num_tasks: int) -> "Trend":
        """No observation yet."""
        return cls(
            level=np.zeros(num_tasks),
            slope=np.zeros(num_tasks),
            level_variance=np.zeros(num_tasks),
            covariance=np.zeros(num_tasks),
            slope_variance=np.zeros(num_tasks),
            seen=np.zeros(num_tasks, dtype=bool),
        )

    def predict(self) -> None:
        """Let one evaluation pass."""
        self.level = np.where(self.seen, self.level + self.slope, self.level)
        self.level_variance = self.predicted_level_variance()
        self.covariance = self.covariance + self.slope_variance
        self.slope_variance = self.slope_variance + _SLOPE_NOISE

    def predicted_level_variance(self) -> Array:
        """Variance [K] that the level will have at the next evaluation, before anything is measured in it."""
        return self.level_variance + 2 * self.covariance + self.slope_variance + _LEVEL_NOISE

    def update(self, measured: NDArray[np.bool_], score: Array, num_probes: Array) -> None:
        """Fold in the scores [K] of the tasks in `measured` [K]; entries of other tasks are ignored."""
        noise = observation_variance(score, np.maximum(num_probes, 1.0))
        first = measured & ~self.seen
        again = measured & self.seen
        total = self.level_variance + noise
        gain_level = np.where(again, self.level_variance / total, 0.0)
        gain_slope = np.where(again, self.covariance / total, 0.0)
        surprise = np.where(again, score - self.level, 0.0)
        self.level = np.where(first, score, self.level + gain_level * surprise)
        self.slope = np.where(first, 0.0, self.slope + gain_slope * surprise)
        self.slope_variance = np.where(first, _FIRST_SLOPE_VARIANCE, self.slope_variance - gain_slope * self.covariance)
        self.covariance = np.where(first, 0.0, (1.0 - gain_level) * self.covariance)
        self.level_variance = np.where(first, noise, (1.0 - gain_level) * self.level_variance)
        self.seen = self.seen | measured
