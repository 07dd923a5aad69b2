"""Probe, test and train: three disjoint sets per task, decided by content alone.

A row's rank is a hash of the seed and its content, so neither the order of the files nor the other rows move it: the
first rows by rank are probes, the next are test rows, the rest are trained on. Rows linked by `parent_id` (the steps of
a chain, variants of one row) are one family and stay together, or a step would be trained on whose answer an earlier
step is tested for; a family that no longer fits into a held-out set is trained on. Two tasks may hold the same content;
where they would put it into different sets, the set furthest from training keeps it (probe before test before train)
and the other task's row is refused as a leak.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from scheduler.errors import DataError
from train.config import DataConfig
from train.data.row import Refusal, Row, refuse

SplitName = Literal["probe", "test", "train"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
"""In the order in which they claim content that several tasks hold."""


@dataclass(frozen=True, slots=True)
class TaskSplit:
    """One task's rows, each set in rank order."""

    probe: tuple[Row, ...]
    test: tuple[Row, ...]
    train: tuple[Row, ...]

    def rows(self, split: SplitName) -> tuple[Row, ...]:
        """The rows of one set."""
        match split:
            case "probe":
                return self.probe
            case "test":
                return self.test
            case "train":
                return self.train


def split_rows(rows: Iterable[Row], config: DataConfig, *, seed: int) -> tuple[dict[str, TaskSplit], list[Refusal]]:
    """Split every task's rows.

    Args:
        rows: Distinct within each task. Tasks keep their order of first appearance.
        config: Its sizes are those of a task; `max_held_out_ratio` caps probes and test rows each.
        seed: Another seed gives other sets.

    Returns:
        The sets by task, and the refusals (rule `leak`) of rows another task holds out.
    """
    ranked: dict[str, list[Row]] = {}
    for row in rows:
        ranked.setdefault(row.task, []).append(row)
    claims: dict[str, tuple[SplitName, Row]] = {}
    cuts = {task: _cut(of_task, config, seed) for task, of_task in ranked.items()}
    for name in SPLITS:
        for split in cuts.values():
            for row in split.rows(name):
                claims.setdefault(row.content_hash, (name, row))
    refusals: list[Refusal] = []
    splits = {
        task: TaskSplit(*(_claimed(split, name, claims, refusals) for name in SPLITS)) for task, split in cuts.items()
    }
    return splits, refusals


def held_out_sizes(num_rows: int, config: DataConfig) -> tuple[int, int]:
    """(probes, test rows) of a task with `num_rows` distinct rows: at least one probe, and one row left to train on."""
    cap = int(config.max_held_out_ratio * num_rows)
    num_probes = max(1, min(config.probes_per_task, cap))
    return num_probes, max(0, min(config.test_per_task, cap, num_rows - num_probes - 1))


def check_disjoint(splits: Mapping[str, TaskSplit]) -> None:
    """Require that no content is in two sets, within a task or across tasks.

    Raises:
        DataError: Names two rows of equal content in different sets.
    """
    seen: dict[str, tuple[SplitName, Row]] = {}
    for split in splits.values():
        for name in SPLITS:
            for row in split.rows(name):
                other_name, other = seen.setdefault(row.content_hash, (name, row))
                if other_name != name:
                    raise DataError(
                        f"the {other_name} row {other.source}:{other.line} of task {other.task!r} is also the {name} "
                        f"row {row.source}:{row.line} of task {row.task!r}; remove one of them"
                    )


def require_all_splits(splits: Mapping[str, TaskSplit]) -> None:
    """Require a probe and a training row of every task: leaks may have taken the last one.

    Raises:
        DataError: Names the task and the set that is empty.
    """
    for task, split in splits.items():
        for name in ("probe", "train"):
            if not split.rows(name):
                raise DataError(
                    f"task {task!r} has no {name} row left, because other tasks hold out the same content; "
                    "give it rows of its own, or make it one task with those"
                )


def _rank(content_hash: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{content_hash}".encode(), digest_size=16).digest()


def _cut(rows: Sequence[Row], config: DataConfig, seed: int) -> TaskSplit:
    num_probes, num_test = held_out_sizes(len(rows), config)
    probe: list[Row] = []
    test: list[Row] = []
    train: list[Row] = []
    families = _families(rows, seed)
    for family in sorted(families, key=lambda family: _rank(family[0].content_hash, seed)):
        if len(probe) + len(family) <= num_probes:
            probe += family
        elif len(test) + len(family) <= num_test:
            test += family
        else:
            train += family
    if not probe:
        raise DataError(
            f"task {rows[0].task!r}: none of its {len(families)} families of rows linked by parent_id fits into the "
            f"{num_probes} probes it may hold out; give it more independent rows, or raise data.max_held_out_ratio"
        )
    return TaskSplit(tuple(probe), tuple(test), tuple(train))


def _families(rows: Sequence[Row], seed: int) -> list[list[Row]]:
    """Rows grouped by the root of their `parent_id` chain, the root first, the rest by rank."""
    by_id = {row.id: row for row in rows}
    families: dict[int, list[Row]] = {}
    for row in rows:
        root, seen = row, {row.id}
        while root.parent_id in by_id and root.parent_id not in seen:
            root = by_id[root.parent_id]
            seen.add(root.id)
        families.setdefault(id(root), []).append(row)

    def place(row: Row) -> tuple[bool, bytes]:
        return row.parent_id in by_id, _rank(row.content_hash, seed)

    return [sorted(family, key=place) for family in families.values()]


def _claimed(
    split: TaskSplit, name: SplitName, claims: Mapping[str, tuple[SplitName, Row]], refusals: list[Refusal]
) -> tuple[Row, ...]:
    kept = []
    for row in split.rows(name):
        claimed_by, holder = claims[row.content_hash]
        if claimed_by == name:
            kept.append(row)
        else:
            place = f"{holder.source}:{holder.line}"
            reason = f"same content as {place}, which task {holder.task!r} holds out as {claimed_by}"
            refusals.append(refuse(row, rule="leak", reason=reason))
    return tuple(kept)
