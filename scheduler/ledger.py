"""The ledger file: append-only, one JSON record a line, readable while it is written; and the setup beside it.

A line is complete or it is not there: a torn last line (the writer was killed in the middle) is cut off on opening.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scheduler.errors import LedgerError
from scheduler.records import SCHEMA_VERSION, CheckpointRecord, DecisionRecord, Record, from_json, to_json
from scheduler.setup import EngineSetup

LEDGER_FILE = "ledger/ledger.jsonl"
_SETUP_FILE = "setup.json"


def write_setup(ledger_path: Path, setup: EngineSetup) -> None:
    """Write the setup beside the ledger, whole or not at all: the engine's actor reads it whenever it is started.

    An actor that came back must not depend on what its first constructor was given: an argument of 100 kB and more,
    such as the cards of a thousand tasks, lies in the object store and may be gone with its node.
    """
    place = ledger_path.with_name(_SETUP_FILE)
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_suffix(".unfinished")
    unfinished.write_text(setup.model_dump_json(), encoding="utf-8")
    unfinished.replace(place)


def read_setup(ledger_path: Path) -> EngineSetup:
    """What `write_setup` wrote beside the ledger at `ledger_path`. Raises LedgerError where it cannot be read."""
    place = ledger_path.with_name(_SETUP_FILE)
    try:
        return EngineSetup.model_validate_json(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LedgerError(f"{place}: no setup of an engine can be read here; start the run again: {error}") from error


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
