"""The report of a sensitivity measurement as frozen data: the schema of its `report.json`."""

from dataclasses import dataclass
from statistics import fmean

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One fork.

    Attributes:
        phase: Step it was forked at.
        nudge: What was added to the group's share; 0 for the fork whose mixture stayed.
        share: The group's share under the nudged mixture.
        weights: That mixture, by task.
        scores: At the end, by task.
        change: Those, less the ones of the fork of the same phase that was not nudged.
    """

    phase: int
    nudge: float
    share: float
    weights: dict[str, float]
    scores: dict[str, float]
    change: dict[str, float]

    @property
    def behaviour_change(self) -> float:
        """Mean over tasks of how far the score moved, up or down."""
        return fmean(map(abs, self.change.values()))


@dataclass(frozen=True, slots=True)
class SensitivityReport:
    """Phase and nudge against change of behaviour. `steps`: optimiser steps trained under each mixture."""

    schema_version: int
    title: str
    run: str
    group: tuple[str, ...]
    steps: int
    tasks: tuple[str, ...]
    cells: tuple[Cell, ...]
