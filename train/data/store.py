"""The tokenised store: every example tokenised once, read by index without copying.

    <folder>/train.arrow, probe.arrow, test.arrow      Arrow IPC files; record batch i holds the rows of task i

One file per split keeps the number of open files at three whatever the number of tasks; a batch per task keeps each
task contiguous. The files are memory-mapped: opening reads only their footers, processes on a machine share the pages,
and `encoded` returns views. Task names, in order, stand in each file's schema metadata.

A store is written once and never changed. Which example to read when is the stream's business, not the store's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from scheduler.errors import DataError
from train.data.row import Message, Row
from train.data.split import SPLITS, SplitName
from train.tokenizer import Encoded

SCHEMA_VERSION = 1

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("content_hash", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("reviewer", pa.string()),
        ("review_status", pa.string()),
        ("parent_id", pa.string()),
        ("difficulty", pa.float64()),
        ("messages", pa.string()),
        ("answer", pa.string()),
        ("input_ids", pa.large_list(pa.int32())),
        ("answer_start", pa.int32()),
    ]
)


class EncodedRow(NamedTuple):
    """One example as tokens. `input_ids` is a read-only view, int32 [T]; positions [answer_start, T) are supervised."""

    input_ids: np.ndarray
    answer_start: int


@dataclass(frozen=True, slots=True)
class Example:
    """One example as text, for those who generate and judge."""

    id: str
    messages: tuple[Message, ...]
    answer: str


class _TaskTokens(NamedTuple):
    """One task's columns; a memoryview indexes to a plain int several times as fast as an array does."""

    offsets: memoryview
    values: np.ndarray
    answer_starts: memoryview


class TokenStore:
    """Read access to a store. Tasks are addressed by their place in `task_names`, rows by their place in the split."""

    def __init__(
        self, path: Path, task_names: tuple[str, ...], batches: Mapping[str, Sequence[pa.RecordBatch]]
    ) -> None:
        self.path = path
        self.task_names = task_names
        self._batches = batches
        self._tokens: dict[tuple[int, str], _TaskTokens] = {}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store in the folder `path`, one `write_split` for each split.

        Raises:
            DataError: There is no store, or it is damaged, or of another version.
        """
        names: tuple[str, ...] = ()
        batches: dict[str, list[pa.RecordBatch]] = {}
        for split in SPLITS:
            names, batches[split] = _open_split(path / f"{split}.arrow")
        return cls(path, names, batches)

    def num_rows(self, task: int, split: SplitName = "train") -> int:
        """Number of examples of the task in the split."""
        return self._batches[split][task].num_rows

    def encoded(self, task: int, row: int, split: SplitName = "train") -> EncodedRow:
        """The tokens of one example."""
        tokens = self._tokens.get((task, split)) or self._load(task, split)
        start, end = tokens.offsets[row], tokens.offsets[row + 1]
        return EncodedRow(tokens.values[start:end], tokens.answer_starts[row])

    def supervised_lengths(self, task: int, split: SplitName = "train") -> np.ndarray:
        """Supervised tokens of every example (answer and stop token), int32 [rows]."""
        batch = self._batches[split][task]
        lengths = np.diff(batch.column("input_ids").offsets.to_numpy())
        return (lengths - batch.column("answer_start").to_numpy()).astype(np.int32)

    def lengths(self, task: int, split: SplitName = "train") -> np.ndarray:
        """Tokens of every example, prompt included, int32 [rows]."""
        return np.diff(self._batches[split][task].column("input_ids").offsets.to_numpy()).astype(np.int32)

    def examples(self, task: int, split: SplitName = "train") -> list[Example]:
        """Every example as text, in row order."""
        batch = self._batches[split][task]
        columns = (batch.column(name).to_pylist() for name in ("id", "messages", "answer"))
        return [
            Example(id=row_id, messages=tuple((role, content) for role, content in json.loads(messages)), answer=answer)
            for row_id, messages, answer in zip(*columns, strict=True)
        ]

    def row_id(self, task: int, row: int, split: SplitName = "train") -> str:
        """The example's id in its source."""
        return self._batches[split][task].column("id")[row].as_py()

    def content_hashes(self, task: int, split: SplitName = "train") -> list[str]:
        """The content hash of every example, in row order."""
        return self._batches[split][task].column("content_hash").to_pylist()

    def difficulty(self, task: int, split: SplitName = "train") -> np.ndarray:
        """Mean of the difficulty factors of every example, float64 [rows]; NaN where the source gave none."""
        return self._batches[split][task].column("difficulty").to_numpy(zero_copy_only=False)

    def _load(self, task: int, split: SplitName) -> _TaskTokens:
        batch = self._batches[split][task]
        column = batch.column("input_ids")
        tokens = _TaskTokens(
            offsets=memoryview(column.offsets.to_numpy()),
            values=column.values.to_numpy(zero_copy_only=True),
            answer_starts=memoryview(batch.column("answer_start").to_numpy()),
        )
        self._tokens[task, split] = tokens
        return tokens


def _open_split(path: Path) -> tuple[tuple[str, ...], list[pa.RecordBatch]]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata or {}
        version = int(metadata.get(b"schema_version", b"-1"))
        if version != SCHEMA_VERSION:
            raise DataError(f"token store {path} is of version {version}, expected {SCHEMA_VERSION}; prepare it again")
        names = tuple(json.loads(metadata[b"tasks"]))
        return names, [reader.get_batch(place) for place in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"no readable token store at {path} ({error}); prepare the data again") from error


def write_split(path: Path, tasks: Mapping[str, Sequence[tuple[Row, Encoded]]]) -> None:
    """Write one split: for every task, in order, its rows with their tokens; a task may have none."""
    metadata = {"schema_version": str(SCHEMA_VERSION), "tasks": json.dumps(list(tasks), ensure_ascii=False)}
    schema = _SCHEMA.with_metadata(metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for rows in tasks.values():
            writer.write_batch(_batch(rows, schema))


def _batch(rows: Sequence[tuple[Row, Encoded]], schema: pa.Schema) -> pa.RecordBatch:
    ids = [encoded.input_ids for _, encoded in rows]
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in ids], dtype=np.int64)]).astype(np.int64)
    values = np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)
    columns: dict[str, pa.Array] = {
        "input_ids": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values, pa.int32())),
        "answer_start": pa.array([encoded.answer_start for _, encoded in rows], pa.int32()),
        "messages": pa.array([json.dumps(row.messages, ensure_ascii=False) for row, _ in rows], pa.string()),
        "difficulty": pa.array([_mean(row.difficulty_factors) for row, _ in rows], pa.float64()),
    }
    arrays = [
        columns[field.name]
        if field.name in columns
        else pa.array([getattr(row, field.name) for row, _ in rows], field.type)
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def _mean(factors: tuple[float, ...] | None) -> float | None:
    return None if factors is None else sum(factors) / len(factors)
