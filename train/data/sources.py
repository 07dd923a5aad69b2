"""A source's file into rows: which columns mean what, which task a row belongs to, what is refused.

The form (see `forms`) is that of the source as a whole, read off its first usable record; a record that does not fit it
is refused with its line. Nothing is dropped in silence: `SourceRows` counts every record read, and names the columns
that no one reads.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scheduler.errors import DataError
from train.config import SourceConfig
from train.data.files import BadRecord, Record, read_records
from train.data.forms import (
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    BadRowError,
    Form,
    detect_form,
    difficulty_of,
    optional_text_of,
    text_of,
    to_conversation,
)
from train.data.row import Refusal, Row, hash_content

LINEAGE_COLUMNS = ("id", "language", "licence", "reviewer", "review_status", "difficulty_factors", "parent_id")
OUR_COLUMNS = frozenset(
    (*LINEAGE_COLUMNS, *itertools.chain(*REQUIRED_COLUMNS.values()), *itertools.chain(*OPTIONAL_COLUMNS.values()))
)
_DETECTION_RECORDS = 100


@dataclass(frozen=True, slots=True)
class SourceRows:
    """What one source gave.

    Attributes:
        path: Path of the file, as configured.
        form: The form its columns have; None when no record could be parsed at all.
        rows: Rows in file order.
        refusals: One per record that is not a row, in file order.
        unread_columns: Columns of the first records that nothing reads, sorted.
    """

    path: str
    form: Form | None
    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]
    unread_columns: tuple[str, ...]

    @property
    def num_read(self) -> int:
        """Records read, good or bad."""
        return len(self.rows) + len(self.refusals)


def read_source(config: SourceConfig, *, known_tasks: frozenset[str] | None = None) -> SourceRows:
    """Read one source.

    Args:
        config: The source.
        known_tasks: Where given, a row of any other task is refused.

    Raises:
        DataError: The file cannot be read, holds no record, or has the columns of no form.
    """
    records = itertools.islice(read_records(config.path), config.max_rows)
    head = list(itertools.islice(records, _DETECTION_RECORDS))
    if not head:
        raise DataError(f"data source {config.path} holds no rows; remove it from the sources or fill it")
    columns = _columns_of(head)
    names = _column_names(config, columns)
    reader = _RowReader(config, names, _detect(config, names, head), known_tasks)
    rows: list[Row] = []
    refusals: list[Refusal] = []
    for line, record in itertools.chain(head, records):
        found = reader.read(line, record)
        if isinstance(found, Row):
            rows.append(found)
        else:
            refusals.append(found)
    return SourceRows(
        path=str(config.path),
        form=reader.form,
        rows=tuple(rows),
        refusals=tuple(refusals),
        unread_columns=tuple(sorted(columns - reader.columns_read())),
    )


def _columns_of(records: Iterable[tuple[int, Record]]) -> set[str]:
    return {column for _, record in records if not isinstance(record, BadRecord) for column in record}


def _column_names(config: SourceConfig, columns: set[str]) -> dict[str, str]:
    """The file's column for each of ours. A column mapped to one of ours no longer stands for its own name."""
    unknown = sorted(config.columns.keys() - OUR_COLUMNS)
    if unknown:
        raise DataError(
            f"data source {config.path}: columns maps {unknown[0]!r}, which is none of ours "
            f"({', '.join(sorted(OUR_COLUMNS))}); write columns: {{our name: name in the file}}"
        )
    absent = [theirs for theirs in config.columns.values() if theirs not in columns]
    if columns and absent:
        raise DataError(
            f"data source {config.path}: columns names {absent[0]!r}, which the file does not have; "
            f"it has {', '.join(sorted(columns))}"
        )
    taken = set(config.columns.values())
    names = {ours: ours for ours in OUR_COLUMNS if ours not in taken}
    if "licence" not in columns:
        names["licence"] = "license"
    return names | config.columns


