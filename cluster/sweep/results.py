"""What came of each trial, read from its run: ledger and manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cluster.run_directory import RunDirectory
from cluster.sweep.config import ObjectiveName, SweepConfig
from cluster.sweep.directory import SweepDirectory
from cluster.sweep.objective import Estimate, Score, objective, pareto_front
from evalsvc.report.history import RunHistory
from evalsvc.report.sweep import Clone
from scheduler.ledger import read_ledger
from scheduler.records import ForkRecord
from scheduler.task import TaskSpec

Status = Literal["finished", "stopped", "unfinished", "not started"]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One run of a sweep.

    Attributes:
        name: Of the trial.
        values: What it sets of the search space.
        status: `stopped`: by the schedule, before its end.
        step: Optimiser steps its model has been trained for.
        num_steps: Of them, the ones that this run itself trained.
        origin: The run it was forked from, as `RUN@STEP`; None if it began at step 0.
        measured_on: Rows behind `scores`.
        scores: By task; empty before the first evaluation.
        objectives: By name; empty before the first evaluation.
        root: Its run directory.
    """

    name: str
    values: Mapping[str, Any]
    status: Status
    step: int
    num_steps: int
    origin: str | None
    measured_on: Literal["probe", "selection"]
    scores: Mapping[str, Score]
    objectives: Mapping[ObjectiveName, Estimate]
    root: Path


@dataclass(frozen=True, slots=True)
class SweepResults:
    """All trials in the order of their numbers, the trunks, and which are best: by name, the winner first.

    `clones` are the exploits of a population, in order of steps.
    """

    trials: tuple[TrialResult, ...]
    trunks: tuple[TrialResult, ...]
    best: tuple[str, ...]
    clones: tuple[Clone, ...] = ()

    @property
    def winner(self) -> TrialResult | None:
        """The finished trial that is best in the first objective."""
        return next((trial for trial in self.trials if self.best and trial.name == self.best[0]), None)


def gather_results(directory: SweepDirectory, config: SweepConfig) -> SweepResults:
    """Read every run of the sweep; of a population, the run that each member ended as."""
    planned, last_step = directory.planned(), directory.base().train.last_step
    found: dict[str, TrialResult] = {}
    for run in directory.runs():
        about = run.read_manifest().get("sweep", {})
        name = about.get("trial", run.root.name)
        spec = planned.get(name)
        values = about.get("values", {} if spec is None else spec.values)
        one = trial_result(run, name=name, values=values, names=config.objective)
        if config.is_population and one.step < last_step:
            one = replace(one, status="unfinished")  # a leg of its way
        before = found.get(name)
        found[name] = one if before is None else _joined(before, one)
    for name, spec in planned.items():
        if name not in found:
            found[name] = trial_result(directory.run(name), name=name, values=spec.values, names=config.objective)
    trials = tuple(found[name] for name in sorted(found) if not name.startswith("trunk-"))
    trunks = tuple(found[name] for name in sorted(found) if name.startswith("trunk-"))
    return SweepResults(
        trials=trials,
        trunks=trunks,
        best=best_of(trials, config.objective),
        clones=_clones(directory) if config.is_population else (),
    )


def _clones(directory: SweepDirectory) -> tuple[Clone, ...]:
    """Runs that went on from the run of another member, as their ledgers tell."""
    found = []
    for run in directory.runs():
        manifest = run.read_manifest()
        forked, trial = manifest.get("forked_from"), manifest.get("sweep", {}).get("trial")
        if forked is None or trial is None:
            continue
        donor = RunDirectory(Path(forked["run"])).read_manifest().get("sweep", {}).get("trial")
        if donor != trial:
            forks = [record for record in read_ledger(run.ledger) if isinstance(record, ForkRecord)]
            found.append(Clone(trial, forked["step"], f"{donor} ({Path(forked['run']).name})", forks[-1].changed))
    return tuple(sorted(found, key=lambda clone: (clone.step, clone.trial)))


def _joined(before: TrialResult, after: TrialResult) -> TrialResult:
    """Two runs of one member of a population: the later one, with the steps of both."""
    later, earlier = (after, before) if _rank(after) >= _rank(before) else (before, after)
    return replace(later, num_steps=later.num_steps + earlier.num_steps)


def _rank(result: TrialResult) -> tuple[bool, int]:
    return result.status == "finished", result.step


def best_of(trials: Sequence[TrialResult], names: Sequence[ObjectiveName]) -> tuple[str, ...]:
    """Finished trials on the Pareto front, the best in the first objective first; ties go to the earlier trial."""
    points = {
        trial.name: [trial.objectives[name].value for name in names]
        for trial in trials
        if trial.status == "finished" and trial.objectives
    }
    return tuple(sorted(pareto_front(points), key=lambda name: (-points[name][0], name)))


def trial_result(
    run: RunDirectory, *, name: str, values: Mapping[str, Any], names: Sequence[ObjectiveName]
) -> TrialResult:
    """One run, however far it came."""
    manifest = run.read_manifest()
    if not run.ledger.is_file():
        return TrialResult(name, values, "not started", 0, 0, None, "probe", {}, {}, run.root)
    records = list(read_ledger(run.ledger))
    history = RunHistory.of(records)
    tasks = history.run_setup.tasks
    scores, measured_on = _scores(history, manifest)
    forks = [record for record in records if isinstance(record, ForkRecord)]
    started = forks[-1].step if forks else 0
    return TrialResult(
        name=name,
        values=values,
        status=_status(manifest),
        step=history.step,
        num_steps=max(0, history.step - started),
        origin=_origin(manifest),
        measured_on=measured_on,
        scores=scores,
        objectives=objectives_of(scores, tasks, names),
        root=run.root,
    )


def objectives_of(
    scores: Mapping[str, Score], tasks: Sequence[TaskSpec], names: Sequence[ObjectiveName]
) -> dict[ObjectiveName, Estimate]:
    """The objectives, once every task has been measured."""
    if len(scores) < len(tasks):
        return {}
    return {name: objective(name, scores, tasks) for name in names}


def _scores(history: RunHistory, manifest: Mapping[str, Any]) -> tuple[dict[str, Score], Literal["probe", "selection"]]:
    selection = {one["task"]: one for one in manifest.get("selection", ()) if one["score"] is not None}
    if selection and len(selection) == len(history.task_names):
        return {task: Score(one["score"], one["num_rows"]) for task, one in selection.items()}, "selection"
    last = {task: signals[-1] for task, signals in history.signals.items() if signals}
    return {task: Score(signal.score, signal.num_probes) for task, signal in last.items()}, "probe"


def _origin(manifest: Mapping[str, Any]) -> str | None:
    forked = manifest.get("forked_from")
    return None if forked is None else f"{Path(forked['run']).name}@{forked['step']}"


def _status(manifest: Mapping[str, Any]) -> Status:
    if manifest.get("status") == "finished":
        return "finished"
    return "stopped" if "stopped_by_schedule" in manifest else "unfinished"
