"""Probe, selection, test and train: four disjoint sets per task, decided by content alone.

A row's rank is a hash of the seed and its content, so neither the order of the files nor the other rows move it: the
first rows by rank are probes, the next are selection rows, the next test rows, the rest are trained on. Rows of one
family (the steps of a chain, variants of one row) stay together, or a step would be trained on whose answer an earlier
step is tested for; a family that no longer fits into a held-out set is trained on, and where it runs through several
tasks, that of its first row decides. A set that a source declares rows of
a task for holds those, and no others of the task.

Works on the index alone; what becomes of repeated rows and of content that several tasks hold is decided around it (see
`preparing.decide`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scheduler.errors import DataError
from train.config import SPLITS, DataConfig
from train.data.preparing.index import AUTO, Index
from train.data.preparing.relations import Relations

TRAIN = SPLITS.index("train")


class HeldOutSizes(NamedTuple):
    """Rows a task gives up to each held-out set."""

    probe: int
    selection: int
    test: int


def held_out_sizes(num_rows: int, config: DataConfig) -> HeldOutSizes:
    """Sizes for a task with `num_rows` distinct rows: at least one probe, and one row left to train on."""
    cap = int(config.max_held_out_ratio * num_rows)
    probe = max(1, min(config.probes_per_task, cap))
    selection = max(0, min(config.selection_per_task, cap, num_rows - probe - 1))
    test = max(0, min(config.test_per_task, cap, num_rows - probe - selection - 1))
    return HeldOutSizes(probe, selection, test)


@dataclass(frozen=True, slots=True)
class Families:
    """Families of rows to be split, sorted by task, then by rank of the row that stands for them.

    Attributes:
        order: int64 [rows]; the rows, family after family.
        starts: int64 [families + 1]; a family's rows are `order[starts[f]:starts[f + 1]]`.
        task: int32 [families]; that of the row that stands for it.
        num_own: int64 [families]; its rows of that task, which count against the task's sizes.
    """

    order: np.ndarray
    starts: np.ndarray
    task: np.ndarray
    num_own: np.ndarray


def cut(index: Index, relations: Relations, auto_rows: np.ndarray, config: DataConfig) -> np.ndarray:
    """The set of every row in `auto_rows`, int8 [len(auto_rows)], places in `SPLITS`.

    Args:
        index: All rows.
        relations: Their relations.
        auto_rows: Sorted row numbers; distinct within each task, none of a family with a declared row.
        config: Its sizes are those of a task.

    Raises:
        DataError: No family of a task fits into its probes.
    """
    families = _families(index, relations, auto_rows)
    sizes = np.diff(families.starts)
    sets = np.full(len(sizes), TRAIN, dtype=np.int8)
    declared = _declared_sets(index)
    num_tasks = len(index.tasks)
    firsts = np.searchsorted(families.task, np.arange(num_tasks + 1))
    for task, (first, last) in enumerate(zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True)):
        if first == last:
            continue
        num_rows = int(families.num_own[first:last].sum())
        wanted = [0 if declared[task, place] else size for place, size in enumerate(held_out_sizes(num_rows, config))]
        _fill(sets[first:last], families.num_own[first:last], wanted)
        if wanted[0] and not (sets[first:last] == 0).any():
            raise DataError(
                f"task {index.tasks[task]!r}: none of its {last - first} families of rows linked by parent_id fits "
                f"into the {wanted[0]} probes it may hold out; give it more independent rows, or raise "
                "data.max_held_out_ratio"
            )
    found = np.empty(len(index.rows), dtype=np.int8)
    found[families.order] = np.repeat(sets, sizes)
    return found[auto_rows]


def _declared_sets(index: Index) -> np.ndarray:
    """bool [tasks, sets]: the sets that a source declares rows of the task for."""
    declared = np.zeros((len(index.tasks), AUTO + 1), dtype=bool)
    declared[index.rows["task"], index.rows["declared"]] = True
    return declared


def _families(index: Index, relations: Relations, chosen: np.ndarray) -> Families:
    """A family's first row stands for it: the root of its chain, or the first of several roots by rank."""
    rows, family = index.rows[chosen], relations.family[chosen]
    is_chosen = np.zeros(len(index.rows) + 1, dtype=bool)
    is_chosen[chosen] = True
    has_parent = is_chosen[relations.parent[chosen]]  # parent -1 looks at the last place, which is never chosen
    within = np.lexsort((rows["content_high"], rows["rank"], has_parent, family))
    is_first = np.ones(len(within), dtype=bool)
    is_first[1:] = family[within][1:] != family[within][:-1]
    number = np.cumsum(is_first) - 1
    heads = within[is_first]
    head_order = np.lexsort((rows["content_high"][heads], rows["rank"][heads], rows["task"][heads]))
    place = np.empty_like(head_order)
    place[head_order] = np.arange(len(heads))
    order = within[np.argsort(place[number], kind="stable")] if len(heads) else within
    sizes = np.bincount(place[number], minlength=len(heads))
    is_own = rows["task"][within] == rows["task"][heads][number]
    return Families(
        order=chosen[order],
        starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        task=rows["task"][heads][head_order],
        num_own=np.bincount(place[number][is_own], minlength=len(heads)),
    )


def _fill(sets: np.ndarray, sizes: np.ndarray, wanted: Sequence[int]) -> None:
    """Give families, in order, to the first set that has room for the whole of it."""
    room = list(wanted)
    for family, size in enumerate(sizes.tolist()):
        for place, left in enumerate(room):
            if size <= left:
                sets[family] = place
                room[place] -= size
                break
        if not any(room):
            return
