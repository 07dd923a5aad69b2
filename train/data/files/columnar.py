"""Rows of Parquet and Arrow files, batch by batch. The line of a row is its number in the file, 1-based."""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from scheduler.errors import DataError
from train.data.files.record import BadRecord, Record, too_long

_BATCH_ROWS = 1024
_FAULTS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError)


def row_group_sizes(file: BinaryIO, *, path: str) -> list[tuple[int, int]]:
    """(rows, bytes) of every row group.

    Raises:
        DataError: The file is not Parquet.
    """
    try:
        metadata = pq.ParquetFile(file).metadata
    except _FAULTS as error:
        raise DataError(f"data source {path}: not readable as Parquet ({error}); write it again") from error
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    return [(group.num_rows, group.total_byte_size) for group in groups]


def read_parquet(
    file: BinaryIO, *, path: str, groups: range, first_line: int, max_bytes: int
) -> Iterator[tuple[int, Record]]:
    """`(line, record)` of the rows of some row groups.

    Raises:
        DataError: A row group cannot be read.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS, row_groups=list(groups))

    return _records(batches(), path=path, form="Parquet", first_line=first_line, max_bytes=max_bytes)


def read_arrow(file: BinaryIO, *, path: str, max_bytes: int) -> Iterator[tuple[int, Record]]:
    """`(line, record)` of an Arrow IPC file or stream.

    Raises:
        DataError: The file is neither, or breaks off.
    """

    def batches() -> Iterator[pa.RecordBatch]:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        if is_file:
            reader = pa.ipc.open_file(file)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from pa.ipc.open_stream(file)

    return _records(batches(), path=path, form="Arrow", first_line=1, max_bytes=max_bytes)


def _records(
    batches: Iterable[pa.RecordBatch], *, path: str, form: str, first_line: int, max_bytes: int
) -> Iterator[tuple[int, Record]]:
    line = first_line
    try:
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                for record in _rows(batch.slice(start, _BATCH_ROWS)):
                    size = 0 if isinstance(record, BadRecord) else _num_chars(record)
                    yield line, too_long(size, max_bytes) if size > max_bytes else record
                    line += 1
    except _FAULTS as error:
        raise DataError(
            f"data source {path}: not readable as {form} after row {line - 1} ({error}); write it again"
        ) from error


def _rows(batch: pa.RecordBatch) -> list[Record]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [BadRecord("invalid_utf8", f"not UTF-8: {error.reason} at byte {error.start} of a value")]
    return [record for row in range(batch.num_rows) for record in _rows(batch.slice(row, 1))]


def _num_chars(value: Any) -> int:
    """Characters of all the texts in a value."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_num_chars, value.values()))
    return sum(map(_num_chars, value)) if isinstance(value, list) else 0
