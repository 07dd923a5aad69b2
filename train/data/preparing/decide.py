"""The decision: every accepted row gets a set or a reason why it is not used. Pure: numbers in, numbers out.

    equal rows of a task ─► one stays            (duplicate)
    near duplicates      ─► the first stays      (near_duplicate), or all stay in one family
    families of declared ─► out, if held out     (leak)
    the others           ─► split by rank
    content of two sets  ─► the set furthest from training keeps it, whatever the task (leak)

Deciding again without some rows (those that could not be encoded) is the same function with a smaller `alive`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from scheduler.errors import DataError
from train.config import SPLITS, DataConfig
from train.data.preparing.index import AUTO, Index
from train.data.preparing.relations import Relations
from train.data.row import Refusal
from train.data.split import TRAIN, cut

_UNUSED = -1


class Why(IntEnum):
    """Why a row is not used."""

    NONE = 0
    DUPLICATE = 1
    NEAR_DUPLICATE = 2
    LEAK = 3
    FAMILY_LEAK = 4


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of every row of the index.

    Attributes:
        sets: int8 [rows]; place in `SPLITS`, or -1 where the row is not used.
        why: int8 [rows]; why not, 0 where it is used or was refused before this decision.
        other: int64 [rows]; the row that the reason names, -1 where there is none.
    """

    sets: np.ndarray
    why: np.ndarray
    other: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """bool [rows]."""
        return self.sets >= 0


def decide(index: Index, relations: Relations, config: DataConfig, *, alive: np.ndarray) -> Decision:
    """Give every row a set, or a reason why it has none.

    Args:
        index: All rows that were accepted.
        relations: Their relations.
        config: Sizes of the held-out sets; what happens to near duplicates.
        alive: bool [rows]; False for rows that were refused since.

    Raises:
        DataError: No family of a task fits into its probes.
    """
    count = len(index.rows)
    sets = np.full(count, _UNUSED, dtype=np.int8)
    why = np.zeros(count, dtype=np.int8)
    other = np.full(count, -1, dtype=np.int64)
    _drop_duplicates(index, relations, sets, why, other)
    candidates = alive & (why == Why.NONE)
    if config.near_duplicates is not None and config.near_duplicates.action == "refuse":
        _drop_near(index, relations, candidates, why, other)
    _place_declared(index, relations, candidates, sets, why, other)
    auto_rows = np.flatnonzero(candidates & (sets == _UNUSED))
    sets[auto_rows] = cut(index, relations, auto_rows, config)
    _drop_leaks(index, sets, why, other)
    return Decision(sets=sets, why=why, other=other)


def _drop_duplicates(index: Index, relations: Relations, sets: np.ndarray, why: np.ndarray, other: np.ndarray) -> None:
    """A repeated row is a leak where the one that stays is declared to be held out and this one is not of that set."""
    repeated = np.flatnonzero(relations.canonical != np.arange(len(sets)))
    kept = relations.canonical[repeated]
    declared = index.rows["declared"]
    is_leak = (declared[kept] < TRAIN) & (declared[kept] != declared[repeated])
    why[repeated] = np.where(is_leak, Why.LEAK, Why.DUPLICATE)
    other[repeated] = kept
    sets[repeated] = _UNUSED


def _drop_near(index: Index, relations: Relations, candidates: np.ndarray, why: np.ndarray, other: np.ndarray) -> None:
    """Of near duplicates the first stays, declared rows before others; a row goes only for one that stays itself."""
    declared = index.rows["declared"]
    ends = np.stack([relations.near.first, relations.near.second])
    ends = np.where(declared[ends[1]] < declared[ends[0]], ends[::-1], ends)
    order = np.lexsort((ends[0], ends[1], declared[ends[1]]))
    for first, second in ends[:, order].T.tolist():
        if candidates[first] and candidates[second]:
            candidates[second] = False
            why[second], other[second] = Why.NEAR_DUPLICATE, first


def _place_declared(
    index: Index,
    relations: Relations,
    candidates: np.ndarray,
    sets: np.ndarray,
    why: np.ndarray,
    other: np.ndarray,
) -> None:
    """Declared rows go where they are said to; the rest of their family to training with them, or out."""
    declared = index.rows["declared"]
    said = np.flatnonzero(candidates & (declared != AUTO))
    if not len(said):
        return
    sets[said] = declared[said]
    num_families = int(relations.family.max()) + 1
    strongest = np.full(num_families, -1, dtype=np.int64)
    by_strength = said[np.argsort(-declared[said], kind="stable")]
    strongest[relations.family[by_strength]] = by_strength  # the last written is the furthest from training
    linked = np.flatnonzero(candidates & (declared == AUTO) & (strongest[relations.family] >= 0))
    holder = strongest[relations.family[linked]]
    trained = declared[holder] == TRAIN
    sets[linked[trained]] = TRAIN
    out = linked[~trained]
    candidates[out] = False
    why[out], other[out] = Why.FAMILY_LEAK, holder[~trained]


