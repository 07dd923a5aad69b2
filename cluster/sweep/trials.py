"""Before anything starts: the trials a sweep will run, each a configuration that loads and can be trained."""

import json
from collections.abc import Sequence

from cluster.config import RunConfig
from cluster.data import task_cards
from cluster.setup import gather_inputs, inputs_of
from cluster.sweep.config import GridSearch, OptunaSearch, Pb2Schedule, PbtSchedule, RandomSearch, SweepConfig
from cluster.sweep.directory import SweepDirectory, TrialSpec, trial_name
from cluster.sweep.sharing import Origin, SharingPlan, plan_sharing, unshared
from cluster.sweep.space import corners, draw, grid, label
from cluster.sweep.timeline import Timeline, timeline
from scheduler.errors import ConfigError, TaskheatError

_FIXED_IN_FLIGHT = ("model", "data", "tasks", "seed", "output", "stages.0.until", "train.global_batch_size")
_FIXED_IN_FLIGHT += ("train.steps", "mixture.weight_unit", "mixture.interval_steps", "mixture.mode")


def plan_trials(config: SweepConfig, directory: SweepDirectory) -> tuple[list[TrialSpec], int]:
    """All trials known beforehand, trunks first, and the optimiser steps they would take without sharing.

    Of a search that chooses as it goes none is known, and the corners of its space are tried out instead.

    Raises:
        ConfigError: A trial is no valid run; names it, the key and the value.
        DataError: The data of one cannot be trained on.
    """
    specs = _sampled(config)
    configs = [directory.trial_config(spec) for spec in specs]
    _check_inputs(specs, configs)
    _check_population(config, configs)
    if isinstance(config.search, OptunaSearch):
        return [], config.search.trials * configs[0].train.last_step
    lines = [timeline(one) for one in configs]
    is_shared = config.share_prefix and not config.is_population
    shared = plan_sharing(lines, min_saved_steps=config.min_saved_steps) if is_shared else unshared(len(specs))
    return _with_trunks(specs, shared), unshared(len(specs)).trained_steps(lines)


def _sampled(config: SweepConfig) -> list[TrialSpec]:
    match config.search:
        case GridSearch():
            found = list(grid(config.space))
        case RandomSearch(trials=trials, seed=seed):
            found = [draw(config.space, seed=seed, trial=number) for number in range(trials)]
        case OptunaSearch(seed=seed):
            found = [*corners(config.space), *(draw(config.space, seed=seed, trial=number) for number in range(8))]
    return [TrialSpec(name=trial_name(number), values=values) for number, values in enumerate(found)]


def _check_inputs(specs: Sequence[TrialSpec], configs: Sequence[RunConfig]) -> None:
    """Prepare the data once for all that share it, and let the engine of every trial refuse what it would refuse."""
    prepared = {}
    for spec, config in zip(specs, configs, strict=True):
        cards = task_cards(config)
        key = _data_key(config)
        try:
            if key not in prepared:
                prepared[key] = gather_inputs(config).prepared
            else:
                inputs_of(config, cards, prepared[key])
        except TaskheatError as error:
            raise type(error)(f"{spec.name} ({label(spec.values)}) cannot be trained: {error}") from error


def _data_key(config: RunConfig) -> str:
    dump = config.model_dump(mode="json", include={"model", "data", "tasks", "seed"})
    arrangements = [stage.arrangement.model_dump(mode="json") for stage in config.stages]
    return json.dumps([dump, arrangements], sort_keys=True)


def _check_population(config: SweepConfig, configs: Sequence[RunConfig]) -> None:
    """Members clone one another's checkpoints, so they may differ in nothing that a fork must keep."""
    schedule = config.schedule
    if not isinstance(schedule, PbtSchedule | Pb2Schedule):
        return
    for key in config.space:
        if any(f"{key}.".startswith(f"{fixed}.") for fixed in _FIXED_IN_FLIGHT):
            raise ConfigError(
                f"space.{key}: schedule.type {schedule.type} changes values while a run goes on, and this one "
                "must stay; search it with schedule.type none or asha"
            )
    if len(configs) < 2:
        raise ConfigError(f"schedule.type {schedule.type} needs at least two trials; raise search.trials")
    every = schedule.every_steps
    interval = configs[0].mixture.interval_of(configs[0].train.steps)
    if every % interval or every >= configs[0].train.last_step:
        raise ConfigError(
            f"schedule.every_steps {every}: give a multiple of the interval of {interval} steps, below the run's "
            f"{configs[0].train.last_step}"
        )
    if isinstance(schedule, Pb2Schedule) and 2 * every >= configs[0].train.last_step:
        raise ConfigError(
            f"schedule.every_steps {every}: pb2 has gains to learn from only at the second comparison, and this run of "
            f"{configs[0].train.last_step} steps has one; give less than half of its steps"
        )


def _with_trunks(specs: Sequence[TrialSpec], shared: SharingPlan) -> list[TrialSpec]:
    names = [f"trunk-{number:03d}" for number in range(len(shared.trunks))]

    def origin(place: Origin | None) -> tuple[str, int] | None:
        return None if place is None else (names[place.trunk], place.step)

    trunks = [
        TrialSpec(
            name=name,
            values=specs[trunk.representative].values,
            settings=(f"train.stop_after={trunk.stop}", f"train.checkpoint_at={list(trunk.forks)}"),
            origin=origin(trunk.origin),
        )
        for name, trunk in zip(names, shared.trunks, strict=True)
    ]
    trials = [
        TrialSpec(name=spec.name, values=spec.values, origin=origin(place))
        for spec, place in zip(specs, shared.origins, strict=True)
    ]
    return [*trunks, *trials]


def planned_steps(specs: Sequence[TrialSpec], directory: SweepDirectory) -> int:
    """Optimiser steps of all planned runs, each from its origin to its end."""
    return sum(
        timeline_of(spec, directory).last_step - (0 if spec.origin is None else spec.origin[1]) for spec in specs
    )


def timeline_of(spec: TrialSpec, directory: SweepDirectory) -> Timeline:
    """When what of the trial matters."""
    return timeline(directory.trial_config(spec))
