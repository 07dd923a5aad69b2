"""What rows are to one another: equal, descended, of one family. Computed once, on numbers alone.

*Equal* rows have one task and one content; of them one is canonical. *Descended* means that a row's `parent_id` is the
id of another row: of its task in its own file, else of its task anywhere, else of another task in its own file (a chain
may run through several tasks); where an id is repeated, of the row that comes first by rank, so that the order of files
does not matter. A *family* is everything linked by
descent or, if that is asked for, by near duplication, through whatever rows, refused ones included.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from train.data.preparing.index import Index


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Pairs of canonical rows that say nearly the same: `first` < `second`, int64 [pairs]; `similarity` float32."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


NO_PAIRS = NearPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Relations:
    """Relations of all rows of the index.

    Attributes:
        canonical: int64 [rows]; the row that stands for this one's content within its task, itself for most.
        parent: int64 [rows]; the canonical row this one derives from or continues, -1 for none.
        family: int32 [rows]; equal for rows of one family.
        near: Pairs of near duplicates.
    """

    canonical: np.ndarray
    parent: np.ndarray
    family: np.ndarray
    near: NearPairs


def relate(index: Index, canonical: np.ndarray, near: NearPairs, *, join_near: bool) -> Relations:
    """Relate all rows; with `join_near` near duplicates are of one family."""
    parent = _parents(index, canonical)
    count = len(canonical)
    child = np.flatnonzero(parent >= 0)
    ends = [(child, parent[child]), (np.arange(count), canonical)]
    if join_near:
        ends.append((near.first, near.second))
    first, second = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
    family = connected_components(graph, directed=False)[1] if count else np.empty(0, np.int32)
    return Relations(canonical=canonical, parent=parent, family=family, near=near)


def find_canonical(index: Index) -> np.ndarray:
    """For every row the one that stands for its content within its task, int64 [rows].

    A row its source declares to be of a set goes before one that is to be split; among declared ones the set furthest
    from training first; then the order of the sources.
    """
    rows = index.rows
    order = np.lexsort((rows["declared"], rows["content_low"], rows["content_high"], rows["task"]))
    ordered = rows[["task", "content_high", "content_low"]][order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    canonical = np.empty(len(order), dtype=np.int64)
    canonical[order] = order[is_first][np.cumsum(is_first) - 1]
    return canonical


def _parents(index: Index, canonical: np.ndarray) -> np.ndarray:
    rows = index.rows
    parent = np.full(len(rows), -1, dtype=np.int64)
    children = np.flatnonzero(rows["parent"])
    if not len(children):
        return parent
    nothing = np.zeros(1, dtype=np.uint64)
    found = np.full(len(children), -1, dtype=np.int64)
    for groups in ((rows["file"], rows["task"]), (rows["task"], nothing), (rows["file"], nothing + np.uint64(1))):
        wanted = _mixed(rows["parent"], *groups)[children]
        found = np.where(found >= 0, found, _first_with(_mixed(rows["id"], *groups), rows["rank"], wanted))
    parent[children] = np.where(found >= 0, canonical[found], -1)
    parent[parent == canonical] = -1
    linked = np.flatnonzero(parent >= 0)
    linked = linked[np.argsort(rows["rank"][parent[linked]], kind="stable")[::-1]]
    parent[canonical[linked]] = parent[linked]  # of equal rows' parents the first by rank, whichever row stays
    return parent


def _mixed(ids: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """64-bit keys of ids within groups: SplitMix64's finaliser over the three numbers."""
    key = ids ^ (first.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + second.astype(np.uint64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        key = (key ^ (key >> np.uint64(shift))) * np.uint64(factor)
    return key ^ (key >> np.uint64(31))


def _first_with(keys: np.ndarray, rank: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For every wanted key the row that has it and is first by rank, -1 where none has."""
    order = np.lexsort((rank, keys))
    ordered = keys[order]
    place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[place] == wanted, order[place], -1)


def ancestors(parent: np.ndarray, row: int, *, limit: int) -> list[int]:
    """The rows that `row` continues, furthest first, `limit` nearest ones at most; a cycle is cut where it closes."""
    chain: list[int] = []
    seen = {row}
    current = int(parent[row])
    while current >= 0 and current not in seen and len(chain) < limit:
        chain.append(current)
        seen.add(current)
        current = int(parent[current])
    return chain[::-1]