def _drop_leaks(index: Index, sets: np.ndarray, why: np.ndarray, other: np.ndarray) -> None:
    """Content in several sets stays in the first of them."""
    used = np.flatnonzero(sets >= 0)
    rows = index.rows[used]
    order = np.lexsort((sets[used], rows["content_low"], rows["content_high"]))
    content = rows[["content_high", "content_low"]][order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = content[1:] != content[:-1]
    holder = used[order][is_first][np.cumsum(is_first) - 1] if len(order) else used
    leaked = sets[used[order]] != sets[holder]
    out = used[order][leaked]
    why[out], other[out] = Why.LEAK, holder[leaked]
    sets[out] = _UNUSED


def refusals_of(index: Index, relations: Relations, decision: Decision, config: DataConfig) -> Iterator[Refusal]:
    """The rows this decision refused, in source order."""
    similarity = dict(
        zip(
            zip(relations.near.first.tolist(), relations.near.second.tolist(), strict=True),
            relations.near.similarity.tolist(),
            strict=True,
        )
    )
    for row in np.flatnonzero(decision.why).tolist():
        other = int(decision.other[row])
        place, task = index.place(other), index.tasks[index.rows["task"][other]]
        match why := Why(decision.why[row]):
            case Why.DUPLICATE:
                yield index.refusal(row, rule="duplicate", reason=f"same content as {place}")
            case Why.NEAR_DUPLICATE:
                threshold = config.near_duplicates.threshold if config.near_duplicates else 1.0
                found = similarity[min(row, other), max(row, other)]
                reason = f"{found:.3f} like {place}, at least near_duplicates.threshold {threshold:g}"
                yield index.refusal(row, rule="near_duplicate", reason=reason)
            case _:
                held = _held_out_as(index, decision, other)
                link = "same content as" if why is Why.LEAK else "of one family (parent_id, near duplicates) with"
                yield index.refusal(row, rule="leak", reason=f"{link} {place}, which task {task!r} holds out as {held}")


def count_refusals(index: Index, decision: Decision) -> Counter[tuple[int, str]]:
    """Rows this decision refused, by source number and rule."""
    refused = np.flatnonzero(decision.why)
    source = np.array([number for number, _ in index.files], dtype=np.int64)[index.rows["file"][refused]]
    counts: Counter[tuple[int, str]] = Counter()
    for (number, why), count in Counter(zip(source.tolist(), decision.why[refused].tolist(), strict=True)).items():
        rule = "leak" if why == Why.FAMILY_LEAK else Why(why).name.lower()
        counts[number, rule] += count
    return counts


def _held_out_as(index: Index, decision: Decision, row: int) -> str:
    """The set a row keeps content for; a declared row that is itself out by now is known by its declaration."""
    code = int(decision.sets[row])
    return SPLITS[code if code >= 0 else int(index.rows["declared"][row])]


def require_disjoint(index: Index, sets: np.ndarray) -> None:
    """Require that no content is in two sets, within a task or across tasks.

    Args:
        index: All rows.
        sets: int8 [rows], as in `Decision`.

    Raises:
        DataError: Names two rows of equal content in different sets.
    """
    used = np.flatnonzero(sets >= 0)
    rows = index.rows[used]
    order = np.lexsort((sets[used], rows["content_low"], rows["content_high"]))
    content, of_set = rows[["content_high", "content_low"]][order], sets[used[order]]
    straddling = np.flatnonzero((content[1:] == content[:-1]) & (of_set[1:] != of_set[:-1]))
    if len(straddling):
        first, second = (int(used[order[place]]) for place in (straddling[0], straddling[0] + 1))
        names = [SPLITS[int(sets[row])] for row in (first, second)]
        tasks = [index.tasks[index.rows["task"][row]] for row in (first, second)]
        raise DataError(
            f"the {names[0]} row {index.place(first)} of task {tasks[0]!r} is also the {names[1]} row "
            f"{index.place(second)} of task {tasks[1]!r}; remove one of them"
        )


def require_all_splits(index: Index, sets: np.ndarray) -> None:
    """Require a probe and a training row of every task: leaks may have taken the last one.

    Raises:
        DataError: Names the task and the set that is empty.
    """
    for name in ("probe", "train"):
        has = np.bincount(index.rows["task"][sets == SPLITS.index(name)], minlength=len(index.tasks))
        for task in np.flatnonzero(has == 0).tolist():
            own = index.rows["declared"][index.rows["task"] == task]
            if (own != AUTO).all():
                declared = ", ".join(SPLITS[code] for code in np.unique(own).tolist())
                raise DataError(
                    f"task {index.tasks[task]!r} has no {name} row: its sources declare all of its rows as {declared} "
                    "(data.sources.*.split); add a source with split: auto"
                )
            raise DataError(
                f"task {index.tasks[task]!r} has no {name} row left, because other tasks or declared sets hold out the "
                "same content; give it rows of its own, or make it one task with those"
            )
