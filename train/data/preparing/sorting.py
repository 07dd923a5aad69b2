"""Pass 4, first half: the used rows of a shard in store order, complete but for what only the whole knows.

`sorted-00003-0.arrow` has one batch for every segment of the layout (see `layout`), empty ones included, so the store
is written by reading batch k of every such file for segment k: an external sort by partition.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from train.data.arrangement import CHAIN, CONTRAST
from train.data.preparing.arranging import Alone, Arranged, arrange
from train.data.preparing.encoding import TOKEN_SCHEMA, Encoder, int_lists
from train.data.preparing.spill import (
    ROW_SCHEMA,
    ArrowFile,
    Text,
    iterate_batches,
    part,
    read_texts,
)
from train.data.row import parse_messages

_CONTEXT_CHUNK_ROWS = 2048
_BLOCK_ROWS = 32_768
_BLOCK_BYTES = 48 << 20
_ARRANGED_SCHEMA = pa.schema(
    [
        ("chain_ids", pa.large_list(pa.int32())),
        ("contrast_ids", pa.large_list(pa.int32())),
        ("chain_length", pa.int32()),
        ("chain_answer", pa.large_list(pa.int32())),
        ("chain_row", pa.int64()),
        ("contrast_row", pa.int64()),
    ]
)
SORTED_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("index_row", pa.int64()),
        *ROW_SCHEMA,
        *(field for field in TOKEN_SCHEMA if field.name != "row"),
        *_ARRANGED_SCHEMA,
    ]
)


@dataclass(frozen=True, slots=True)
class ShardToSort:
    """One shard and where its rows go.

    Attributes:
        number: The shard's number.
        position: int64 [rows of the shard]; place in the store's order, -1 for rows that are not stored.
        ancestors: For every stored row that continues others, by place in the shard: their numbers, furthest first.
        contrast: int64 [rows of the shard]; the row to contrast with, -1 for none.
    """

    number: int
    position: np.ndarray
    ancestors: dict[int, tuple[int, ...]]
    contrast: np.ndarray


@dataclass(frozen=True, slots=True)
class SortJob:
    """Sorts shards of the spill.

    Attributes:
        spill: Its folder.
        encoder: For rows in context.
        arrangements: Which arrangements are wanted beside the single one.
        shard_starts: int64 [shards + 1], as in `Index`.
        segments: int64 [segments + 1], as in `Layout`.
    """

    spill: Path
    encoder: Encoder
    arrangements: frozenset[int]
    shard_starts: np.ndarray
    segments: np.ndarray

    def __call__(self, item: ShardToSort) -> list[Path]:
        """Sort one shard; returns the files written, one for every so many rows."""
        rows = _Rows(part(self.spill, "rows", item.number))
        return [
            self._sort_block(item, tokens, rows, self.spill / f"sorted-{item.number:05d}-{number}.arrow")
            for number, tokens in enumerate(self._token_blocks(item))
        ]

    def _token_blocks(self, item: ShardToSort) -> Iterator[pa.Table]:
        """The tokens of the stored rows, bounded in rows and bytes, so that a shard may be of any size."""
        batches: list[pa.RecordBatch] = []
        for batch in iterate_batches(part(self.spill, "tokens", item.number)):
            batches.append(batch.filter(pa.array(item.position[batch.column("row").to_numpy()] >= 0)))
            if sum(map(len, batches)) >= _BLOCK_ROWS or sum(held.nbytes for held in batches) >= _BLOCK_BYTES:
                yield pa.Table.from_batches(batches)
                batches = []
        if sum(map(len, batches)):
            yield pa.Table.from_batches(batches)

    def _sort_block(self, item: ShardToSort, tokens: pa.Table, reader: "_Rows", path: Path) -> Path:
        local = tokens.column("row").to_numpy()
        rows = reader.take(local)
        position = item.position[local]
        columns = [
            pa.array(position),
            pa.array(local + self.shard_starts[item.number]),
            *rows.columns,
            *tokens.drop_columns(["row"]).columns,
            *self._arranged(item, rows, tokens).columns,
        ]
        order = np.argsort(position)
        table = pa.table(columns, schema=SORTED_SCHEMA).take(pa.array(order)).combine_chunks()
        bounds = np.searchsorted(position[order], self.segments).tolist()
        with ArrowFile(path, SORTED_SCHEMA) as file:
            for start, end in itertools.pairwise(bounds):
                file.write(_as_one_batch(table.slice(start, end - start)))
        return path

    def _arranged(self, item: ShardToSort, rows: pa.Table, tokens: pa.Table) -> pa.Table:
        """The columns of `_ARRANGED_SCHEMA`, made a few thousand rows at a time."""
        local = tokens.column("row").to_numpy()
        blocks: list[pa.Table] = []
        wanted = self.arrangements & {CHAIN, CONTRAST}
        for start in range(0, len(local) if wanted else 0, _CONTEXT_CHUNK_ROWS):
            chunk = local[start : start + _CONTEXT_CHUNK_ROWS].tolist()
            chains = [item.ancestors.get(row, ()) if CHAIN in wanted else () for row in chunk]
            contrasts = [(int(item.contrast[row]),) if CONTRAST in wanted else () for row in chunk]
            contrasts = [context if context != (-1,) else () for context in contrasts]
            alone = _alone(rows.slice(start, len(chunk)), tokens.slice(start, len(chunk)))
            needed = np.array([row for context in (*chains, *contrasts) for row in context], dtype=np.int64)
            texts = read_texts(self.spill, self.shard_starts, needed)
            blocks.append(
                _arranged_table(
                    arrange(self.encoder, alone, chains, texts), arrange(self.encoder, alone, contrasts, texts)
                )
            )
        if not wanted:
            return _arranged_table([None] * len(local), [None] * len(local))
        return pa.concat_tables([_ARRANGED_SCHEMA.empty_table(), *blocks])


class _Rows:
    """Reads the spilled rows of a shard once, forward."""

    def __init__(self, path: Path) -> None:
        self._batches = iterate_batches(path)
        self._batch: pa.RecordBatch | None = None
        self._start = 0

    def take(self, local: np.ndarray) -> pa.Table:
        """The rows at these places of the shard, ascending and all after those taken before."""
        blocks: list[pa.RecordBatch] = []
        while True:
            batch = self._batch = self._batch or next(self._batches)
            end = self._start + batch.num_rows
            first, last = np.searchsorted(local, [self._start, end])
            blocks.append(batch.take(pa.array(local[first:last] - self._start)))
            if local[-1] < end:
                return pa.Table.from_batches(blocks, ROW_SCHEMA)
            self._batch, self._start = None, end


def _alone(rows: pa.Table, tokens: pa.Table) -> list[Alone]:
    ids = tokens.column("input_ids").combine_chunks()
    values, offsets = ids.values.to_numpy(), ids.offsets.to_numpy()
    texts = zip(rows.column("messages").to_pylist(), rows.column("answer").to_pylist(), strict=True)
    spans = tokens.column("spans").to_pylist()
    return [
        Alone(Text(parse_messages(messages), answer), values[offsets[place] : offsets[place + 1]], spans[place][0])
        for place, (messages, answer) in enumerate(texts)
    ]


def _arranged_table(chains: Sequence[Arranged | None], contrasts: Sequence[Arranged | None]) -> pa.Table:
    return pa.table(
        [
            int_lists([None if item is None else item.input_ids for item in chains]),
            int_lists([None if item is None else item.input_ids for item in contrasts]),
            pa.array([0 if item is None else len(item.context) for item in chains], pa.int32()),
            int_lists([None if item is None else np.array(item.answer or (), dtype=np.int32) for item in chains]),
            pa.array([None if item is None else item.context[-1] for item in chains], pa.int64()),
            pa.array([None if item is None else item.context[0] for item in contrasts], pa.int64()),
        ],
        schema=_ARRANGED_SCHEMA,
    )


def _as_one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
