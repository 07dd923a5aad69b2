"""The ledger file: append-only, one JSON record a line, readable while it is written.

A line is complete or it is not there: a torn last line (the writer was killed in the middle) is cut off on opening.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scheduler.errors import LedgerError
from scheduler.records import SCHEMA_VERSION, CheckpointRecord, DecisionRecord, Record, from_json, to_json

LEDGER_FILE = "ledger/ledger.jsonl"


class LedgerWriter:
    """Appends records to the file at `path`; a decision or checkpoint is on disk before `append` returns.

    Half a surrogate pair, which UTF-8 cannot hold, is written as its JSON escape.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.torn_bytes = _cut_torn_line(path)
        self._file: IO[str] = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def append(self, record: Record) -> str:
        """Write one record; returns the line."""
        line = to_json(record)
        self._file.write(line + "\n")
        self._file.flush()
        if isinstance(record, DecisionRecord | CheckpointRecord):
            os.fsync(self._file.fileno())
        return line

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_ledger(path: Path) -> Iterator[Record]:
    """Every record of the ledger at `path` (its file or its run directory), oldest first.

    Raises:
        LedgerError: No such ledger, or a line before the last is damaged (names the line).
    """
    path = path / LEDGER_FILE if path.is_dir() else path
    if not path.is_file():
        raise LedgerError(f"{path}: no ledger here; give the directory of a run")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                if number == 1:
                    _require_own_schema(line)
                yield from_json(line.decode())
            except (LedgerError, UnicodeDecodeError) as error:
                raise LedgerError(f"{path}:{number}: {error}") from error


def _require_own_schema(first_line: bytes) -> None:
    """Say so when another version wrote the ledger, before its other fields are taken for damage."""
    found = re.search(rb'"schema_version":(\d+)', first_line)
    if found is not None and int(found[1]) != SCHEMA_VERSION:
        raise LedgerError(
            f"the ledger is of schema {int(found[1])}, this version of taskheat reads schema {SCHEMA_VERSION}; "
            "read it with the version that wrote it"
        )


def _cut_torn_line(path: Path) -> int:
    """Cut an incomplete last line off the file; returns how many bytes went."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    return len(content) - whole
