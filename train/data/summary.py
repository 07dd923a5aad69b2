"""What a preparation found, for a person to read and for `summary.json`."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.errors import DataError


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
    """One task's rows by set; the rest is of its training rows.

    Attributes:
        task: Its name.
        num_train: Training rows.
        num_probe: Rows that feed the engine.
        num_selection: Rows that choose between checkpoints.
        num_test: Rows read once, at the end.
        mean_tokens: Per row, stop token included.
        mean_supervised_tokens: Per row, stop tokens included.
        num_flagged: Rows that break a rule which only flags.
        num_chains: Rows stored after the rows they continue.
        num_contrasts: Rows stored after a related row.
        level_sizes: Rows of each difficulty level, easiest first.
    """

    task: str
    num_train: int
    num_probe: int
    num_selection: int
    num_test: int
    mean_tokens: float
    mean_supervised_tokens: float
    num_flagged: int = 0
    num_chains: int = 0
    num_contrasts: int = 0
    level_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """Sources in the order of the config, tasks in the order of the run. `str(summary)` is a table.

    `prompts` counts rows without an answer, by task: they may be evaluated on, never trained on. `file_hashes`
    are those of all files read.
    """

    sources: tuple[SourceSummary, ...]
    tasks: tuple[TaskSummary, ...]
    prompts: dict[str, int] = dataclasses.field(default_factory=dict)
    file_hashes: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        sources = [("source", "form", "rows", "refused", "unread columns")]
        for source in self.sources:
            refused = ", ".join(f"{rule} {count:,}" for rule, count in source.refused.items())
            unread = ", ".join(source.unread_columns)
            sources.append((source.path, source.form or "-", f"{source.num_read:,}", refused or "-", unread or "-"))
        parts = [_table(sources, right={2}), self._tasks_text()]
        if self.prompts:
            listed = ", ".join(f"{task} {count:,}" for task, count in self.prompts.items())
            parts.append(f"prompts without an answer, for evaluation only: {listed}")
        return "\n\n".join(parts)

    def _tasks_text(self) -> str:
        if not self.tasks:
            return "no task has rows to train on: taskheat run would refuse this data"
        columns: list[tuple[str, list[str]]] = [
            ("train", [f"{task.num_train:,}" for task in self.tasks]),
            ("probe", [f"{task.num_probe:,}" for task in self.tasks]),
            ("selection", [f"{task.num_selection:,}" if task.num_selection else "" for task in self.tasks]),
            ("test", [f"{task.num_test:,}" for task in self.tasks]),
            ("tokens/row", [f"{task.mean_tokens:.1f}" for task in self.tasks]),
            ("supervised/row", [f"{task.mean_supervised_tokens:.1f}" for task in self.tasks]),
            ("levels", [f"{len(task.level_sizes)}" if len(task.level_sizes) > 1 else "" for task in self.tasks]),
            ("flagged", [f"{task.num_flagged:,}" if task.num_flagged else "" for task in self.tasks]),
            ("chains", [f"{task.num_chains:,}" if task.num_chains else "" for task in self.tasks]),
            ("contrasts", [f"{task.num_contrasts:,}" if task.num_contrasts else "" for task in self.tasks]),
        ]
        shown = [(name, cells) for name, cells in columns if any(cells)]
        names = ["task", *(name for name, _ in shown)]
        rows = zip(
            [task.task for task in self.tasks], *([cell or "-" for cell in cells] for _, cells in shown), strict=True
        )
        return _table([tuple(names), *rows], right=set(range(1, len(names))))

    def to_json(self) -> str:
        """Indented JSON; inverse of `from_json`."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Summary":
        """Inverse of `to_json`. Raises DataError when the text is not a summary."""
        try:
            fields = json.loads(text)
            sources = [{**item, "unread_columns": tuple(item["unread_columns"])} for item in fields["sources"]]
            tasks = [{**item, "level_sizes": tuple(item["level_sizes"])} for item in fields["tasks"]]
            return cls(
                sources=tuple(SourceSummary(**item) for item in sources),
                tasks=tuple(TaskSummary(**item) for item in tasks),
                prompts=fields["prompts"],
                file_hashes=fields["file_hashes"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"not a summary of prepared data ({error!r})") from error


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
