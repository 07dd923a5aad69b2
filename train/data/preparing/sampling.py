"""The bounded sample of training texts that a tokenizer may be trained on.

Rows of all tasks in turn, each task's in the order of their rank, until four million characters are taken: the same
rows whatever the order of the files, and no task crowds another out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from train.data.preparing.index import Index
from train.data.preparing.spill import read_texts

MAX_SAMPLE_CHARS = 4_000_000


def sample_rows(index: Index, is_train: np.ndarray, *, max_chars: int = MAX_SAMPLE_CHARS) -> np.ndarray:
    """Numbers of the sampled rows, in the order in which they are read; `is_train` is bool [rows]."""
    train = np.flatnonzero(is_train)
    rows = index.rows[train]
    order = np.lexsort((rows["content_high"], rows["rank"], rows["task"]))
    task = rows["task"][order]
    place_in_task = np.arange(len(order)) - np.searchsorted(task, task)
    turns = order[np.lexsort((task, place_in_task))]
    before = np.cumsum(rows["num_chars"][turns], dtype=np.int64) - rows["num_chars"][turns]
    return train[turns[before < max_chars]]


def sampled_texts(index: Index, rows: np.ndarray, spill: Path) -> Iterator[str]:
    """The texts of these rows, turn by turn."""
    texts = read_texts(spill, index.shard_starts, rows)
    for row in rows.tolist():
        yield from (content for _, content in texts[row].messages)
        yield texts[row].answer
