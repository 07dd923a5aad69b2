"""Exact shares without a stream: how many samples of each task an interval holds.

What a task was served differs from its cumulative target by less than one sample at every boundary under one plan, as
in a run; where inside the interval its samples fall is not worked out.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Shares:
    """Debts [K]: cumulative target minus samples served; negative for a task that is ahead. They sum to zero."""

    def __init__(self, num_tasks: int) -> None:
        self.debts: Array = np.zeros(num_tasks)

    def serve(self, weights: Array, num_samples: int) -> NDArray[np.int64]:
        """Samples per task, int64 [K], summing to `num_samples`: largest remainders of debt plus target first.

        Args:
            weights: Plan in force [K], summing to one.
            num_samples: Steps times batch size.
        """
        quotas = self.debts + weights / weights.sum() * num_samples
        counts = np.maximum(np.floor(quotas), 0.0).astype(np.int64)
        by_remainder = np.argsort(counts - quotas, kind="stable")
        missing = num_samples - int(counts.sum())
        if missing > 0:
            counts[by_remainder[:missing]] += 1
        elif missing < 0:  # tasks far ahead of a new plan take nothing, so that the others are together owed too much
            served = by_remainder[counts[by_remainder] > 0]
            counts[served[missing:]] -= 1
        self.debts = quotas - counts
        return counts
