"""`taskheat sweep`: plan, run on one Ray, gather, report. Begun anew or gone on with, it is the same code.

    plan_trials ─► trunks, a level at a time ─► trials (Tune) ─► results ─► report.html, report.json, winner.yaml

What has finished is found in its run directory and not run again; what was cut off goes on from its own checkpoint.
"""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.config import LaunchConfig, RunConfig
from cluster.driver import ray_cluster
from cluster.preflight import check_packages
from cluster.settings import load_config
from cluster.sweep.config import ObjectiveName, OptunaSearch, Pb2Schedule, SweepConfig
from cluster.sweep.directory import SweepDirectory, TrialSpec, next_number
from cluster.sweep.optuna_search import OptunaSearcher, optuna_package
from cluster.sweep.outcome import conclude_sweep
from cluster.sweep.results import SweepResults, gather_results
from cluster.sweep.room import concurrency
from cluster.sweep.trials import plan_trials, planned_steps
from cluster.sweep.tuning import (
    check_pb2,
    stopping,
    tuner_of_named,
    tuner_of_population,
    tuner_of_search,
)
from scheduler.errors import RunFailedError, TaskheatError

Say = Callable[[str], None]


def start_sweep(config: SweepConfig, launch: LaunchConfig, *, say: Say, dry_run: bool = False) -> SweepResults | None:
    """Plan and run a sweep under a fresh directory; with `dry_run` only say what would be run.

    Raises:
        ConfigError: The space, or a trial of it, is wrong; nothing has been started.
        RunFailedError: A shared part could not be trained.
    """
    check_packages()
    _check_extras(config)
    base = load_config(RunConfig, files=config.run, overrides=config.overrides)
    directory = SweepDirectory.create(config, config.output, base=base, launch=launch)
    try:
        specs, unshared_steps = plan_trials(config, directory)
    except TaskheatError:
        directory.discard()
        raise
    say(plan_text(specs, directory, config, unshared_steps))
    if dry_run:
        directory.discard()
        return None
    directory.plan(specs)
    return _run(directory, say)


def resume_sweep(root: Path, *, say: Say) -> SweepResults:
    """Go on with a sweep that was cut off."""
    check_packages()
    directory = SweepDirectory.reopen(root)
    done = [name for name in directory.planned() if directory.is_done(name)]
    say(f"{len(done)} of {len(directory.planned())} planned runs are done and stay as they are")
    return _run(directory, say)


def plan_text(specs: Sequence[TrialSpec], directory: SweepDirectory, config: SweepConfig, unshared_steps: int) -> str:
    """What will be run, in words."""
    trials = [spec for spec in specs if not spec.is_trunk]
    if not trials:
        return f"{config.search.type}: up to {unshared_steps} optimiser steps"
    steps = planned_steps(specs, directory)
    trunks = len(specs) - len(trials)
    shared = f", {trunks} shared part(s)" if trunks else ""
    return (
        f"{len(trials)} trials{shared}: {steps} optimiser steps; without sharing {unshared_steps} "
        f"({steps / unshared_steps:.2f})"
    )


def _check_extras(config: SweepConfig) -> None:
    if isinstance(config.search, OptunaSearch):
        optuna_package()
    if isinstance(config.schedule, Pb2Schedule):
        check_pb2()


def _run(directory: SweepDirectory, say: Say) -> SweepResults:
    config, launch = directory.config(), directory.launch()
    with ray_cluster(launch, f"taskheat-{directory.root.name}-{uuid.uuid4().hex[:8]}"):
        at_once = config.max_concurrent or concurrency(launch, ray.cluster_resources())
        for level in _levels([spec for spec in directory.planned().values() if spec.is_trunk]):
            run_named(directory, level, objective=config.objective, stage="trunks", at_once=at_once, say=say)
            failed = [name for name in level if not directory.is_done(name)]
            if failed:
                raise RunFailedError(
                    f"{', '.join(failed)}: a shared part failed, so its trials cannot begin; the cause is in "
                    f"{directory.run(failed[0]).manifest}. Once it is mended: taskheat sweep --resume {directory.root}"
                )
        _run_trials(directory, config, at_once, say)
    return conclude_sweep(directory, config, say)


def _levels(trunks: Sequence[TrialSpec]) -> list[list[str]]:
    """Names of trunks, those first that need no other."""
    levels: list[list[str]] = []
    depth: dict[str, int] = {}
    for trunk in trunks:
        depth[trunk.name] = 0 if trunk.origin is None else depth[trunk.origin[0]] + 1
        if depth[trunk.name] == len(levels):
            levels.append([])
        levels[depth[trunk.name]].append(trunk.name)
    return levels


def _run_trials(directory: SweepDirectory, config: SweepConfig, at_once: int, say: Say) -> None:
    names = [spec.name for spec in directory.planned().values() if not spec.is_trunk]
    if config.is_population:
        _fit(tuner_of_population(directory, names, say=say), say)
    elif isinstance(config.search, OptunaSearch):
        _run_search(directory, config, config.search, at_once, say)
    else:
        schedule = stopping(directory)
        run_named(
            directory,
            names,
            objective=config.objective,
            stage="trials",
            at_once=at_once,
            say=say,
            schedule=schedule,
        )


def run_named(
    directory: SweepDirectory,
    names: Sequence[str],
    *,
    objective: Sequence[ObjectiveName],
    stage: str,
    at_once: int,
    say: Say,
    schedule: Any = None,
) -> None:
    """Train those of the planned runs that are not done; a failed one is said and left."""
    left = [name for name in names if not directory.is_done(name)]
    if left:
        tuner = tuner_of_named(
            directory, left, objective=objective, stage=stage, at_once=at_once, say=say, schedule=schedule
        )
        _fit(tuner, say)


def _run_search(directory: SweepDirectory, config: SweepConfig, search: OptunaSearch, at_once: int, say: Say) -> None:
    """Finish what was cut off, tell Optuna of all that finished, and let it choose the rest."""
    begun = gather_results(directory, config).trials
    directory.plan(TrialSpec(trial.name, trial.values) for trial in begun if trial.status != "not started")
    names = list(directory.planned())
    run_named(directory, names, objective=config.objective, stage="trials", at_once=at_once, say=say)
    left = search.trials - len(directory.planned())
    if left <= 0:
        return
    searcher = OptunaSearcher(
        sweep=str(directory.root),
        space=config.space,
        search=search,
        objective=config.objective,
        first_number=next_number(directory.planned()),
        num_trials=left,
    )
    for trial in gather_results(directory, config).trials:
        if trial.objectives:
            searcher.know(dict(trial.values), [trial.objectives[name].value for name in config.objective])
    _fit(tuner_of_search(directory, searcher, num_trials=left, at_once=at_once, say=say), say)


def _fit(tuner: Any, say: Say) -> None:
    for result in tuner.fit():
        if result.error is not None:
            trial = (result.config or {}).get("trial", "a member")
            say(f"{trial} failed: {str(result.error).strip().splitlines()[-1]}")
