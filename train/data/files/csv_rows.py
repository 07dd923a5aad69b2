"""CSV rows in bounded memory, one by one.

A quote that is never closed would swallow the rows after it. So when a record of several lines turns out broken, only
its first line is refused, and the others are read again; what they then give counts only if its quotes pair up.
"""

import csv
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from scheduler.errors import DataError
from train.data.files.lines import BOM, bounded_lines
from train.data.files.record import BadRecord, Record, too_long


class _RecordTooLongError(Exception):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


def read_csv(file: BinaryIO, *, path: str, max_bytes: int) -> Iterator[tuple[int, Record]]:
    """`(line, record)` of every row after the header; blank rows are skipped.

    Raises:
        DataError: The header is broken or names a column twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    lines = _Lines(file, max_bytes)
    rows = csv.reader(lines, strict=True)
    header = _header(rows, path)
    while header is not None:
        lines.begin_record()
        try:
            fields = next(rows, None)
        except csv.Error as error:
            yield lines.first, BadRecord("malformed_csv", f"not CSV: {error}")
            lines.read_again_after_first()
            continue
        except _RecordTooLongError as error:
            yield lines.first, too_long(error.size, max_bytes)
            lines.read_again_after_first()
            continue
        if fields is None:
            return
        if fields:
            yield lines.first, _record(header, fields, is_doubtful=lines.is_doubtful)


def _header(rows: Iterator[list[str]], path: str) -> list[str] | None:
    try:
        fields = next((fields for fields in rows if fields), None)
    except (csv.Error, _RecordTooLongError) as error:
        raise DataError(f"data source {path}: its first row, the header, is not CSV ({error}); mend it") from error
    if fields is not None and len(set(fields)) < len(fields):
        raise DataError(f"data source {path}: the header names a column twice: {', '.join(fields)}; rename one")
    if fields is not None and _is_not_utf8(fields):
        raise DataError(f"data source {path}: its header is not UTF-8; save the file as UTF-8")
    return fields


def _is_not_utf8(fields: list[str]) -> bool:
    return any("\udc80" <= character <= "\udcff" for field in fields if not field.isascii() for character in field)


def _record(header: list[str], fields: list[str], *, is_doubtful: bool) -> Record:
    if len(fields) != len(header):
        return BadRecord("malformed_csv", f"the row has {len(fields)} fields, the header {len(header)}")
    if is_doubtful:
        return BadRecord("malformed_csv", "the row continues a broken one: its quotes do not pair up")
    if _is_not_utf8(fields):
        return BadRecord("invalid_utf8", "not UTF-8; save the file as UTF-8")
    if any("\0" in field for field in fields):
        return BadRecord("nul_byte", "the row holds a NUL byte")
    return dict(zip(header, fields, strict=True))


class _Lines:
    """The physical lines, for the csv module to read; those of the current record are kept so they can be read again.

    Attributes:
        first: Number of the first line of the current record.
    """

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._lines = bounded_lines(file, max_bytes=max_bytes)
        self._max_bytes = max_bytes
        self._again: deque[str | int] = deque()
        self._record: list[str | int] = []
        self._size = 0
        self._number = 0
        self._furthest = 0
        self.first = 1

    def begin_record(self) -> None:
        self.first, self._size = self._number + 1, 0
        self._record.clear()

    def read_again_after_first(self) -> None:
        self._furthest = max(self._furthest, self._number)
        self._number = self.first
        self._again.extendleft(reversed(self._record[1:]))

    @property
    def is_doubtful(self) -> bool:
        """The record was read before as part of a broken one, and its quotes do not pair up."""
        text = (line for line in self._record if isinstance(line, str))
        return self.first <= self._furthest and sum(line.count('"') for line in text) % 2 == 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._next_line()
        self._number += 1
        self._record.append(line)
        self._size += line if isinstance(line, int) else len(line)
        if isinstance(line, int) or self._size > self._max_bytes + 1:
            raise _RecordTooLongError(self._size)
        return line

    def _next_line(self) -> str | int:
        line = next(self._lines)
        if isinstance(line, int):
            return line
        return (line.removeprefix(BOM) if self._number == 0 else line).decode("utf-8", "surrogateescape")
