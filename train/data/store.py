"""The tokenised store: every example tokenised once, read by index without copying.

    <folder>/train.arrow, probe.arrow, selection.arrow, test.arrow      Arrow IPC files, rows sorted by task
             lineage.parquet                                            where each row comes from (see `lineage`)

Training rows of a task are sorted by difficulty level, easiest first. The schema metadata of a file says how many rows
each task has and where each record batch begins, so opening reads no row and no batch, whatever their number; a batch
is looked at when a row of it is asked for first. Files are memory-mapped: processes on a machine share the pages, and
`encoded` returns views.

A row may also be stored in context (chain, contrast); its supervised tokens are the same there. A store is written
once and never changed. Which example to read when is the stream's business, not the store's.
"""

import bisect
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from scheduler.errors import DataError
from train.config import SPLITS, SplitName
from train.data.arrangement import CHAIN, CONTRAST, SINGLE
from train.data.lineage import read_lineage
from train.data.row import Message, parse_messages

SCHEMA_VERSION = 3

TEXT_COLUMNS = ("id", "content_hash", "source", "line", "messages", "answer")
_IDS = {SINGLE: "input_ids", CHAIN: "chain_ids", CONTRAST: "contrast_ids"}
_LISTS = pa.large_list(pa.int32())

STORE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("content_hash", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("messages", pa.string()),
        ("answer", pa.string()),
        ("difficulty", pa.float64()),
        ("num_supervised", pa.int32()),
        ("spans", _LISTS),
        *((name, _LISTS) for name in _IDS.values()),
        ("chain_answer", _LISTS),
        ("chain_task", pa.int32()),
    ]
)


class EncodedRow(NamedTuple):
    """One example as tokens.

    Attributes:
        input_ids: Read-only view, int32 [T].
        spans: int32 [S, 2]; the supervised positions are the union of [start, end). The last one is the answer's.
    """

    input_ids: np.ndarray
    spans: np.ndarray

    @property
    def answer_start(self) -> int:
        """Where the answer begins; it ends with the row."""
        return int(self.spans[-1, 0])


@dataclass(frozen=True, slots=True)
class Example:
    """One example as text, for those who generate and judge."""

    id: str
    messages: tuple[Message, ...]
    answer: str


class _Lists(NamedTuple):
    """A list column; a memoryview indexes to a plain int several times as fast as an array does."""

    offsets: memoryview
    values: np.ndarray


class _Batch:
    """A record batch with its list columns, each decoded when first asked for."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.columns = batch
        self._lists: dict[str, _Lists] = {}

    def get(self, name: str, row: int) -> np.ndarray:
        lists = self._lists.get(name)
        if lists is None:
            column = self.columns.column(name)
            lists = _Lists(memoryview(column.offsets.to_numpy()), column.values.to_numpy(zero_copy_only=True))
            self._lists[name] = lists
        return lists.values[lists.offsets[row] : lists.offsets[row + 1]]


@dataclass(slots=True)
class _SplitFile:
    """One split: where its tasks and its batches begin, and the batches looked at so far."""

    path: Path
    reader: Any
    names: tuple[str, ...]
    task_starts: list[int]
    batch_starts: list[int]
    level_sizes: list[list[int]]
    batches: dict[int, _Batch] = field(default_factory=dict)

    def batch(self, place: int) -> _Batch:
        found = self.batches.get(place)
        if found is None:
            found = self.batches[place] = _Batch(self._read_batch(place))
        return found

    def _read_batch(self, place: int) -> pa.RecordBatch:
        try:
            batch = self.reader.get_batch(place)
            batch.validate()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(_damaged(self.path, error)) from error
        return batch

    def find(self, task: int, row: int) -> tuple[_Batch, int]:
        start, end = self.task_starts[task], self.task_starts[task + 1]
        if not 0 <= row < end - start:
            raise IndexError(f"row {row} of a task with {end - start} rows")
        place = bisect.bisect_right(self.batch_starts, start + row) - 1
        return self.batch(place), start + row - self.batch_starts[place]

    def slices(self, task: int) -> Iterator[pa.RecordBatch]:
        """The task's rows, batch by batch."""
        start, end = self.task_starts[task], self.task_starts[task + 1]
        place = bisect.bisect_right(self.batch_starts, start) - 1
        while start < end:
            stop = min(end, self.batch_starts[place + 1])
            yield self.batch(place).columns.slice(start - self.batch_starts[place], stop - start)
            start, place = stop, place + 1


