"""Ray Tune: the tuners of a sweep, their schedulers, and how many trials run at once.

A trial's process takes no CPU of its own: what it starts does, outside its placement group, so Tune cannot count it.
Concurrency is therefore a number, from what one run needs and what the cluster has.
"""

import importlib.util
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.schedulers.pb2 import PB2

from cluster.run_directory import RunDirectory
from cluster.sweep.config import (
    AshaSchedule,
    ChoiceDomain,
    Domain,
    ObjectiveName,
    Pb2Schedule,
    PbtSchedule,
    Schedule,
    SweepConfig,
)
from cluster.sweep.directory import SweepDirectory
from cluster.sweep.optuna_search import OptunaSearcher
from cluster.sweep.space import bounded, draw, label
from cluster.sweep.trainable import member_name, read_pointer, run_member, run_trial
from scheduler.errors import ConfigError

_QUIET = {"RAY_AIR_NEW_OUTPUT": "0"}

_TRIAL = tune.PlacementGroupFactory([{"memory": 1.0}])
"""One byte: Tune wants a resource, and CPUs taken here would be missing where the training is."""


class Notices(tune.Callback):
    """Says when a trial starts and ends, and marks one that the schedule stopped."""

    def __init__(self, directory: SweepDirectory, say: Callable[[str], None]) -> None:
        self._directory, self._say = directory, say

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Called by Tune."""
        self._say(f"{_name(trial)} {self._beginning(trial)}")

    def _beginning(self, trial: Any) -> str:
        """How a trial begins; a member of a population may go on from its own run or from another's."""
        pointer = read_pointer(trial.checkpoint)
        if pointer is None:
            return "starts"
        donor = RunDirectory(Path(pointer["run"])).read_manifest()["sweep"]["trial"]
        if donor == _name(trial):
            return f"goes on at step {pointer['step']}"
        searched = self._directory.config().space
        values = label({key: value for key, value in trial.config.items() if key in searched})
        return f"clones {donor} at step {pointer['step']}, and goes on with {values}"

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Called by Tune."""
        name, result = _name(trial), trial.last_result
        objectives = ", ".join(f"{key} {result[key]:.3f}" for key in get_args(ObjectiveName) if key in result)
        run = self._directory.run(name)
        stopped = run.ledger.is_file() and not self._directory.is_done(name) and "trial" in trial.config
        if stopped:
            run.update_manifest(stopped_by_schedule=result.get("step"))
        self._say(f"{name} {'was stopped' if stopped else 'ends'} at step {result.get('step')}: {objectives}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Called by Tune."""
        self._say(f"{_name(trial)} failed")


def _name(trial: Any) -> str:
    return trial.config.get("trial") or member_name(trial.trial_id)


def tuner_of_named(
    directory: SweepDirectory,
    names: Sequence[str],
    *,
    objective: Sequence[ObjectiveName],
    stage: str,
    at_once: int,
    say: Callable[[str], None],
    schedule: TrialScheduler | None = None,
) -> tune.Tuner:
    """A tuner over planned runs, each to its end unless the schedule stops it."""
    space = {"sweep": str(directory.root), "objective": list(objective), "trial": tune.grid_search(list(names))}
    return tune.Tuner(
        tune.with_resources(run_trial, _TRIAL),
        param_space=space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=at_once,
            scheduler=schedule,
            reuse_actors=schedule is None,
        ),
        run_config=_run_config(directory, stage, Notices(directory, say)),
    )


def tuner_of_search(
    directory: SweepDirectory, searcher: OptunaSearcher, *, num_trials: int, at_once: int, say: Callable[[str], None]
) -> tune.Tuner:
    """A tuner whose trials are chosen as it goes."""
    schedule = stopping(directory)
    return tune.Tuner(
        tune.with_resources(run_trial, _TRIAL),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=num_trials,
            max_concurrent_trials=at_once,
            scheduler=schedule,
            reuse_actors=schedule is None,
        ),
        run_config=_run_config(directory, "search", Notices(directory, say)),
    )


