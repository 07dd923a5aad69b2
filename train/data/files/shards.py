"""Sources cut into shards, each of which one process reads from beginning to end."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from scheduler.errors import DataError
from train.config import DataConfig, SourceConfig, SplitName
from train.data.files.columnar import read_arrow, read_parquet, row_group_sizes
from train.data.files.csv_rows import read_csv
from train.data.files.json_array import read_array
from train.data.files.lines import BOM, Cut, count_lines, cut_at_line_ends, read_lines
from train.data.files.paths import DataFile, find_files, open_binary
from train.data.files.record import Record

Kind = Literal["lines", "array", "csv", "parquet", "arrow"]
SHARD_BYTES = 8 << 20
"""Some thirty thousand rows of three hundred characters: a few seconds of work, so that progress is seen."""
_WIDE_ENCODINGS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of one file.

    Attributes:
        file: The file, with what its place says of task and set.
        kind: How it is read.
        part: Bytes of a file of lines, row groups of Parquet: [start, end) and the number of the first line or row.
            Other kinds are not cut: `end` is 0 and means nothing.
        max_line_bytes: A longer record is refused.
        max_records: Read no more than this; None reads all.
    """

    file: DataFile
    kind: Kind
    part: Cut
    max_line_bytes: int
    max_records: int | None = None

    @property
    def split(self) -> SplitName | None:
        """The held-out set the file's split of a saved `DatasetDict` is meant for; None where the path names none."""
        return self.file.split


def shards(source: SourceConfig, data: DataConfig, *, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """The shards of a source, in the order of its rows; together they give `source.max_rows` records at most.

    Args:
        source: The source; only its path and `max_rows` matter here.
        data: For `max_line_bytes`.
        shard_bytes: Size from which JSONL is cut at the next line end, Parquet at the next row group.

    Raises:
        DataError: A file is missing, of an unknown extension, in UTF-16 or UTF-32, or not Parquet.
    """
    found = find_files(source.path)
    cut = itertools.chain.from_iterable(
        _cut(file, max_line_bytes=data.max_line_bytes, shard_bytes=shard_bytes) for file in found
    )
    return list(cut if source.max_rows is None else _limited(cut, source.max_rows))


def read_shard(shard: Shard) -> Iterator[tuple[int, Record]]:
    """`(line, record)` in file order: the line a JSON or CSV record begins on, the row number in a columnar file.

    Raises:
        DataError: The file cannot be read, or not to its end.
    """
    with open_binary(shard.file.path) as file:
        yield from itertools.islice(_records(shard, file), shard.max_records)


def _records(shard: Shard, file: BinaryIO) -> Iterator[tuple[int, Record]]:
    path, part, max_bytes = shard.file.path, shard.part, shard.max_line_bytes
    match shard.kind:
        case "lines":
            file.seek(part.start)
            size = part.end - part.start
            return read_lines(file, first_line=part.first_line, max_bytes=max_bytes, num_bytes=size)
        case "array":
            return read_array(file, max_bytes=max_bytes)
        case "csv":
            return read_csv(file, path=path, max_bytes=max_bytes)
        case "parquet":
            groups = range(part.start, part.end)
            return read_parquet(file, path=path, groups=groups, first_line=part.first_line, max_bytes=max_bytes)
        case "arrow":
            return read_arrow(file, path=path, max_bytes=max_bytes)


def _cut(file: DataFile, *, max_line_bytes: int, shard_bytes: int) -> Iterator[Shard]:
    with open_binary(file.path) as opened:
        kind = _kind(file, opened)
        match kind:
            case "lines":
                parts = cut_at_line_ends(opened, shard_bytes=shard_bytes)
            case "parquet":
                parts = _cut_at_row_groups(row_group_sizes(opened, path=file.path), shard_bytes)
            case _:
                parts = iter([Cut(0, 0, 1)])
        for part in parts:
            yield Shard(file, kind, part, max_line_bytes)


def _cut_at_row_groups(sizes: list[tuple[int, int]], shard_bytes: int) -> Iterator[Cut]:
    start = num_bytes = num_rows = 0
    first_row = 1
    for number, (rows, size) in enumerate(sizes, start=1):
        num_rows, num_bytes = num_rows + rows, num_bytes + size
        if num_bytes >= shard_bytes or number == len(sizes):
            yield Cut(start, number, first_row)
            start, first_row, num_bytes = number, num_rows + 1, 0


def _kind(file: DataFile, opened: BinaryIO) -> Kind:
    match file.extension:
        case ".parquet":
            return "parquet"
        case ".arrow" | ".feather":
            return "arrow"
        case extension:
            first = _first_character(opened, file.path)
            opened.seek(0)
    if extension == ".csv":
        return "csv"
    return "array" if extension == ".json" and first == b"[" else "lines"


def _first_character(file: BinaryIO, path: str) -> bytes:
    """The first byte of the text that is not white space.

    Raises:
        DataError: The file is in UTF-16 or UTF-32.
    """
    head = file.read(4)
    encoding = next((name for mark, name in _WIDE_ENCODINGS if head.startswith(mark)), None)
    if encoding is None and len(head) == 4 and (head[::2] == b"\0\0") != (head[1::2] == b"\0\0"):
        encoding = "UTF-16"
    if encoding is not None:
        raise DataError(f"data source {path} is in {encoding}; save it as UTF-8")
    text = head.removeprefix(BOM).lstrip()
    while not text and (block := file.read(1 << 16)):
        text = block.lstrip()
    return text[:1]


def _limited(cut: Iterator[Shard], max_rows: int) -> Iterator[Shard]:
    left, before = max_rows, None
    for shard in cut:
        if before is not None:
            left -= _num_records(before)
        if left <= 0:
            return
        before = replace(shard, max_records=left)
        yield before


def _num_records(shard: Shard) -> int:
    if shard.kind != "lines":
        return sum(1 for _ in read_shard(shard))
    part = shard.part
    with open_binary(shard.file.path) as file:
        file.seek(part.start)
        size = part.end - part.start
        return count_lines(file, first_line=part.first_line, max_bytes=shard.max_line_bytes, num_bytes=size)
