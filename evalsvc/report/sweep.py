"""The report of a sweep as frozen data: everything its page shows, and the schema of its `report.json`."""

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Figured:
    """A figure and its 95 % interval over the rows it was measured on."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SweptTrial:
    """One trial.

    Attributes:
        name: Of its run directory.
        status: `finished`, `stopped` (by the schedule), `unfinished` or `not started`.
        label: Its values in words.
        values: What it sets, by dotted setting; a number, or words.
        step: Optimiser steps its model has been trained for.
        num_steps: Of them, the ones it trained itself.
        origin: `RUN@STEP` it was forked from; None: from step 0.
        scores: By task, in [0, 1].
        objectives: By name; empty before the first evaluation.
    """

    name: str
    status: str
    label: str
    values: dict[str, float | str]
    step: int
    num_steps: int
    origin: str | None
    scores: dict[str, float]
    objectives: dict[str, Figured]


@dataclass(frozen=True, slots=True)
class SharedPart:
    """A trunk: what it trained, and how many trials and trunks went on from it."""

    name: str
    first_step: int
    last_step: int
    num_forks: int


@dataclass(frozen=True, slots=True)
class Clone:
    """A member of a population that went on from another's checkpoint, and the settings that changed with it."""

    trial: str
    step: int
    donor: str
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """A whole sweep. Also the schema of its `report.json`.

    Attributes:
        keys: Settings searched, in the order of the space.
        boundary_key: The one of them that says where stage 1 ends, if it is a number.
        best: Names on the Pareto front (with one objective: the best), the winner first.
        steps_trained: Optimiser steps of all runs, shared parts once.
        steps_unshared: The same if every trial had begun at step 0.
    """

    schema_version: int
    title: str
    search: str
    schedule: str
    objectives: tuple[str, ...]
    measured_on: Literal["probe", "selection"]
    keys: tuple[str, ...]
    boundary_key: str | None
    trials: tuple[SweptTrial, ...]
    best: tuple[str, ...]
    shared: tuple[SharedPart, ...]
    clones: tuple[Clone, ...]
    steps_trained: int
    steps_unshared: int

    def trial(self, name: str) -> SweptTrial:
        """The trial of that name."""
        return next(trial for trial in self.trials if trial.name == name)

    @property
    def measured(self) -> tuple[SweptTrial, ...]:
        """Trials that have objectives, the best in the first one first."""
        measured = [trial for trial in self.trials if trial.objectives]
        return tuple(sorted(measured, key=lambda trial: (-trial.objectives[self.objectives[0]].value, trial.name)))
