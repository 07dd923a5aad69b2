"""Pass 4, second half: the store and its lineage, a segment at a time, in one pass over the sorted files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scheduler.task import TaskSpec
from train.config import SPLITS
from train.data.lineage import LINEAGE_SCHEMA, prepared_with
from train.data.preparing.index import Index
from train.data.preparing.layout import Layout
from train.data.preparing.sorting import SORTED_SCHEMA
from train.data.split import TRAIN
from train.data.store import SplitWriter
from train.data.verify import ontology_version, verification_version


@dataclass(slots=True)
class TaskTotals:
    """Sums over each task's training rows, int64 [tasks], taken while they are written."""

    num_tokens: np.ndarray
    num_supervised: np.ndarray
    num_flagged: np.ndarray
    num_chains: np.ndarray
    num_contrasts: np.ndarray

    @classmethod
    def zero(cls, num_tasks: int) -> "TaskTotals":
        """Nothing written yet."""
        return cls(*(np.zeros(num_tasks, dtype=np.int64) for _ in range(5)))

    def add(self, task: np.ndarray, columns: Mapping[str, pa.Array]) -> None:
        """Add the rows of a batch; `task` is int32 [rows]."""
        for total, values in (
            (self.num_tokens, columns["num_tokens"].to_numpy()),
            (self.num_supervised, columns["num_supervised"].to_numpy()),
            (self.num_flagged, pc.greater(pc.list_value_length(columns["flags"]), 0)),  # pyright: ignore
            (self.num_chains, columns["chain_length"].to_numpy() > 0),
            (self.num_contrasts, columns["contrast_row"].is_valid()),
        ):
            numbers = np.asarray(values).astype(np.int64)
            np.add.at(total, task, numbers)


@dataclass(frozen=True)
class StoreJob:
    """What is written beside the rows themselves.

    Attributes:
        index: All rows.
        layout: Where they go.
        specs: Task cards by name.
        file_hashes: Hash of every file read, by its path.
    """

    index: Index
    layout: Layout
    specs: Mapping[str, TaskSpec]
    file_hashes: Mapping[str, str]

    def write(self, folder: Path, sorted_files: Sequence[Path]) -> Iterator[int | TaskTotals]:
        """Write the store; yields the rows written after every segment, and at last the totals."""
        totals = TaskTotals.zero(len(self.index.tasks))
        with pq.ParquetWriter(folder / "lineage.parquet", LINEAGE_SCHEMA, compression="zstd") as lineage:
            for split in range(len(SPLITS)):
                with self._split_writer(folder, split) as writer:
                    for segment in self._segments_of(split):
                        columns = self._columns(_read_segment(sorted_files, segment))
                        writer.write(columns)
                        arrays = [
                            columns.get(name, columns.get(_ALIASES.get(name, ""))) for name in LINEAGE_SCHEMA.names
                        ]
                        lineage.write_batch(pa.record_batch(arrays, schema=LINEAGE_SCHEMA))
                        if split == TRAIN:
                            totals.add(self.index.rows["task"][self._rows_of(segment)], columns)
                        yield int(self.layout.segments[segment + 1])
        yield totals

    def _segments_of(self, split: int) -> range:
        starts = self._split_starts()
        return range(*np.searchsorted(self.layout.segments, starts[split : split + 2]).tolist())

    def _split_starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.layout.num_rows.sum(axis=1))])

    def _rows_of(self, segment: int) -> np.ndarray:
        start, end = self.layout.segments[segment : segment + 2]
        return self.layout.order[start:end]

    def _split_writer(self, folder: Path, split: int) -> SplitWriter:
        segments = self._segments_of(split)
        bounds = self.layout.segments[segments.start : segments.stop + 1] - self._split_starts()[split]
        return SplitWriter(
            folder / f"{SPLITS[split]}.arrow",
            dict(zip(self.index.tasks, self.layout.num_rows[split].tolist(), strict=True)),
            batch_starts=bounds.tolist(),
            level_sizes=self.layout.level_sizes if split == TRAIN else (),
        )

    def _columns(self, table: pa.Table) -> dict[str, pa.Array]:
        """Every column of the store and of the lineage."""
        columns = {name: table.column(name).combine_chunks() for name in table.column_names}
        numbers = columns["index_row"].to_numpy()
        rows = self.index.rows[numbers]
        columns["num_tokens"] = pa.array(np.diff(columns["input_ids"].offsets.to_numpy()), pa.int32())
        columns["num_supervised"] = pa.array(_supervised(columns["spans"]), pa.int32())
        columns["difficulty"] = pa.array(rows["difficulty"], mask=np.isnan(rows["difficulty"]))
        level = self.layout.level[numbers]
        columns["level"] = pa.array(level, mask=level < 0)
        columns["split"] = _by_code(SPLITS, self.layout.sets[numbers])
        columns["row"] = pa.array(
            columns["position"].to_numpy() - self._task_starts[self.layout.sets[numbers], rows["task"]]
        )
        columns["source_hash"] = _by_code([self.file_hashes[name] for _, name in self.index.files], rows["file"])
        for name, versions in self._versions.items():
            columns[name] = versions.take(pa.array(rows["task"]))
        columns["contrast_with"] = self._contents(columns["contrast_row"])
        parents = columns["chain_row"].fill_null(-1).to_numpy()
        columns["chain_task"] = pa.array(np.where(parents >= 0, self.index.rows["task"][parents], -1), pa.int32())
        columns["prepared_with"] = pa.array([prepared_with()] * len(rows), pa.string())
        return columns

    @cached_property
    def _versions(self) -> dict[str, pa.Array]:
        """Versions of rules and card, by column, for every task."""
        cards = [self.specs.get(name) for name in self.index.tasks]
        return {
            "verification_version": pa.array(map(verification_version, cards), pa.string()),
            "ontology_version": pa.array(map(ontology_version, cards), pa.string()),
        }

    @cached_property
    def _task_starts(self) -> np.ndarray:
        """Place in the store of the first row of every task, int64 [sets, tasks]."""
        sizes = self.layout.num_rows.ravel()
        return (np.cumsum(sizes) - sizes).reshape(self.layout.num_rows.shape)

    def _contents(self, rows: pa.Array) -> pa.Array:
        """Content hashes of some rows of the index, null for null."""
        chosen = (self.index.rows[row] if row is not None else None for row in rows.to_pylist())
        return pa.array(
            [None if row is None else f"{row['content_high']:016x}{row['content_low']:016x}" for row in chosen],
            pa.string(),
        )


_ALIASES = {"num_supervised_tokens": "num_supervised"}


def _read_segment(sorted_files: Sequence[Path], segment: int) -> pa.Table:
    """All rows of a segment, in store order."""
    batches = []
    for path in sorted_files:
        with pa.OSFile(str(path), "rb") as file, pa.ipc.open_file(file) as reader:
            batches.append(reader.get_batch(segment))
    table = pa.Table.from_batches(batches, SORTED_SCHEMA)
    return table.take(pa.array(np.argsort(table.column("position").to_numpy())))


def _by_code(names: Sequence[str | None], codes: np.ndarray) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(codes))


def _supervised(spans: pa.LargeListArray) -> np.ndarray:
    """Supervised tokens of every row: the lengths of its spans, summed."""
    offsets, values = spans.offsets.to_numpy(), spans.values.to_numpy()
    sizes = values[1::2].astype(np.int64) - values[::2]
    total = np.concatenate([[0], np.cumsum(sizes)])
    return total[offsets[1:] // 2] - total[offsets[:-1] // 2]
