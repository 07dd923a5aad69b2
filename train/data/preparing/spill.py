"""The spill: accepted rows of each shard on disk, as read, until it is known where they belong.

    <folder>/rows-00003.arrow        accepted rows of shard 3, in source order, a few thousand a batch
             refused-00003.parquet   refusals of shard 3
             prompts-00003.parquet   its rows without an answer
             tokens-00003.arrow      (see `encoding`)
             sorted-00003.arrow      (see `sorting`)

A file appears under its name only when it is complete, so work on a shard can be done again by another process.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from train.data.row import DIFFICULTY_FACTORS, Lineage, Message, Refusal, Row, messages_text, parse_messages

BATCH_ROWS = 4096
_BATCH_CHARS = 4 << 20

LINEAGE_COLUMNS = tuple(item.name for item in fields(Lineage) if item.name != "difficulty_factors")
_ROW_COLUMNS = ("id", "task", "source", "line", "parent_id", "content_hash", "answer")
_NO_FACTORS = (None,) * len(DIFFICULTY_FACTORS)

ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("parent_id", pa.string()),
        ("content_hash", pa.string()),
        ("messages", pa.string()),
        ("answer", pa.string()),
        *((name, pa.string()) for name in LINEAGE_COLUMNS),
        *((name, pa.float64()) for name in DIFFICULTY_FACTORS),
        ("flags", pa.list_(pa.string())),
    ]
)

REFUSAL_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("rule", pa.string()),
        ("reason", pa.string()),
    ]
)
assert REFUSAL_SCHEMA.names == [item.name for item in fields(Refusal)]

PROMPT_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("messages", pa.string()),
    ]
)


class Text(NamedTuple):
    """What a row says."""

    messages: tuple[Message, ...]
    answer: str

    @property
    def turns(self) -> tuple[Message, ...]:
        """The whole conversation, answer included, without its system message."""
        return (*(message for message in self.messages if message[0] != "system"), ("assistant", self.answer))


class ArrowFile:
    """An Arrow IPC file written under a hidden name and moved into place when the block ends well."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}-{os.getpid()}")
        self._sink = pa.OSFile(str(self._partial), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        self._writer.write_batch(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        self._sink.close()
        if kind is None:
            self._partial.rename(self._path)
        else:
            self._partial.unlink(missing_ok=True)


class ParquetFile:
    """A Parquet file of small records, written in row groups and moved into place when the block ends well."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = path.with_name(f".{path.name}-{os.getpid()}")
        self._writer = pq.ParquetWriter(self._partial, schema)
        self._records: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Append a record."""
        self._records.append(record)
        if len(self._records) >= BATCH_ROWS:
            self._flush()

    def add_file(self, path: Path) -> None:
        """Append every record of another file of the same columns."""
        self._flush()
        with pq.ParquetFile(path) as other:
            for batch in other.iter_batches(batch_size=BATCH_ROWS):
                self._writer.write_batch(batch.cast(self._schema))

    def _flush(self) -> None:
        if self._records:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._records, schema=self._schema))
            self._records.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._partial.rename(self._path)
        else:
            self._partial.unlink(missing_ok=True)


class RowBatches:
    """Gathers rows into batches bounded in rows and in characters."""

    def __init__(self, file: ArrowFile) -> None:
        self._file = file
        self._rows: list[Row] = []
        self._flags: list[tuple[str, ...]] = []
        self._messages: list[str] = []
        self._num_chars = 0

    def add(self, row: Row, flags: tuple[str, ...]) -> None:
        """Append an accepted row."""
        self._rows.append(row)
        self._flags.append(flags)
        self._messages.append(messages_text(row.messages))
        self._num_chars += len(self._messages[-1]) + len(row.answer)
        if len(self._rows) >= BATCH_ROWS or self._num_chars >= _BATCH_CHARS:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        if self._rows:
            columns = row_columns(self._rows) | {"messages": self._messages, "flags": self._flags}
            arrays = [pa.array(columns[field.name], field.type) for field in ROW_SCHEMA]
            self._file.write(pa.record_batch(arrays, schema=ROW_SCHEMA))
            self._rows, self._flags, self._messages, self._num_chars = [], [], [], 0


def row_columns(rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    """The rows' values by column of `ROW_SCHEMA`, but for messages and flags."""
    columns: dict[str, Sequence[Any]] = {name: list(map(attrgetter(name), rows)) for name in _ROW_COLUMNS}
    lineages = [row.lineage for row in rows]
    columns |= {name: list(map(attrgetter(name), lineages)) for name in LINEAGE_COLUMNS}
    factors = [lineage.difficulty_factors or _NO_FACTORS for lineage in lineages]
    return columns | dict(zip(DIFFICULTY_FACTORS, zip(*factors, strict=True), strict=True))


def part(folder: Path, kind: str, shard: int) -> Path:
    """The file of this kind of a shard."""
    suffix = "parquet" if kind in ("refused", "prompts", "faults") else "arrow"
    return folder / f"{kind}-{shard:05d}.{suffix}"


def iterate_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, read one at a time (not mapped, so that no page of it stays with the process)."""
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_file(file) as reader:
        for place in range(reader.num_record_batches):
            yield reader.get_batch(place)


def read_texts(folder: Path, shard_starts: np.ndarray, rows: np.ndarray) -> dict[int, Text]:
    """The texts of some rows of the index, whatever shards they are in.

    Args:
        folder: The spill.
        shard_starts: int64 [shards + 1], as in `Index`.
        rows: Row numbers, in any order, with or without repetition.
    """
    found: dict[int, Text] = {}
    wanted = np.unique(rows)
    shards = np.searchsorted(shard_starts, wanted, side="right") - 1
    for shard in np.unique(shards).tolist():
        local = wanted[shards == shard] - shard_starts[shard]
        with pa.memory_map(str(part(folder, "rows", shard))) as file, pa.ipc.open_file(file) as reader:
            start = 0
            for place in range(reader.num_record_batches):
                batch = reader.get_batch(place)
                first, last = np.searchsorted(local, [start, start + batch.num_rows])
                if first < last:
                    chosen = batch.select(["messages", "answer"]).take(pa.array(local[first:last] - start))
                    numbers = (local[first:last] + shard_starts[shard]).tolist()
                    texts = (chosen.column(name).to_pylist() for name in ("messages", "answer"))
                    for number, messages, answer in zip(numbers, *texts, strict=True):
                        found[number] = Text(parse_messages(messages), answer)
                start += batch.num_rows
    return found