def tuner_of_population(directory: SweepDirectory, names: Sequence[str], *, say: Callable[[str], None]) -> tune.Tuner:
    """A tuner whose trials clone one another; an interrupted one goes on from Tune's own state.

    Tune must know all members from the start, or the first two would be the whole population to it: no limit here. It
    must also know the last step: otherwise PBT compares there too, and sends the worst to train their last leg again.
    """
    config, base = directory.config(), directory.base()
    trainable = tune.with_resources(run_member, _TRIAL)
    run_config = _run_config(directory, "population", Notices(directory, say), last_step=base.train.last_step)
    before = str(Path(run_config.storage_path or "") / (run_config.name or ""))
    if tune.Tuner.can_restore(before):
        return tune.Tuner.restore(before, trainable, resume_unfinished=True, restart_errored=True)
    schedule = config.schedule
    assert isinstance(schedule, PbtSchedule | Pb2Schedule)
    values = [directory.planned()[name].values for name in names]
    return tune.Tuner(
        trainable,
        param_space={
            "sweep": str(directory.root),
            "compared_at": list(range(schedule.every_steps, base.train.last_step, schedule.every_steps)),
            "begun_as": tune.grid_search(list(range(len(names)))),
            **{key: tune.sample_from(_value_of(values, key)) for key in config.space},
        },
        tune_config=tune.TuneConfig(
            scheduler=_population(schedule, config),
            reuse_actors=False,
        ),
        run_config=run_config,
    )


def _value_of(values: Sequence[Mapping[str, Any]], key: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda config: values[config["begun_as"]][key]


def _run_config(
    directory: SweepDirectory, stage: str, notices: Notices, *, last_step: int | None = None
) -> tune.RunConfig:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if stage != "population":
        taken = sum(path.name.startswith(stage) for path in directory.tune.glob("*"))
        stage = f"{stage}-{taken + 1}"
    return tune.RunConfig(
        name=stage,
        storage_path=str(directory.tune),
        callbacks=[notices],
        stop=None if last_step is None else {"step": last_step},
        verbose=0,
        failure_config=tune.FailureConfig(max_failures=0),
    )


def stopping(directory: SweepDirectory) -> TrialScheduler | None:
    """The scheduler that stops trials early; None where none does."""
    config = directory.config()
    if not isinstance(config.schedule, AshaSchedule):
        return None
    return ASHAScheduler(
        time_attr="step",
        metric=config.objective[0],
        mode="max",
        max_t=directory.base().train.last_step,
        grace_period=config.schedule.grace_steps,
        reduction_factor=config.schedule.reduction_factor,
    )


def _population(schedule: Schedule, config: SweepConfig) -> TrialScheduler:
    space = config.space
    match schedule:
        case PbtSchedule():
            return PopulationBasedTraining(
                time_attr="step",
                metric=config.objective[0],
                mode="max",
                perturbation_interval=schedule.every_steps,
                quantile_fraction=schedule.quantile,
                resample_probability=schedule.resample_probability,
                hyperparam_mutations={key: _mutation(space, key, schedule.seed) for key in space},
                custom_explore_fn=lambda values: within(space, values),
                synch=True,
            )
        case Pb2Schedule():
            check_pb2()
            bounds: dict[str, Any] = {
                key: [domain.low, domain.high] for key, domain in space.items() if not isinstance(domain, ChoiceDomain)
            }
            return PB2(
                time_attr="step",
                metric=config.objective[0],
                mode="max",
                perturbation_interval=schedule.every_steps,
                quantile_fraction=schedule.quantile,
                hyperparam_bounds=bounds,
                custom_explore_fn=lambda values: within(space, values),
                synch=True,
            )
        case _:
            raise AssertionError(schedule)


def within(space: Mapping[str, Domain], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values after a perturbation, each brought back into its domain; other keys as they are."""
    return {key: bounded(space[key], value) if key in space else value for key, value in values.items()}


def check_pb2() -> None:
    """Raises ConfigError where PB2's Gaussian process is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            "schedule.type: pb2 needs the package scikit-learn, which is not installed; install it, or use "
            "schedule.type: pbt"
        )


def _mutation(space: Mapping[str, Domain], key: str, seed: int) -> Any:
    """How Tune draws a key anew: a list for choices, a function for numbers."""
    domain = space[key]
    if isinstance(domain, ChoiceDomain):
        return list(domain.values)
    counter = random.Random(f"{seed}/{key}")
    return lambda: draw({key: domain}, seed=counter.randrange(2**31), trial=0)[key]
