"""A source into rows: which columns mean what, which task a row belongs to, what is refused.

    open_source(source) ─► SourcePlan, once      read_rows(plan, shard) ─► rows and refusals, a shard at a time

The form (see `forms`) is that of the source as a whole, read off its first usable record; a record that does not fit it
is refused with its line. Rows of the form `prompt` have the answer "" and may never be trained on. Nothing is dropped
in silence: every record gives a row or a refusal, and the plan names the columns that no one reads.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from scheduler.errors import DataError
from train.config import DataConfig, SourceConfig
from train.data.files import SHARD_BYTES, BadRecord, Record, Shard, read_shard, shards
from train.data.forms import (
    OPTIONAL_COLUMNS,
    PROMPT_COLUMNS,
    REQUIRED_COLUMNS,
    BadRowError,
    Form,
    detect_form,
    difficulty_of,
    lineage_text_of,
    looks_answered,
    text_of,
    to_conversations,
)
from train.data.row import Lineage, Message, Refusal, Row, hash_content

LINEAGE_COLUMNS = tuple(field.name for field in fields(Lineage))
_TEXT_LINEAGE = frozenset(LINEAGE_COLUMNS) - {"difficulty_factors"}
_SYNONYMS = {"licence": "license", "sub_task": "subtask"}
"""Other spellings of a column of ours, read where its own name is absent."""
OUR_COLUMNS = frozenset(
    ("id", "parent_id", *LINEAGE_COLUMNS, *itertools.chain(*REQUIRED_COLUMNS.values(), *OPTIONAL_COLUMNS.values()))
)
_DETECTION_RECORDS = 100


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """How a source is read; found once, then sent to whoever reads its shards.

    Attributes:
        config: The source, as configured.
        form: The form of its records.
        columns: Columns of its first records, sorted.
        names: (our name, the file's column) of all that is read.
        unread_columns: Those of `columns` that nothing reads, sorted.
        constants: What `config.lineage` states of every row.
        shards: In the order of the rows.
    """

    config: SourceConfig
    form: Form
    columns: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    unread_columns: tuple[str, ...]
    constants: Lineage
    shards: tuple[Shard, ...]

    @property
    def path(self) -> str:
        """As configured."""
        return str(self.config.path)

    @property
    def is_evaluation_only(self) -> bool:
        """The rows have no answer (`Row.answer` is ""): they may be evaluated on, never trained on."""
        return self.form == "prompt"


def open_source(config: SourceConfig, data: DataConfig, *, shard_bytes: int = SHARD_BYTES) -> SourcePlan:
    """Look at a source: its files, its form, its columns.

    Args:
        config: The source.
        data: For `max_line_bytes`.
        shard_bytes: See `train.data.files.shards`.

    Raises:
        DataError: A file cannot be read; no record can; the columns are of no form; the settings do not fit the
            source, such as `split: train` for rows without answers.
    """
    cut = tuple(shards(config, data, shard_bytes=shard_bytes))
    head = _head(config, cut)
    columns = {column for record in head for column in record}
    names = _column_names(config, columns)
    form = _detect(config, names, head)
    if form == "prompt" and config.split == "train":
        raise DataError(
            f"data source {config.path}: its rows have no answers (columns {', '.join(sorted(columns))}), so they "
            "cannot be trained on; leave split out, or map the answer with columns: {output: its column}"
        )
    needed = (*REQUIRED_COLUMNS[form], *OPTIONAL_COLUMNS[form], "id", "parent_id", *LINEAGE_COLUMNS)
    pairs = tuple((ours, names[ours]) for ours in needed if ours in names)
    read = {theirs for _, theirs in pairs} | ({config.task_column} if config.task_column else set())
    return SourcePlan(
        config=config,
        form=form,
        columns=tuple(sorted(columns)),
        names=pairs,
        unread_columns=tuple(sorted(columns - read)),
        constants=_constants(config),
        shards=cut,
    )


def read_rows(plan: SourcePlan, shard: Shard, known_tasks: frozenset[str] | None = None) -> Iterator[Row | Refusal]:
    """The rows of one shard, in file order; a record that is not a row gives a refusal.

    Args:
        plan: The source's.
        shard: One of `plan.shards`.
        known_tasks: Where given, a row of any other task is refused.

    Raises:
        DataError: The file cannot be read to its end.
    """
    reader = _RowReader(plan, shard, known_tasks)
    for line, record in read_shard(shard):
        yield from reader.read(line, record)


@dataclass(frozen=True, slots=True)
class SourceRows:
    """All that one source gave, for a source that fits in memory.

    Attributes:
        plan: How it was read.
        rows: Rows in order.
        refusals: One per record that is not a row, in order.
    """

    plan: SourcePlan
    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]


def read_source(
    config: SourceConfig, data: DataConfig | None = None, *, known_tasks: frozenset[str] | None = None
) -> SourceRows:
    """Read a source as a whole.

    Raises:
        DataError: As `open_source` and `read_rows`.
    """
    plan = open_source(config, data or DataConfig(sources=(config,)))
    found = [item for shard in plan.shards for item in read_rows(plan, shard, known_tasks)]
    return SourceRows(
        plan=plan,
        rows=tuple(item for item in found if isinstance(item, Row)),
        refusals=tuple(item for item in found if isinstance(item, Refusal)),
    )


def _head(config: SourceConfig, cut: Iterable[Shard]) -> list[dict[str, Any]]:
    """The good ones of the first records; where none of those is good, the first that is."""
    head: list[dict[str, Any]] = []
    first_fault: str | None = None
    records = ((shard, line, record) for shard in cut for line, record in read_shard(shard))
    for number, (shard, line, record) in enumerate(records, start=1):
        if not isinstance(record, BadRecord):
            head.append(record)
        elif first_fault is None:
            first_fault = f"{shard.file.path}:{line}: {record.reason}"
        if head and number >= _DETECTION_RECORDS:
            break
    if head:
        return head
    if first_fault is None:
        raise DataError(f"data source {config.path} holds no rows; remove it from the sources or fill it")
    raise DataError(
        f"data source {config.path}: not one record can be read; the first: {first_fault}\n"
        "A .jsonl file holds one object a line, a .json file an array of objects; mend the file or correct the path"
    )


def _column_names(config: SourceConfig, columns: set[str]) -> dict[str, str]:
    """The file's column for each of ours. A column mapped to one of ours no longer stands for its own name."""
    unknown = sorted(config.columns.keys() - OUR_COLUMNS)
    if unknown:
        raise DataError(
            f"data source {config.path}: columns maps {unknown[0]!r}, which is none of ours "
            f"({', '.join(sorted(OUR_COLUMNS))}); write columns: {{our name: name in the file}}"
        )
    absent = [theirs for theirs in config.columns.values() if theirs not in columns]
    if absent:
        raise DataError(
            f"data source {config.path}: columns names {absent[0]!r}, which the file does not have; "
            f"it has {', '.join(sorted(columns))}"
        )
    taken = set(config.columns.values())
    names = {ours: ours for ours in OUR_COLUMNS if ours not in taken}
    names |= {ours: theirs for ours, theirs in _SYNONYMS.items() if ours not in columns and theirs in columns - taken}
    return names | config.columns


def _detect(config: SourceConfig, names: dict[str, str], head: Iterable[dict[str, Any]]) -> Form:
    """The form of the first record that has one; `prompt` only where no record has an answer."""
    found: set[str] = set()
    for record in head:
        form = detect_form({ours for ours, theirs in names.items() if theirs in record})
        if form is not None:
            return form
        found |= record.keys()
    has_prompt = any(names.get(column) in found for column in PROMPT_COLUMNS)
    if has_prompt and (config.columns.keys() & set(PROMPT_COLUMNS) or not looks_answered(found)):
        return "prompt"
    forms = "; ".join(f"{form}: {', '.join(required)}" for form, required in REQUIRED_COLUMNS.items() if required)
    raise DataError(
        f"data source {config.path}: its columns ({', '.join(sorted(found))}) are of no known form ({forms}); "
        "map them with columns: {our name: name in the file}, for example {instruction: question, output: answer}"
    )


def _constants(config: SourceConfig) -> Lineage:
    unknown = sorted(config.lineage.keys() - set(LINEAGE_COLUMNS))
    if unknown:
        raise DataError(
            f"data source {config.path}: lineage states {unknown[0]!r}; it may state {', '.join(LINEAGE_COLUMNS)}"
        )
    try:
        return _lineage(config.lineage, Lineage())
    except BadRowError as error:
        raise DataError(f"data source {config.path}: lineage: {error.reason}") from error


def _lineage(record: dict[str, Any], constants: Lineage) -> Lineage:
    """What the record says, and `constants` where it says nothing."""
    said = ((name, lineage_text_of(record, name)) for name in record.keys() & _TEXT_LINEAGE)
    stated: dict[str, Any] = {name: _writable(text) for name, text in said if text is not None}
    factors = difficulty_of(record)
    if factors is not None:
        stated["difficulty_factors"] = factors
    return replace(constants, **stated) if stated else constants


class _RowReader:
    """Turns the records of one shard into rows or refusals."""

    def __init__(self, plan: SourcePlan, shard: Shard, known_tasks: frozenset[str] | None) -> None:
        config = plan.config
        self._plan = plan
        self._file = shard.file
        self._stem = shard.file.stem
        self._task_column = config.task_column
        by_place = shard.file.folder if config.task_from == "folder" else shard.file.name
        self._task = config.task or by_place
        self._known_tasks = known_tasks
        self._names = dict(plan.names)

    def read(self, line: int, record: Record) -> Iterator[Row | Refusal]:
        task = "" if self._task_column else self._task
        try:
            if isinstance(record, BadRecord):
                raise BadRowError(record.rule, record.reason)
            task = self._task_of(record)
            yield from self._rows(task, line, record)
        except BadRowError as fault:
            yield self._refusal(task, line, fault)

    def _refusal(self, task: str, line: int, fault: BadRowError) -> Refusal:
        return Refusal(task=task, source=self._file.path, line=line, rule=fault.rule, reason=fault.reason)

    def _task_of(self, record: dict[str, Any]) -> str:
        if self._task_column is None:
            task = self._task
        elif self._task_column in record:
            task = text_of(record, self._task_column)
        else:
            raise BadRowError("missing_column", _missing(self._task_column, record))
        if not task.strip():
            raise BadRowError("unknown_task", f"task column {self._task_column!r} is empty")
        if self._known_tasks is not None and task not in self._known_tasks:
            raise BadRowError(
                "unknown_task", f"task {task!r} has no card; known: {', '.join(sorted(self._known_tasks))}"
            )
        return task

    def _rows(self, task: str, line: int, record: dict[str, Any]) -> Iterator[Row | Refusal]:
        form = self._plan.form
        ours = {name: record[theirs] for name, theirs in self._plan.names if theirs in record}
        for column in REQUIRED_COLUMNS[form]:
            if column not in ours:
                raise BadRowError("missing_column", _missing(self._names[column], record))
        lineage = _lineage(ours, self._plan.constants)
        own_id = _identifier(ours, "id") or f"{self._stem}:{line}"
        parent_id = _identifier(ours, "parent_id")
        for number, found in enumerate(to_conversations(form, ours), start=1):
            row_id = f"{own_id}#{number}" if form == "instances" else own_id
            try:
                if isinstance(found, BadRowError):
                    raise found
                messages, answer = found
                content_hash = _content_hash(messages, answer)
            except BadRowError as fault:
                yield self._refusal(task, line, fault)
                continue
            yield Row(
                id=row_id,
                task=task,
                messages=messages,
                answer=answer,
                source=self._file.path,
                line=line,
                parent_id=parent_id,
                lineage=lineage,
                content_hash=content_hash,
            )


def _missing(column: str, record: dict[str, Any]) -> str:
    return (
        f"no column {column!r}; the row has {', '.join(sorted(record)) or 'none'}; "
        "where it goes by another name, map it with columns: {our name: name in the file}"
    )


def _content_hash(messages: tuple[Message, ...], answer: str) -> str:
    if "\0" in answer or any("\0" in content for _, content in messages):
        raise BadRowError("nul_byte", "the text holds a NUL character")
    try:
        return hash_content(messages, answer)
    except UnicodeEncodeError as error:
        raise BadRowError("invalid_utf8", f"the text is not writable as UTF-8: {error.reason}") from error


def _identifier(record: dict[str, Any], column: str) -> str | None:
    value = record.get(column)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _writable(text_of(record, column)) or None


def _writable(text: str) -> str:
    """The text, which must be writable as UTF-8: JSON's escapes can spell half of a surrogate pair."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRowError("invalid_utf8", f"the lineage is not writable as UTF-8: {error.reason}") from error
    return text
