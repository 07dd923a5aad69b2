"""Lines of a file in bounded memory, and where such a file may be cut."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from train.data.files.record import Record, parse_line, too_long

_BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


class Cut(NamedTuple):
    """A part of a file that begins and ends at line ends: bytes [start, end), its first line's 1-based number."""

    start: int
    end: int
    first_line: int


def bounded_lines(file: BinaryIO, *, max_bytes: int, num_bytes: int | None = None) -> Iterator[bytes | int]:
    """The lines from the file's position on, each with its line end; of a longer one than `max_bytes`, its size.

    Args:
        file: Where to read; a long line is read past in blocks, never held.
        max_bytes: Of a line, its end not counted.
        num_bytes: Begin no line after so many bytes; None reads to the end.
    """
    done = 0
    while num_bytes is None or done < num_bytes:
        line = file.readline(max_bytes + 1)
        if not line:
            return
        done += len(line)
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line
            continue
        size = len(line)
        while not line.endswith(b"\n") and (line := file.readline(_BLOCK_BYTES)):
            size += len(line)
        done += size - max_bytes - 1
        yield size - line.endswith(b"\n")


def read_lines(
    file: BinaryIO, *, first_line: int, max_bytes: int, num_bytes: int | None = None
) -> Iterator[tuple[int, Record]]:
    """`(line, record)` of one JSON object a line; blank lines are skipped.

    Args:
        file: At the start of line `first_line`.
        first_line: 1-based.
        max_bytes: A longer line is refused.
        num_bytes: See `bounded_lines`.
    """
    for number, line in _filled_lines(file, first_line=first_line, max_bytes=max_bytes, num_bytes=num_bytes):
        yield number, too_long(line, max_bytes) if isinstance(line, int) else parse_line(line)


def count_lines(file: BinaryIO, *, first_line: int, max_bytes: int, num_bytes: int | None = None) -> int:
    """How many records `read_lines` gives."""
    return sum(1 for _ in _filled_lines(file, first_line=first_line, max_bytes=max_bytes, num_bytes=num_bytes))


def _filled_lines(
    file: BinaryIO, *, first_line: int, max_bytes: int, num_bytes: int | None
) -> Iterator[tuple[int, bytes | int]]:
    for number, line in enumerate(bounded_lines(file, max_bytes=max_bytes, num_bytes=num_bytes), start=first_line):
        filled = line.removeprefix(BOM) if number == 1 and isinstance(line, bytes) else line
        if isinstance(filled, int) or filled.strip():
            yield number, filled


def cut_at_line_ends(file: BinaryIO, *, shard_bytes: int) -> Iterator[Cut]:
    """The file in parts of at least `shard_bytes` that end with a line; read once, in blocks."""
    start = position = 0
    first_line = line = 1
    while block := file.read(_BLOCK_BYTES):
        offset = 0
        while (wanted := start + shard_bytes - 1 - position) < len(block):
            place = block.find(b"\n", max(wanted, offset))
            if place < 0:
                break
            line += block.count(b"\n", offset, place + 1)
            offset = place + 1
            yield Cut(start, position + offset, first_line)
            start, first_line = position + offset, line
        line += block.count(b"\n", offset)
        position += len(block)
    if position > start:
        yield Cut(start, position, first_line)
