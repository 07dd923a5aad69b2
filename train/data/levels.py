"""The difficulty level of held-out rows, by the levels of their task's training rows.

Levels are intervals of the difficulty score that do not overlap (equal scores share one), so the training rows alone
say where each ends: a held-out row is of the easiest level that has a training row at least as hard, else of the
hardest. As in training, a row without factors counts as of the median of its task's training rows.
"""

import numpy as np

from train.config import SplitName
from train.data.store import TokenStore


def held_out_levels(store: TokenStore, task: int, split: SplitName) -> np.ndarray | None:
    """Level from 0 of every row of the task in the split, int64 [rows]; None where the task has a single level."""
    sizes = store.level_sizes(task)
    if len(sizes) == 1:
        return None
    trained = store.difficulty(task)
    median = np.median(trained[~np.isnan(trained)])
    ends = np.cumsum(sizes)[:-1]
    hardest = [np.max(rows) for rows in np.split(np.where(np.isnan(trained), median, trained), ends)[:-1]]
    scores = store.difficulty(task, split)
    return np.searchsorted(hardest, np.where(np.isnan(scores), median, scores), side="left")