class TokenStore:
    """Read access to a store. Tasks are addressed by their place in `task_names`, rows by their place in the split."""

    def __init__(self, path: Path, files: Mapping[SplitName, _SplitFile]) -> None:
        self.path = path
        self.task_names = files["train"].names
        self._files = files

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store in the folder `path`.

        Raises:
            DataError: There is no store, or it is damaged, or of another version.
        """
        return cls(path, {split: _open_split(path / f"{split}.arrow") for split in SPLITS})

    def num_rows(self, task: int, split: SplitName = "train") -> int:
        """Number of examples of the task in the split."""
        starts = self._files[split].task_starts
        return starts[task + 1] - starts[task]

    def first_position(self, task: int, split: SplitName = "train") -> int:
        """Rows of the store before the task's first in the split; counted through the splits in their order."""
        before = itertools.takewhile(lambda name: name != split, SPLITS)
        return sum(self._files[name].task_starts[-1] for name in before) + self._files[split].task_starts[task]

    def level_sizes(self, task: int) -> tuple[int, ...]:
        """Training rows of each difficulty level, easiest first; rows are sorted by it."""
        return tuple(self._files["train"].level_sizes[task])

    def encoded(self, task: int, row: int, split: SplitName = "train", arrangement: int = SINGLE) -> EncodedRow:
        """The tokens of one example; alone where it does not exist in that arrangement.

        Raises:
            IndexError: There is no such row.
        """
        batch, place = self._files[split].find(task, row)
        alone = batch.get("input_ids", place)
        spans = batch.get("spans", place).reshape(-1, 2)
        if arrangement != SINGLE:
            arranged = batch.get(_IDS[arrangement], place)
            if len(arranged):
                return EncodedRow(arranged, spans + np.int32(len(arranged) - len(alone)))
        return EncodedRow(alone, spans)

    def chain_answer(self, task: int, row: int) -> tuple[int, int]:
        """Where the last earlier answer stands in a training row's chain, stop token included; (0, 0) for none."""
        batch, place = self._files["train"].find(task, row)
        start, end = batch.get("chain_answer", place).tolist() or (0, 0)
        return start, end

    def chain_task(self, task: int, row: int) -> int:
        """The task of that answer; -1 where the training row has no chain, or repeats the answer in its own turns."""
        batch, place = self._files["train"].find(task, row)
        return batch.columns.column("chain_task")[place].as_py() if len(batch.get("chain_answer", place)) else -1

    def is_arranged(self, task: int, row: int, arrangement: int) -> bool:
        """Whether one training example is stored in that arrangement; see `has_arrangement` for all of them."""
        batch, place = self._files["train"].find(task, row)
        return len(batch.get(_IDS[arrangement], place)) > 0

    def has_arrangement(self, task: int, arrangement: int, split: SplitName = "train") -> np.ndarray:
        """Whether each example is stored in that arrangement, bool [rows]; every one is in the single."""
        return self._gather(task, split, lambda batch: _sizes(batch, _IDS[arrangement]) > 0, dtype=bool)

    def supervised_lengths(self, task: int, split: SplitName = "train") -> np.ndarray:
        """Supervised tokens of every example (answers and stop tokens), int32 [rows]; in any arrangement."""
        return self._gather(task, split, lambda batch: batch.column("num_supervised").to_numpy(), dtype=np.int32)

    def lengths(self, task: int, split: SplitName = "train", arrangement: int = SINGLE) -> np.ndarray:
        """Tokens of every example, prompt included, int32 [rows]; 0 where it does not exist in that arrangement."""
        return self._gather(task, split, lambda batch: _sizes(batch, _IDS[arrangement]), dtype=np.int32)

    def difficulty(self, task: int, split: SplitName = "train") -> np.ndarray:
        """Weighted mean of the difficulty factors of every example, float64 [rows]; NaN where the source gave none."""
        return self._gather(
            task, split, lambda batch: batch.column("difficulty").to_numpy(zero_copy_only=False), dtype=np.float64
        )

    def examples(self, task: int, split: SplitName = "train") -> list[Example]:
        """Every example as text, in row order."""
        columns = (self.column(task, name, split) for name in ("id", "messages", "answer"))
        return [
            Example(id=row_id, messages=parse_messages(messages), answer=answer)
            for row_id, messages, answer in zip(*columns, strict=True)
        ]

    def column(self, task: int, name: str, split: SplitName = "train") -> list[Any]:
        """One column of `TEXT_COLUMNS` of every example, in row order."""
        return [value for batch in self._files[split].slices(task) for value in batch.column(name).to_pylist()]

    def texts(self, task: int, rows: Sequence[int], split: SplitName = "train") -> list[dict[str, Any]]:
        """The `TEXT_COLUMNS` of some examples; messages are parsed."""
        found = []
        for row in rows:
            batch, place = self._files[split].find(task, row)
            record = {name: batch.columns.column(name)[place].as_py() for name in TEXT_COLUMNS}
            found.append(record | {"messages": parse_messages(record["messages"])})
        return found

    def row_id(self, task: int, row: int, split: SplitName = "train") -> str:
        """The example's id in its source."""
        batch, place = self._files[split].find(task, row)
        return batch.columns.column("id")[place].as_py()

    def content_hashes(self, task: int, split: SplitName = "train") -> list[str]:
        """The content hash of every example, in row order."""
        return self.column(task, "content_hash", split)

    def lineage(self, task: int, split: SplitName, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Where some examples come from, a value for each column of `train.data.lineage.LINEAGE_SCHEMA`."""
        first = self.first_position(task, split)
        return read_lineage(self.path / "lineage.parquet", [first + row for row in rows])

    def _gather(
        self, task: int, split: SplitName, read: Callable[[pa.RecordBatch], np.ndarray], *, dtype: Any
    ) -> np.ndarray:
        parts = [read(batch) for batch in self._files[split].slices(task)]
        return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype, copy=False)


def _sizes(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return np.diff(batch.column(name).offsets.to_numpy()).astype(np.int32)


def _open_split(path: Path) -> _SplitFile:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        version = int(metadata.get(b"schema_version", b"-1"))
        if version != SCHEMA_VERSION:
            raise DataError(_damaged(path, f"it is of version {version}, expected {SCHEMA_VERSION}"))
        sizes = json.loads(metadata[b"num_rows"])
        return _SplitFile(
            path=path,
            reader=reader,
            names=tuple(json.loads(metadata[b"tasks"])),
            task_starts=[0, *itertools.accumulate(sizes)],
            batch_starts=json.loads(metadata[b"batch_starts"]),
            level_sizes=json.loads(metadata[b"level_sizes"]),
        )
    except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise DataError(_damaged(path, error)) from error


def _damaged(path: Path, fault: object) -> str:
    folder = path.parent.parent
    return f"no readable token store at {path} ({fault}); delete the prepared folder {folder} and prepare again"


class SplitWriter:
    """Writes one split's file, batch by batch in store order; use it in a `with`.

    Args:
        path: The file.
        tasks: Rows by task name, in order.
        batch_starts: Row at which every batch begins, and the number of rows.
        level_sizes: Rows by task and difficulty level; empty where levels mean nothing.
    """

    def __init__(
        self,
        path: Path,
        tasks: Mapping[str, int],
        *,
        batch_starts: Sequence[int],
        level_sizes: Sequence[Sequence[int]] = (),
    ) -> None:
        metadata = {
            "schema_version": str(SCHEMA_VERSION),
            "tasks": json.dumps(list(tasks), ensure_ascii=False),
            "num_rows": json.dumps(list(tasks.values())),
            "batch_starts": json.dumps(list(batch_starts)),
            "level_sizes": json.dumps(list(map(list, level_sizes)) or [[size] for size in tasks.values()]),
        }
        self._schema = STORE_SCHEMA.with_metadata(metadata)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Append a batch of rows, by column of `STORE_SCHEMA`."""
        arrays = [columns[item.name] for item in self._schema]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._sink.close()
