"""What one run of one arm came to, and the file of results that lets the benchmark go on where it was interrupted."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. Scores and shares in [0, 1]; a unit of compute is the forward and backward pass of one token.

    Attributes:
        suite: Name of the suite.
        arm: Name of the arm.
        seed: Shared by all arms it is compared with.
        num_steps: Optimiser steps trained.
        train_units: Tokens trained.
        probe_units: Tokens of the probes the policy was steered by, generated ones included, a third of a unit each.
        test: Score by task on rows nothing was chosen by; tasks of random labels left out.
        selection: Score by task at the end on the rows that choose between runs; likewise.
        curve: (units so far, macro score on the selection rows) at boundaries, and at the end.
        mean_weights: Weight by task, averaged over steps.
        first_weights: Weight by task at the start.
        moves: Total-variation distance between consecutive plans.
        random_share: Mean weight of tasks with random labels, per such task.
        random_floor: Their least weight; None where nothing bounds it.
        recognised_at: Share of the run that was over when the last of them was damped; None if one never was.
        random_share_after: Mean weight per such task from then on; None if never damped.
        cpu_s: CPU-seconds of the run, preparation left out.
        run_of: The arm that was run where this one would serve the same rows in the same order; None: this arm itself.
    """

    suite: str
    arm: str
    seed: int
    num_steps: int
    train_units: float
    probe_units: float
    test: Mapping[str, float]
    selection: Mapping[str, float]
    curve: Sequence[tuple[float, float]]
    mean_weights: Mapping[str, float]
    first_weights: Mapping[str, float]
    moves: Sequence[float]
    random_share: float | None
    random_floor: float | None
    recognised_at: float | None
    random_share_after: float | None
    cpu_s: float
    run_of: str | None = None

    @property
    def macro(self) -> float:
        """Mean test score over tasks."""
        return sum(self.test.values()) / len(self.test)

    @property
    def worst(self) -> float:
        """Least test score of a task."""
        return min(self.test.values())

    @property
    def selection_macro(self) -> float:
        """Mean selection score over tasks at the end."""
        return sum(self.selection.values()) / len(self.selection)

    @property
    def selection_worst(self) -> float:
        """Least selection score of a task at the end."""
        return min(self.selection.values())

    def units_to(self, target: float) -> float | None:
        """Compute spent when the macro selection score first was at `target`; None if it never was."""
        return next((units for units, score in self.curve if score >= target), None)


class ResultsFile:
    """Outcomes by key, one JSON line each; the file only grows. What an interruption cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[str, Outcome] = {}
        content = path.read_bytes() if path.is_file() else b""
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].decode().splitlines():
            fields = json.loads(line)
            key = fields.pop("key")
            self.outcomes[key] = outcome_of(fields)
        if whole < len(content):
            path.write_bytes(content[:whole])

    def add(self, keyed: Mapping[str, Outcome]) -> None:
        """Write outcomes down at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for key, one in keyed.items():
                fields = _rounded(asdict(one))
                file.write(json.dumps({"key": key, **fields}) + "\n")
                self.outcomes[key] = outcome_of(fields)


def outcome_of(fields: Mapping[str, Any]) -> Outcome:
    """From the fields of a line."""
    return Outcome(**{**fields, "curve": [(units, score) for units, score in fields["curve"]]})


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 6)
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
        case _:
            return value
