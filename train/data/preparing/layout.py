"""Where every used row goes: its place in the store, its difficulty level, and which context it may be put after.

Store order is by set, task, then (training rows only) difficulty level, then rank. A level is a quantile of its task's
scores (of the middle rank among equal ones): as many levels as the card allows, fewer where scores are equal, for
equal scores share one. A row without factors counts as of its task's median.

A contrast is a training row of another task of the same family, if the run has one, else a sibling (same parent), else
another row of the task; which one is a matter of content and seed alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.task import TaskCard, TaskSpec
from train.config import SPLITS
from train.data.preparing.index import Index
from train.data.preparing.relations import Relations
from train.data.split import TRAIN

SEGMENT_ROWS = 16_384
_SEGMENT_CHARS = 24 << 20
_NO_FAMILY = TaskCard().family


@dataclass(frozen=True, slots=True)
class Layout:
    """The store to be written.

    Attributes:
        order: int64 [stored rows]; row numbers of the index in store order.
        position: int64 [rows]; place in `order`, -1 for rows that are not stored.
        sets: int8 [rows], as decided.
        level: int16 [rows]; difficulty level of a training row from 0, -1 for others.
        level_sizes: Training rows per task and level.
        num_rows: int64 [sets, tasks].
        segments: int64 [segments + 1]; places in `order` at which the writing pauses;
            no segment holds rows of two sets.
    """

    order: np.ndarray
    position: np.ndarray
    sets: np.ndarray
    level: np.ndarray
    level_sizes: tuple[tuple[int, ...], ...]
    num_rows: np.ndarray
    segments: np.ndarray


def lay_out(
    index: Index, sets: np.ndarray, specs: Mapping[str, TaskSpec], *, segment_rows: int = SEGMENT_ROWS
) -> Layout:
    """Order the used rows; `sets` is int8 [rows], -1 for rows that are not used."""
    rows = index.rows
    level, level_sizes = _levels(index, sets, specs)
    used = np.flatnonzero(sets >= 0)
    task, rank, content = rows["task"][used], rows["rank"][used], rows["content_high"][used]
    order = used[np.lexsort((content, rank, level[used], task, sets[used]))]
    position = np.full(len(rows), -1, dtype=np.int64)
    position[order] = np.arange(len(order))
    cells = sets[used].astype(np.int64) * len(index.tasks) + task
    num_rows = np.bincount(cells, minlength=len(SPLITS) * len(index.tasks)).reshape(len(SPLITS), len(index.tasks))
    segments = _segments(rows["num_chars"][order], num_rows.sum(axis=1), segment_rows)
    return Layout(order, position, sets, level, level_sizes, num_rows, segments)


def _segments(num_chars: np.ndarray, set_sizes: np.ndarray, segment_rows: int) -> np.ndarray:
    """Ends of sets, and within a set after so many rows or characters."""
    bounds = [0]
    total = np.concatenate([[0], np.cumsum(num_chars, dtype=np.int64)])
    for end in np.cumsum(set_sizes).tolist():
        while bounds[-1] < end:
            start = bounds[-1]
            by_chars = int(np.searchsorted(total, total[start] + _SEGMENT_CHARS, side="right")) - 1
            bounds.append(min(end, start + segment_rows, max(start + 1, by_chars)))
    return np.array(bounds, dtype=np.int64)


def _levels(
    index: Index, sets: np.ndarray, specs: Mapping[str, TaskSpec]
) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
    train = np.flatnonzero(sets == TRAIN)
    train = train[np.argsort(index.rows["task"][train], kind="stable")]
    bounds = np.searchsorted(index.rows["task"][train], np.arange(len(index.tasks) + 1)).tolist()
    level = np.full(len(sets), -1, dtype=np.int16)
    sizes = []
    for name, start, end in zip(index.tasks, bounds[:-1], bounds[1:], strict=True):
        of_task = train[start:end]
        found = levels_of(index.rows["difficulty"][of_task], (specs.get(name) or TaskCard()).difficulty_levels)
        level[of_task] = found
        sizes.append(tuple(np.bincount(found).tolist()) if len(found) else (0,))
    return level, tuple(sizes)


def levels_of(scores: np.ndarray, max_levels: int) -> np.ndarray:
    """Difficulty levels from 0, easiest first, without gaps: int64 [rows]. `scores` may hold NaN."""
    known = ~np.isnan(scores)
    if max_levels == 1 or not known.any():
        return np.zeros(len(scores), dtype=np.int64)
    filled = np.where(known, scores, np.median(scores[known]))
    ordered = np.sort(filled)
    twice_middle = np.searchsorted(ordered, filled, side="left") + np.searchsorted(ordered, filled, side="right")
    return np.unique(twice_middle * max_levels // (2 * len(scores)), return_inverse=True)[1]


def find_contrasts(
    index: Index, relations: Relations, sets: np.ndarray, specs: Mapping[str, TaskSpec], *, seed: int
) -> np.ndarray:
    """For every training row the row to contrast it with, int64 [rows]; -1 for other rows and where there is none."""
    contrast = np.full(len(sets), -1, dtype=np.int64)
    train = np.flatnonzero(sets == TRAIN)
    rows = index.rows[train]
    order = np.lexsort((rows["content_high"], rows["rank"], rows["task"]))
    ranked, task = train[order], rows["task"][order]
    bounds = np.searchsorted(task, np.arange(len(index.tasks) + 1)).tolist()
    pools = [ranked[start:end] for start, end in itertools.pairwise(bounds)]
    related_task = _related_tasks(index, specs, pools)
    siblings = _siblings(relations, ranked)
    for number, own in enumerate(pools):
        if number in related_task:
            related = pools[related_task[number]]
            contrast[own] = related[_choice(index, own, len(related), seed)]
        elif len(own) > 1:
            step = 1 + _choice(index, own, len(own) - 1, seed)
            contrast[own] = own[(np.arange(len(own)) + step) % len(own)]
            for place in np.flatnonzero(relations.parent[own] >= 0).tolist():
                others = siblings.get(int(relations.parent[own[place]]), ())
                others = [row for row in others if row != own[place]]
                if others:
                    contrast[own[place]] = others[int(_choice(index, own[place : place + 1], len(others), seed)[0])]
    return contrast


def _related_tasks(index: Index, specs: Mapping[str, TaskSpec], pools: Sequence[np.ndarray]) -> dict[int, int]:
    """For every task the next one of its family that has rows; `general`, the default, is no family."""
    families: dict[str, list[int]] = {}
    for number, name in enumerate(index.tasks):
        family = specs[name].family if name in specs else _NO_FAMILY
        if family != _NO_FAMILY and len(pools[number]):
            families.setdefault(family, []).append(number)
    return {
        task: members[(place + 1) % len(members)]
        for members in families.values()
        for place, task in enumerate(members)
        if len(members) > 1
    }


def _siblings(relations: Relations, ranked: np.ndarray) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in ranked[relations.parent[ranked] >= 0].tolist():
        found.setdefault(int(relations.parent[row]), []).append(row)
    return found


def _choice(index: Index, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A number below `count` for every row, by its content and the seed."""
    key = index.rows["content_low"][rows] ^ np.uint64((seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((key ^ (key >> np.uint64(31))) % np.uint64(count)).astype(np.int64)
