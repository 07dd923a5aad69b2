"""`taskheat replay RUN --policy OTHER.yaml`: what another mixture would have decided on the same signals.

The file says what is to differ, in the words of a run's configuration:

    mixture: {policy: {type: odm}, guards: {max_change: 0.2}}     laid over the run's own mixture settings
    stages: [{name: a, until: {type: step, step: 100}, policy: {type: static}}, {name: b}]    instead of the run's own

Of a stage only `until` and `policy` bear on weights; the other settings are allowed, so that stages can be copied from
a run, and have no effect. A stage of the run that had another policy than `mixture.policy` keeps it unless `stages`
says otherwise. The decisions themselves are made in `scheduler.counterfactual`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import ValidationError

from cluster.config import StageConfig, schedule_fault
from cluster.fork import changes
from cluster.settings import load_config
from scheduler.config_model import ConfigModel, faults
from scheduler.counterfactual import Counterfactual, decide_otherwise
from scheduler.errors import ConfigError
from scheduler.ledger import read_ledger
from scheduler.records import TaskDecision
from scheduler.setup import EngineSetup, MixtureConfig

NOTE = (
    "Both columns are decided on the signals of the run as it was. Had the other mixture been in force, the model and "
    "its signals would have been others; the farther the two part, the less later decisions say."
)


class OtherMixture(ConfigModel):
    """What is to differ from the run. `stages` null: those of the run."""

    mixture: MixtureConfig = MixtureConfig()
    stages: tuple[StageConfig, ...] | None = None


@dataclass(frozen=True, slots=True)
class TaskDifference:
    """One task's weights in the plans of the run and in the other ones: mean over decisions, and in the last one."""

    task: str
    mean: float
    other_mean: float
    last: float
    other_last: float

    @property
    def gain(self) -> float:
        """What the other mixture gives the task more, on average."""
        return self.other_mean - self.mean


@dataclass(frozen=True, slots=True)
class DecisionDifference:
    """One evaluation's two plans, weights in the order of the run's tasks."""

    source_step: int
    effective_from_step: int
    weights: tuple[float, ...]
    other_weights: tuple[float, ...]
    total_variation: float
    stage: int
    other_stage: int
    other_held: str | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A run's mixture beside another.

    Attributes:
        changed: Settings that differ, `a.b: old → new`.
        tasks: Differences, the task that gains most first.
        decisions: In order.
        mean_total_variation: Over decisions, in [0, 1].
        held_by: Per guard, how many weights it held back in all decisions of the run.
        other_held_by: The same under the other mixture.
        note: What this comparison cannot tell.
    """

    changed: tuple[str, ...]
    task_names: tuple[str, ...]
    tasks: tuple[TaskDifference, ...]
    decisions: tuple[DecisionDifference, ...]
    mean_total_variation: float
    held_by: dict[str, int]
    other_held_by: dict[str, int]
    note: str = NOTE


def what_if(path: Path, files: Sequence[Path], overrides: Sequence[str] = ()) -> WhatIf:
    """Decide again on every evaluation of the run at `path` (its directory or ledger), under other settings.

    Raises:
        LedgerError: No ledger, a damaged one, or one without a decision.
        ReplayMismatchError: The run's own plans are not what its evidence gives.
        ConfigError: The other settings are wrong, or change what signals were measured at or shares are of.
    """
    found = decide_otherwise(read_ledger(path), lambda setup: altered_setup(setup, files, overrides))
    if not found.decisions:
        raise ConfigError(f"{path}: the run has not decided on any evaluation yet, so there is nothing to compare")
    return _compared(found)


def altered_setup(setup: EngineSetup, files: Sequence[Path], overrides: Sequence[str]) -> EngineSetup:
    """`setup` with the other settings laid over its own. Raises ConfigError as `what_if`."""
    other = load_config(OtherMixture, files=files, overrides=overrides, base=OtherMixture(mixture=setup.mixture))
    for name, ours, theirs in (
        ("mode", setup.mode, other.mixture.mode),
        ("weight_unit", setup.mixture.weight_unit, other.mixture.weight_unit),
        ("interval_steps", setup.interval_steps, other.mixture.interval_of(setup.total_steps)),
    ):
        if ours != theirs:
            raise ConfigError(
                f"mixture.{name}: {theirs!r} cannot be compared with the run's {ours!r}, for its signals were measured "
                "under that; leave it out"
            )
    boundary, guards = setup.boundary, setup.stage_guards
    policies = tuple(
        other.mixture.policy if policy == setup.mixture.policy else policy for policy in setup.stage_policies
    )
    if other.stages is not None:
        fault = schedule_fault(other.stages, other.mixture, steps=setup.total_steps)
        if fault is not None:
            raise ConfigError(fault)
        first, last = other.stages[0], other.stages[-1]
        boundary, guards = first.until, (first.guards, last.guards)
        policies = (first.policy or other.mixture.policy, last.policy or other.mixture.policy)
    changes = {
        "mixture": other.mixture,
        "boundary": boundary,
        "stage_policies": policies,
        "stage_guards": guards,
    }
    try:
        return EngineSetup.model_validate(setup.model_copy(update=changes).model_dump(mode="json"))
    except ValidationError as error:
        raise ConfigError(faults(error)) from error


def _compared(found: Counterfactual) -> WhatIf:
    names = tuple(task.name for task in found.setup.tasks)
    ours = [pair.recorded.plan.weights for pair in found.decisions]
    theirs = [pair.other.plan.weights for pair in found.decisions]
    columns = zip(names, zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    tasks = [TaskDifference(name, fmean(own), fmean(other), own[-1], other[-1]) for name, own, other in columns]
    decisions = tuple(
        DecisionDifference(
            source_step=pair.recorded.plan.source_step,
            effective_from_step=pair.recorded.plan.effective_from_step,
            weights=pair.recorded.plan.weights,
            other_weights=pair.other.plan.weights,
            total_variation=pair.total_variation,
            stage=pair.recorded.plan.stage,
            other_stage=pair.other.plan.stage,
            other_held=pair.other.held,
        )
        for pair in found.decisions
    )
    return WhatIf(
        changed=_changed(found),
        task_names=names,
        tasks=tuple(sorted(tasks, key=lambda task: -task.gain)),
        decisions=decisions,
        mean_total_variation=fmean(decision.total_variation for decision in decisions),
        held_by=_held(pair.recorded.tasks for pair in found.decisions),
        other_held_by=_held(pair.other.tasks for pair in found.decisions),
    )


def _changed(found: Counterfactual) -> tuple[str, ...]:
    bearing = {"mixture", "boundary", "stage_policies", "stage_guards"}
    return changes(found.setup, found.altered, include=bearing)


def _held(decisions: Iterable[Iterable[TaskDecision]]) -> dict[str, int]:
    """Guard to weights held back, the busiest first."""
    return dict(Counter(task.held_by for tasks in decisions for task in tasks if task.held_by).most_common())