def _detect(config: SourceConfig, names: dict[str, str], head: Iterable[tuple[int, Record]]) -> Form | None:
    """The form of the first record that has one; None when nothing could be parsed."""
    found: set[str] = set()
    for _, record in head:
        if not isinstance(record, BadRecord):
            form = detect_form({ours for ours, theirs in names.items() if theirs in record})
            if form is not None:
                return form
            found |= record.keys()
    if not found:
        return None
    forms = "; ".join(f"{form}: {', '.join(required)}" for form, required in REQUIRED_COLUMNS.items())
    raise DataError(
        f"data source {config.path}: its columns ({', '.join(sorted(found))}) are of no known form ({forms}); "
        "map them with columns: {our name: name in the file}, for example {instruction: question, output: answer}"
    )


class _RowReader:
    """Turns the records of one source into rows or refusals."""

    def __init__(
        self, config: SourceConfig, names: dict[str, str], form: Form | None, known_tasks: frozenset[str] | None
    ) -> None:
        self.form: Form | None = form
        self._source = str(config.path)
        self._stem = config.path.stem
        self._task = config.task or self._stem
        self._task_column = config.task_column
        self._known_tasks = known_tasks
        self._names = names
        needed = () if form is None else (*REQUIRED_COLUMNS[form], *OPTIONAL_COLUMNS[form], *LINEAGE_COLUMNS)
        self._pairs = tuple((ours, names[ours]) for ours in needed if ours in names)

    def columns_read(self) -> set[str]:
        """The file's columns that have a meaning here."""
        task_column = {self._task_column} if self._task_column else set()
        return {theirs for _, theirs in self._pairs} | task_column

    def read(self, line: int, record: Record) -> Row | Refusal:
        task = "" if self._task_column else self._task
        try:
            if isinstance(record, BadRecord):
                raise BadRowError(record.rule, record.reason)
            task = self._task_of(record)
            return self._row(task, line, record)
        except BadRowError as fault:
            return Refusal(task=task, source=self._source, line=line, rule=fault.rule, reason=fault.reason)

    def _task_of(self, record: dict[str, Any]) -> str:
        if self._task_column is None:
            task = self._task
        elif self._task_column in record:
            task = text_of(record, self._task_column)
        else:
            raise BadRowError("missing_column", self._missing(self._task_column, record))
        if not task.strip():
            raise BadRowError("unknown_task", f"task column {self._task_column!r} is empty")
        if self._known_tasks is not None and task not in self._known_tasks:
            raise BadRowError(
                "unknown_task", f"task {task!r} has no card; known: {', '.join(sorted(self._known_tasks))}"
            )
        return task

    def _missing(self, column: str, record: dict[str, Any]) -> str:
        return (
            f"no column {column!r}; the row has {', '.join(sorted(record)) or 'none'}; "
            "where it goes by another name, map it with columns: {our name: name in the file}"
        )

    def _row(self, task: str, line: int, record: dict[str, Any]) -> Row:
        assert self.form is not None, "a record was parsed, so the source has a form"
        ours = {name: record[theirs] for name, theirs in self._pairs if theirs in record}
        for column in REQUIRED_COLUMNS[self.form]:
            if column not in ours:
                raise BadRowError("missing_column", self._missing(self._names[column], record))
        messages, answer = to_conversation(self.form, ours)
        if "\0" in answer or any("\0" in content for _, content in messages):
            raise BadRowError("nul_byte", "the text holds a NUL character")
        try:
            content_hash = hash_content(messages, answer)
        except UnicodeEncodeError as error:
            raise BadRowError("invalid_utf8", f"the text is not writable as UTF-8: {error.reason}") from error
        return Row(
            id=self._id_of(ours, line),
            task=task,
            messages=messages,
            answer=answer,
            source=self._source,
            line=line,
            language=optional_text_of(ours, "language"),
            licence=optional_text_of(ours, "licence"),
            reviewer=optional_text_of(ours, "reviewer"),
            review_status=optional_text_of(ours, "review_status"),
            difficulty_factors=difficulty_of(ours),
            parent_id=_identifier(ours, "parent_id"),
            content_hash=content_hash,
        )

    def _id_of(self, record: dict[str, Any], line: int) -> str:
        return _identifier(record, "id") or f"{self._stem}:{line}"


def _identifier(record: dict[str, Any], column: str) -> str | None:
    value = record.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return optional_text_of(record, column)
