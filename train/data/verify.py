"""Verification: each row against its task's output rules, each task against repetition; and the quarantine.

A row is refused at most once, under the first rule it breaks. Refusals are data until `require_acceptable` decides that
there are too many; `write_quarantine` puts them where a person can read them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scheduler.errors import DataError
from scheduler.task import TaskSpec
from train.data.row import Refusal, Row, refuse
from train.data.rules import check_output

MIN_ROWS_PER_TASK = 4
_QUARANTINE_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("rule", pa.string()),
        ("reason", pa.string()),
    ]
)
assert _QUARANTINE_SCHEMA.names == [field.name for field in fields(Refusal)]


def verify(rows: Iterable[Row], specs: Mapping[str, TaskSpec]) -> tuple[list[Row], list[Refusal]]:
    """Split rows into those that keep their task's rules, each content once per task, and refusals of the others.

    Args:
        rows: In order; of equal rows of one task the first is kept.
        specs: Cards by task name; a task without one has no output rules.

    Returns:
        The rows kept and the refusals, both in the order of `rows`. An output rule's refusal is named
        `output:<rule type>`.
    """
    first: dict[tuple[str, str], Row] = {}
    kept: list[Row] = []
    refusals: list[Refusal] = []
    rules = {name: spec.output_rules for name, spec in specs.items()}
    for row in rows:
        earlier = first.setdefault((row.task, row.content_hash), row)
        violations = check_output(rules[row.task], row.answer) if rules.get(row.task) else ()
        if violations:
            reason = "; ".join(violation.message for violation in violations)
            refusals.append(refuse(row, rule=f"output:{violations[0].rule}", reason=reason))
        elif earlier is not row:
            refusals.append(refuse(row, rule="duplicate", reason=f"same content as {earlier.source}:{earlier.line}"))
        else:
            kept.append(row)
    return kept, refusals


def require_acceptable(
    refusals: Sequence[Refusal], *, num_read: int, max_refused_ratio: float, quarantine: Path
) -> None:
    """Stop when more than `max_refused_ratio` of the rows read were refused; duplicates and leaks do not count.

    The message sends the reader to `quarantine`, which the caller writes.

    Raises:
        DataError: The counts by rule, the first five rows, and what to do.
    """
    counted = [refusal for refusal in refusals if refusal.counts]
    if len(counted) <= max_refused_ratio * num_read:
        return
    by_rule = Counter(refusal.rule for refusal in counted)
    listed = ", ".join(f"{rule} {count}" for rule, count in by_rule.most_common())
    first = "\n".join(f"  {refusal.source}:{refusal.line}: {refusal.reason}" for refusal in counted[:5])
    longer = ", raise data.max_length" * ("too_long" in by_rule)
    raise DataError(
        f"{len(counted)} of {num_read} rows are refused ({listed}), more than data.max_refused_ratio "
        f"{max_refused_ratio:g} allows; the first:\n{first}\n"
        f"Mend these rows{longer}, or set data.max_refused_ratio to {_ceil_ratio(len(counted), num_read)} "
        f"to train without them. All of them are listed in {quarantine}"
    )


def _ceil_ratio(part: int, whole: int) -> float:
    """The smallest ratio with three decimals that is at least part / whole."""
    return -(-part * 1000 // whole) / 1000


def require_enough_rows(rows: Iterable[Row], sources_of_task: Mapping[str, Sequence[str]]) -> None:
    """Stop when a task has fewer than `MIN_ROWS_PER_TASK` rows left.

    Args:
        rows: Distinct rows.
        sources_of_task: For every task of the run, the files it should come from.

    Raises:
        DataError: Names the task, its files and what to do.
    """
    counts = Counter(row.task for row in rows)
    for task, sources in sources_of_task.items():
        place = f" (from {', '.join(sources)})" if sources else " (named by a task card, but by no source)"
        if counts[task] == 0:
            raise DataError(f"empty task {task!r}{place}: no row is left to train on; add rows or drop the task")
        if counts[task] < MIN_ROWS_PER_TASK:
            raise DataError(
                f"task {task!r}{place} has {counts[task]} distinct rows; at least {MIN_ROWS_PER_TASK} are needed "
                "to train on some and hold others out: add rows or drop the task"
            )


def write_quarantine(path: Path, refusals: Iterable[Refusal]) -> None:
    """Write the refusals as Parquet: task, source, line, rule, reason. An empty list gives an empty table."""
    names = _QUARANTINE_SCHEMA.names
    columns = [[getattr(refusal, name) for name in names] for refusal in refusals]
    table = pa.table([list(column) for column in zip(*columns, strict=True)] or [[]] * 5, schema=_QUARANTINE_SCHEMA)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
