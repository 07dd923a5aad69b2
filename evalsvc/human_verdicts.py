"""People's verdicts on the model's outputs, read from a JSONL file that grows while the run goes on.

One object a line:

    {"task": "refund_policy", "verdict": "rejected", "sample_id": "a41", "reviewer": "mei", "note": "wrong article"}

`task` and `verdict` (accepted or rejected) are required. Each line is one verdict: two people on one sample count as
two. The file is only read, from where the last reading ended; who writes it appends whole lines.

A file given before the run is checked in full by `check_verdicts`, which raises. During the run `VerdictTail` refuses
a bad line, keeps its number and the reason, and goes on; the evaluation has it written into the ledger.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from scheduler.config_model import ConfigModel
from scheduler.errors import DataError

_MAX_REASON = 300


class HumanVerdict(ConfigModel):
    """One line of the file."""

    task: str
    verdict: Literal["accepted", "rejected"]
    sample_id: str | None = None
    reviewer: str | None = None
    note: str | None = None


class VerdictCount(NamedTuple):
    """Verdicts on one task since the file began."""

    num_rejected: int
    num_reviewed: int


class RefusedLine(NamedTuple):
    """A line that was not counted. `line_number` is from 1; 0 stands for the file as a whole."""

    line_number: int
    reason: str


class VerdictTail:
    """Follows one file of verdicts.

    Attributes:
        refused: The lines that were not counted, in order.
    """

    def __init__(self, path: Path, task_names: Iterable[str]) -> None:
        self._path = path
        self._counts = dict.fromkeys(task_names, VerdictCount(0, 0))
        self._offset_bytes = 0
        self._num_lines = 0
        self.refused: list[RefusedLine] = []

    def poll(self) -> dict[str, VerdictCount]:
        """Read what was added and give the counts of every task since the file began.

        A missing file counts as empty. A last line without a line end is counted as soon as it is a whole verdict, and
        refused only once its line end is there. A file that became shorter was replaced: it is counted from its
        beginning. Never raises on what the file holds.
        """
        *lines, tail = self._added().split(b"\n")
        for line in lines:
            self._num_lines += 1
            self._offset_bytes += len(line) + 1
            verdict = self._parsed(line)
            if isinstance(verdict, HumanVerdict):
                _count(self._counts, verdict)
            elif verdict is not None:
                self.refused.append(RefusedLine(self._num_lines, verdict))
        counts = dict(self._counts)
        unfinished = self._parsed(tail)
        if isinstance(unfinished, HumanVerdict):
            _count(counts, unfinished)
        return counts

    def _added(self) -> bytes:
        try:
            if self._path.stat().st_size < self._offset_bytes:
                self._start_over()
            with self._path.open("rb") as file:
                file.seek(self._offset_bytes)
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            refusal = RefusedLine(0, f"the file cannot be read: {error.strerror}")
            if refusal not in self.refused[-1:]:
                self.refused.append(refusal)
            return b""

    def _start_over(self) -> None:
        self._offset_bytes = self._num_lines = 0
        self._counts = dict.fromkeys(self._counts, VerdictCount(0, 0))
        self.refused.append(RefusedLine(0, "the file became shorter; it is counted again from its beginning"))

    def _parsed(self, line: bytes) -> HumanVerdict | str | None:
        """The verdict, or why there is none, or None for a blank line."""
        if not line.strip():
            return None
        try:
            verdict = HumanVerdict.model_validate_json(line)
        except ValidationError as error:
            return "; ".join(_worded(detail["loc"], detail["msg"]) for detail in error.errors())
        if verdict.task not in self._counts:
            return f"task {verdict.task!r} is not a task of this run; expected one of {', '.join(self._counts)}"
        return verdict


def check_verdicts(path: Path, task_names: Iterable[str]) -> dict[str, VerdictCount]:
    """Read a file of verdicts before the run and give its counts. A missing file is fine: it may come later.

    Raises:
        DataError: A line is not a verdict on a task of the run, or the file cannot be read.
    """
    tail = VerdictTail(path, task_names)
    counts = tail.poll()
    if tail.refused:
        remedy = 'write one object a line, like {"task": "NAME", "verdict": "accepted"}, or remove the line'
        raise DataError(f"{refused_in_words(tail.refused, place=str(path))}; {remedy}")
    return counts


def refused_in_words(refused: Sequence[RefusedLine], *, place: str) -> str:
    """The first of these, cut where it is very long, and how many others there are."""
    line_number, reason = refused[0]
    if len(reason) > _MAX_REASON:
        reason = f"{reason[:_MAX_REASON]}…"
    others = f" ({len(refused) - 1} more lines are bad)" if len(refused) > 1 else ""
    return f"{place}, line {line_number}: {reason}{others}" if line_number else f"{place}: {reason}{others}"


def _count(counts: dict[str, VerdictCount], verdict: HumanVerdict) -> None:
    num_rejected, num_reviewed = counts[verdict.task]
    counts[verdict.task] = VerdictCount(num_rejected + (verdict.verdict == "rejected"), num_reviewed + 1)


def _worded(location: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, location))}: {message}" if location else message
