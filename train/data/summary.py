"""What a preparation found, for a person to read and for `summary.json`."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.errors import DataError
from train.data.row import Refusal
from train.data.sources import SourceRows
from train.data.store import TokenStore


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """One source: records read, and refused by rule at any stage."""

    path: str
    form: str | None
    num_read: int
    refused: dict[str, int]
    unread_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One task's rows by split; means over its training rows, stop token included."""

    task: str
    num_train: int
    num_probe: int
    num_test: int
    mean_tokens: float
    mean_supervised_tokens: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Sources in the order of the config, tasks in the order of the run. `str(summary)` is a table."""

    sources: tuple[SourceSummary, ...]
    tasks: tuple[TaskSummary, ...]

    def __str__(self) -> str:
        sources = [("source", "form", "rows", "refused", "unread columns")]
        for source in self.sources:
            refused = ", ".join(f"{rule} {count}" for rule, count in source.refused.items())
            unread = ", ".join(source.unread_columns)
            sources.append((source.path, source.form or "-", f"{source.num_read:,}", refused or "-", unread or "-"))
        tasks = [("task", "train", "probe", "test", "tokens/row", "supervised/row")]
        for task in self.tasks:
            counts = (f"{task.num_train:,}", f"{task.num_probe:,}", f"{task.num_test:,}")
            tasks.append((task.task, *counts, f"{task.mean_tokens:.1f}", f"{task.mean_supervised_tokens:.1f}"))
        return f"{_table(sources, right={2})}\n\n{_table(tasks, right={1, 2, 3, 4, 5})}"

    def to_json(self) -> str:
        """Indented JSON; inverse of `from_json`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Summary":
        """Inverse of `to_json`. Raises DataError when the text is not a summary."""
        try:
            fields = json.loads(text)
            sources = [{**item, "unread_columns": tuple(item["unread_columns"])} for item in fields["sources"]]
            return cls(
                sources=tuple(SourceSummary(**item) for item in sources),
                tasks=tuple(TaskSummary(**item) for item in fields["tasks"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"not a summary of prepared data ({error!r}); prepare the data again") from error


def summarise_sources(sources: Sequence[SourceRows], refusals: Sequence[Refusal]) -> tuple[SourceSummary, ...]:
    """One summary per source, in order; sources that read the same file share its refusals' counts."""
    by_path: dict[str, Counter[str]] = {}
    for refusal in refusals:
        by_path.setdefault(refusal.source, Counter())[refusal.rule] += 1
    return tuple(
        SourceSummary(
            path=source.path,
            form=source.form,
            num_read=source.num_read,
            refused=dict(by_path.get(source.path, Counter()).most_common()),
            unread_columns=source.unread_columns,
        )
        for source in sources
    )


def summarise_tasks(store: TokenStore) -> tuple[TaskSummary, ...]:
    """One summary per task of the store, in its order; every task has at least one training row."""
    return tuple(
        TaskSummary(
            task=name,
            num_train=store.num_rows(task, "train"),
            num_probe=store.num_rows(task, "probe"),
            num_test=store.num_rows(task, "test"),
            mean_tokens=float(store.lengths(task).mean()),
            mean_supervised_tokens=float(store.supervised_lengths(task).mean()),
        )
        for task, name in enumerate(store.task_names)
    )


def _table(rows: Sequence[tuple[str, ...]], *, right: set[int]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
