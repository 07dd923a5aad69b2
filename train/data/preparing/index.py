"""The index: what the decisions about rows need to know of them, in 69 bytes a row.

Texts lie in the spill (see `spill`); here are numbers only. A row's place in the index is its place in the order of the
sources, whatever the shards were, so "the first of two equal rows" means the same for every way of cutting the files.
Ids are compared by 64-bit hash, content by 128 bits.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from train.config import DifficultyWeights
from train.data.row import Refusal, Row

AUTO = 4
"""Code of `split: auto`, after the codes of the four sets (their places in `SPLITS`)."""

MAX_SHOWN_REFUSALS = 5
_LOW_BITS = (1 << 64) - 1

ROW_DTYPE = np.dtype(
    [
        ("task", "<i4"),
        ("file", "<i4"),
        ("line", "<i8"),
        ("content_high", "<u8"),
        ("content_low", "<u8"),
        ("rank", "<u8"),
        ("id", "<u8"),
        ("parent", "<u8"),
        ("declared", "<i1"),
        ("difficulty", "<f8"),
        ("num_chars", "<u4"),
    ]
)
"""`parent` is 0 where a row has none; `difficulty` (weighted mean of factors) NaN; `rank` orders rows for splitting."""


@dataclass(slots=True)
class RefusalCounts:
    """How many rows were refused, and the first few that count against the source.

    Attributes:
        by_rule: (source number, rule) to rows.
        first: The first refusals that count towards `max_refused_ratio`, in source order.
        files_of_task: Files of refused rows by task, where the task was known.
    """

    by_rule: Counter[tuple[int, str]] = field(default_factory=Counter)
    first: list[Refusal] = field(default_factory=list)
    files_of_task: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, source: int, refusal: Refusal) -> None:
        """Count one refusal of a row of the source with this number."""
        self.by_rule[source, refusal.rule] += 1
        if refusal.counts and len(self.first) < MAX_SHOWN_REFUSALS:
            self.first.append(refusal)
        if refusal.task:
            self.files_of_task.setdefault(refusal.task, {})[refusal.source] = None

    def merge(self, other: "RefusalCounts") -> None:
        """Add the counts of what came later in source order."""
        self.by_rule.update(other.by_rule)
        self.first = (self.first + other.first)[:MAX_SHOWN_REFUSALS]
        for task, files in other.files_of_task.items():
            self.files_of_task.setdefault(task, {}).update(files)


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """What reading one shard gave, beside its spill files.

    Attributes:
        source: The source's number in the configuration.
        rows: `ROW_DTYPE` [rows], where `task` and `file` are places in `tasks` and `files`.
        tasks: Task names in order of first appearance.
        files: Files of the rows in order of first appearance.
        num_read: Records read: rows, refusals and prompts.
        num_prompts: Rows without an answer, by task.
        refusals: The records refused.
    """

    source: int
    rows: np.ndarray
    tasks: tuple[str, ...]
    files: tuple[str, ...]
    num_read: int
    num_prompts: dict[str, int]
    refusals: RefusalCounts


class IndexBuilder:
    """Collects the index of a shard row by row, in memory of the index's size."""

    def __init__(self, seed: int, difficulty_weights: DifficultyWeights) -> None:
        self._seed = seed
        self._difficulty_weights = difficulty_weights
        self._tasks: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._records: list[tuple[object, ...]] = []
        self._blocks: list[np.ndarray] = []

    def add(self, row: Row, *, declared: int) -> None:
        """Append a row; `declared` is the code of the set its source puts it into."""
        content = int(row.content_hash, 16)
        factors = row.lineage.difficulty_factors
        self._records.append(
            (
                self._tasks.setdefault(row.task, len(self._tasks)),
                self._files.setdefault(row.source, len(self._files)),
                row.line,
                content >> 64,
                content & _LOW_BITS,
                rank_of(row.content_hash, self._seed),
                hash_id(row.id),
                0 if row.parent_id is None else hash_id(row.parent_id),
                declared,
                np.nan if factors is None else self._difficulty_weights.score(factors),
                len(row.answer) + sum([len(content) for _, content in row.messages]),
            )
        )
        if len(self._records) == 4096:
            self._flush()

    def finish(self) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        """The rows, the task names and the files."""
        self._flush()
        return np.concatenate(self._blocks), tuple(self._tasks), tuple(self._files)

    def _flush(self) -> None:
        self._blocks.append(np.array(self._records, dtype=ROW_DTYPE))
        self._records.clear()


@dataclass(frozen=True, slots=True)
class Index:
    """All shards together, in source order.

    Attributes:
        rows: `ROW_DTYPE` [rows], where `task` and `file` are places in `tasks` and `files`.
        tasks: Task names in order of first appearance.
        files: (source number, file).
        shard_starts: int64 [shards + 1]; rows of shard s are those from `shard_starts[s]` up to the next.
    """

    rows: np.ndarray
    tasks: tuple[str, ...]
    files: tuple[tuple[int, str], ...]
    shard_starts: np.ndarray

    def shard_slice(self, shard: int) -> slice:
        """The rows of one shard."""
        return slice(int(self.shard_starts[shard]), int(self.shard_starts[shard + 1]))

    def place(self, row: int) -> str:
        """`file:line` of a row."""
        record = self.rows[row]
        return f"{self.files[record['file']][1]}:{record['line']}"

    def refusal(self, row: int, *, rule: str, reason: str) -> Refusal:
        """The refusal of a row."""
        record = self.rows[row]
        file = self.files[record["file"]][1]
        return Refusal(task=self.tasks[record["task"]], source=file, line=int(record["line"]), rule=rule, reason=reason)


def join(shards: Iterable[ShardIndex]) -> Index:
    """Put the shards' indexes together; their own numbers of tasks and files become those of the whole."""
    tasks: dict[str, int] = {}
    files: dict[tuple[int, str], int] = {}
    blocks: list[np.ndarray] = []
    for shard in shards:
        rows = shard.rows.copy()
        rows["task"] = _renumbered(rows["task"], [tasks.setdefault(name, len(tasks)) for name in shard.tasks])
        numbers = [files.setdefault((shard.source, name), len(files)) for name in shard.files]
        rows["file"] = _renumbered(rows["file"], numbers)
        blocks.append(rows)
    rows = np.concatenate([np.empty(0, dtype=ROW_DTYPE), *blocks])
    starts = np.cumsum([0, *map(len, blocks)], dtype=np.int64)
    return Index(rows=rows, tasks=tuple(tasks), files=tuple(files), shard_starts=starts)


def _renumbered(codes: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.int32)[codes] if len(codes) else codes


def rank_of(content_hash: str, seed: int) -> int:
    """Where a content stands in the order that rows are split in: the first 64 bits of a hash of seed and content."""
    digest = hashlib.blake2b(f"{seed}:{content_hash}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big")


def hash_id(row_id: str) -> int:
    """64-bit hash of an id, never 0."""
    return int.from_bytes(hashlib.blake2b(row_id.encode(errors="surrogatepass"), digest_size=8).digest(), "little") or 1
