"""Verification: each row against its task's rules and its review, each task against emptiness; and the quarantine.

A row is refused at most once, under the first rule it breaks; a rule that only flags leaves its name on the row.
Refusals are data until `require_acceptable` decides that there are too many.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scheduler.errors import DataError
from scheduler.task import TaskSpec
from train.config import DataConfig
from train.data.preparing.spill import REFUSAL_SCHEMA, ParquetFile
from train.data.row import Refusal, Row, refuse
from train.data.rules import Violation, check_output

MIN_ROWS_PER_TASK = 4
VERIFICATION_CODE = 2
"""Goes up whenever the code of the rules judges some text otherwise than before."""


Flags = tuple[str, ...]
"""An accepted row's broken rules that only flag it, as `input:<rule type>` and `output:<rule type>`."""


def verify_row(row: Row, spec: TaskSpec | None, config: DataConfig) -> Flags | Refusal:
    """Check one row against its card and its review.

    The input rules judge the turn to be answered, the output rules the answer; a row without an answer has none to
    judge. A refusal's rule is `unreviewed`, `input:<rule type>` or `output:<rule type>`.
    """
    if config.require_review and (fault := _review_fault(row, config.accepted_review_status)):
        return refuse(row, rule="unreviewed", reason=fault)
    if spec is None:
        return ()
    prompt = row.messages[-1][1]
    found = [("input", violation) for violation in check_output(spec.input_rules, prompt)]
    if row.answer:
        found += [("output", violation) for violation in check_output(spec.output_rules, row.answer, prompt=prompt)]
    refused = [(side, violation) for side, violation in found if not violation.flag_only]
    if refused:
        reason = "; ".join(violation.message for _, violation in refused)
        return refuse(row, rule=_name(*refused[0]), reason=reason)
    return tuple(_name(side, violation) for side, violation in found)


def _name(side: str, violation: Violation) -> str:
    return f"{side}:{violation.rule}"


def _review_fault(row: Row, accepted: Sequence[str]) -> str | None:
    status, reviewer = row.lineage.review_status, row.lineage.reviewer
    if status not in accepted:
        return f"review_status is {status!r}, not one of {', '.join(accepted)} (reviewer: {reviewer or 'none'})"
    if not reviewer:
        return f"review_status is {status!r}, but the row names no reviewer"
    return None


def verification_version(spec: TaskSpec | None) -> str:
    """Hash of what judged a task's rows: the rules' code and the task's own rules."""
    rules = spec.model_dump(mode="json", include={"input_rules", "output_rules"}) if spec else {}
    return _short_hash([VERIFICATION_CODE, rules])


def ontology_version(spec: TaskSpec | None) -> str | None:
    """Hash of a task's card; None where it has none."""
    return None if spec is None else _short_hash(spec.model_dump(mode="json"))


def _short_hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def require_acceptable(
    by_rule: Mapping[str, int],
    first: Sequence[Refusal],
    *,
    num_read: int,
    max_refused_ratio: float,
    quarantine: Path,
) -> None:
    """Stop when more than `max_refused_ratio` of the rows read were refused.

    The message sends the reader to `quarantine`, which the caller writes.

    Args:
        by_rule: Rows refused under each rule that counts (not duplicates, nor leaks).
        first: The first of them.
        num_read: Records read.
        max_refused_ratio: The limit.
        quarantine: Where all of them are listed.

    Raises:
        DataError: The counts by rule, the first rows, and what to do.
    """
    num_refused = sum(by_rule.values())
    if num_refused <= max_refused_ratio * num_read:
        return
    listed = ", ".join(f"{rule} {count}" for rule, count in Counter(by_rule).most_common())
    shown = "\n".join(f"  {refusal.source}:{refusal.line}: {refusal.reason}" for refusal in first)
    longer = ", raise data.max_length" * ("too_long" in by_rule)
    raise DataError(
        f"{num_refused} of {num_read} rows are refused ({listed}), more than data.max_refused_ratio "
        f"{max_refused_ratio:g} allows; the first:\n{shown}\n"
        f"Mend these rows{longer}, or set data.max_refused_ratio to {_ceil_ratio(num_refused, num_read)} "
        f"to train without them. All of them are listed in {quarantine}"
    )


def _ceil_ratio(part: int, whole: int) -> float:
    """The smallest ratio with three decimals that is at least part / whole."""
    return -(-part * 1000 // whole) / 1000


def require_enough_rows(num_rows: Mapping[str, int], sources_of_task: Mapping[str, Sequence[str]]) -> None:
    """Stop when a task has fewer than `MIN_ROWS_PER_TASK` rows left.

    Args:
        num_rows: Distinct rows by task.
        sources_of_task: For every task of the run, the files it should come from.

    Raises:
        DataError: Names the task, its files and what to do.
    """
    for task, sources in sources_of_task.items():
        count = num_rows.get(task, 0)
        place = f" (from {', '.join(sources[:5])})" if sources else " (named by a task card, but by no source)"
        if count == 0:
            raise DataError(f"empty task {task!r}{place}: no row is left to train on; add rows or drop the task")
        if count < MIN_ROWS_PER_TASK:
            raise DataError(
                f"task {task!r}{place} has {count} distinct rows; at least {MIN_ROWS_PER_TASK} are needed "
                "to train on some and hold others out: add rows or drop the task"
            )


def write_quarantine(path: Path, refusals: Iterable[Refusal], *, parts: Iterable[Path] = ()) -> None:
    """Write refusals as Parquet: task, source, line, rule, reason. First those of `parts`, files of the same columns.

    Nothing refused gives an empty table.
    """
    with ParquetFile(path, REFUSAL_SCHEMA) as file:
        for other in parts:
            file.add_file(other)
        for refusal in refusals:
            file.add({name: getattr(refusal, name) for name in REFUSAL_SCHEMA.names})
