"""Files into raw records: JSONL, a JSON array, CSV, Parquet.

Each reader yields `(line, record)` in file order, where the record is the object found there, or a `BadRecord` with the
rule it broke. A reader knows nothing of tasks or columns; what cannot be read past (a broken JSON array, a Parquet
footer) is a DataError.
"""

import csv
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scheduler.errors import DataError

EXTENSIONS = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class BadRecord:
    """What stands in a file where a record should be."""

    rule: str
    reason: str


Record = dict[str, Any] | BadRecord


def read_records(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield `(line, record)` for every record of the file; blank lines are skipped.

    Args:
        path: A file whose extension is in `EXTENSIONS`. A `.json` file may hold an array or one object a line.

    Raises:
        DataError: The file is missing, a directory, of an unknown extension, or unreadable as a whole.
    """
    _require_file(path)
    match path.suffix.lower():
        case ".jsonl":
            return _read_lines(path)
        case ".json":
            return _read_array(path) if _starts_array(path) else _read_lines(path)
        case ".csv":
            return _read_csv(path)
        case ".parquet":
            return _read_parquet(path)
        case other:
            raise DataError(
                f"data source {path}: cannot read extension {other!r}; convert it to one of {', '.join(EXTENSIONS)}"
            )


def _require_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(item.name for item in path.iterdir() if item.suffix.lower() in EXTENSIONS)
        listed = f"; it holds {', '.join(inside[:5])}" if inside else ""
        raise DataError(f"data source {path} is a directory; name each file as a source of its own{listed}")
    if path.is_file():
        return
    if not path.parent.is_dir():
        raise DataError(f"data source {path} does not exist, nor does the folder {path.parent}; correct the path")
    beside = sorted(item.name for item in path.parent.iterdir() if item.is_file())
    near = difflib.get_close_matches(path.name, beside, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"{path.parent} holds no file of a similar name"
    raise DataError(f"data source {path} does not exist; {hint} Correct the path (relative paths start at the config)")


def _parse_object(text: str) -> Record:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRecord("malformed_json", f"not JSON: {error}")
    if not isinstance(value, dict):
        return BadRecord("not_an_object", f"a row must be a JSON object; found {_kind(value)}")
    return value


def _kind(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:40] + '…'}"


def _read_lines(path: Path) -> Iterator[tuple[int, Record]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            yield number, _parse_line(line)


def _parse_line(raw: bytes) -> Record:
    if b"\0" in raw:
        return BadRecord("nul_byte", f"NUL byte at position {raw.index(0)} of the line")
    try:
        return _parse_object(raw.decode())
    except UnicodeDecodeError as error:
        return BadRecord("invalid_utf8", f"not UTF-8: {error.reason} at byte {error.start} of the line")


def _starts_array(path: Path) -> bool:
    with path.open("rb") as file:
        for raw in file:
            start = raw.removeprefix(b"\xef\xbb\xbf").strip()
            if start:
                return start.startswith(b"[")
    return False


def _read_array(path: Path) -> Iterator[tuple[int, Record]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"data source {path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    decoder = json.JSONDecoder()
    position, line, counted = _skip_space(text, text.index("[") + 1), 1, 0
    while text[position : position + 1] != "]":
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{line}: the JSON array is broken here, nothing after it can be read ({error}); "
                "mend it, or write one object a line as .jsonl, where a broken row costs only itself"
            ) from error
        yield (
            line,
            value
            if isinstance(value, dict)
            else BadRecord("not_an_object", f"a row must be a JSON object; found {_kind(value)}"),
        )
        position = _skip_space(text, position)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            end = line + text.count("\n", counted, position)
            raise DataError(f"{path}:{end}: the JSON array has neither ',' nor ']' after an element; mend the file")


def _skip_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\n", "\r", "\t"):
        position += 1
    return position


def _read_csv(path: Path) -> Iterator[tuple[int, Record]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        start = 1
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield start, BadRecord("malformed_csv", f"not CSV: {error}")
                start = reader.line_num + 1
                continue
            if fields is None:
                return
            if fields and header is None:
                header = _csv_header(path, fields)
            elif fields and header is not None:
                yield start, _csv_record(header, fields)
            start = reader.line_num + 1


def _csv_header(path: Path, fields: list[str]) -> list[str]:
    if len(set(fields)) < len(fields):
        raise DataError(f"data source {path}: the header names a column twice: {', '.join(fields)}; rename one")
    return fields


def _csv_record(header: list[str], fields: list[str]) -> Record:
    if len(fields) != len(header):
        return BadRecord("malformed_csv", f"the row has {len(fields)} fields, the header {len(header)}")
    if any("\udc80" <= character <= "\udcff" for field in fields if not field.isascii() for character in field):
        return BadRecord("invalid_utf8", "not UTF-8; save the file as UTF-8")
    return dict(zip(header, fields, strict=True))


def _read_parquet(path: Path) -> Iterator[tuple[int, Record]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise DataError(f"data source {path}: not readable as Parquet after row {number} ({error})") from error
