"""How much a change of the mixture changes the model, by when it comes: `taskheat sweep --sensitivity`.

    finished run  ─ checkpoint at phase s ─► fork, weights as they were      ─┐
                                          ─► fork, a group's share + x       ─┤ s + interval + steps: scores
                                          ─► fork, a group's share - x       ─┘
                                                                  change = nudged - as they were

In a fork the weights stand still: the policy is static, its prior the weights of the plan in force at the phase, and
no guard holds them. So what differs between two forks of one phase is the share of the group and nothing else. The
learning rate and everything else go on as in the run: `train.steps` stays, `train.stop_after` ends the fork.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import ray
from pydantic import Field, FiniteFloat

from cluster.config import LaunchConfig, RunConfig
from cluster.driver import ray_cluster
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from cluster.sweep.config import SweepOutput
from cluster.sweep.directory import SweepDirectory, TrialSpec
from cluster.sweep.execute import run_named
from cluster.sweep.results import trial_result
from cluster.sweep.room import concurrency
from evalsvc.report.sensitivity import SCHEMA_VERSION, Cell, SensitivityReport
from evalsvc.report.sensitivity_page import write_sensitivity
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError, RunDirectoryError, RunFailedError
from scheduler.ledger import read_ledger
from scheduler.memory import latest_setup
from scheduler.setup import EngineSetup, StageGuards
from train.checkpoint_store import CheckpointStore

_KIND = "sensitivity"
_FREE = {
    "hold_core": False,
    "max_epochs": None,
    "overfit_patience": 1_000_000,
    "floor_ratio": 0.0,
    "max_exposure_gap_steps": None,
    "ceiling": 1.0,
    "max_change": 1.0,
    "late_max_change": 1.0,
}


class SensitivityConfig(ConfigModel):
    """A finished run, and how its mixture is nudged.

    Attributes:
        run: Directory of the run; it needs a checkpoint at each phase (`train.checkpoint_at`).
        phases: Steps to fork at; null: every checkpoint there is.
        group: Tasks whose common share is nudged.
        nudges: Added to the group's share of the mixture.
        steps: Optimiser steps trained under the nudged mixture.
        max_concurrent: Forks at once; null: as many as the cluster holds.
        output: Where it is kept.
    """

    run: Path
    phases: tuple[int, ...] | None = None
    group: tuple[str, ...] = Field(min_length=1)
    nudges: tuple[FiniteFloat, ...] = Field(default=(-0.1, 0.1), min_length=1)
    steps: int = Field(ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    output: SweepOutput = SweepOutput()


def nudged(weights: dict[str, float], group: Sequence[str], nudge: float) -> dict[str, float]:
    """The weights with the group's share moved by `nudge`, proportions inside and outside the group kept.

    Raises:
        ConfigError: The share would not stay between 0 and 1.
    """
    share = sum(weights[task] for task in group)
    moved = share + nudge
    if not 0 < moved < 1:
        raise ConfigError(
            f"nudges: {nudge:+g} on {', '.join(group)}, whose share is {share:.3f}, leaves {moved:.3f}; a share must "
            "stay between 0 and 1"
        )
    inside, outside = moved / share, (1 - moved) / (1 - share)
    return {task: weight * (inside if task in group else outside) for task, weight in weights.items()}


def measure_sensitivity(config: SensitivityConfig, launch: LaunchConfig, *, say: Callable[[str], None]) -> Path:
    """Fork, train and write the page; returns its path.

    Raises:
        RunDirectoryError: No such run, or no checkpoint at a phase.
        ConfigError: A task is not one of the run, or a nudge or the steps do not fit.
        RunFailedError: A fork could not be trained.
    """
    parent = _parent(config)
    base = load_config(RunConfig, files=[parent.config])
    trained = _planned(config, parent, base)
    directory = SweepDirectory.create(config, config.output, base=base, launch=launch, kind=_KIND)
    directory.plan(spec for spec, _ in trained)
    return _measure(config, parent, directory, trained, say)


def resume_sensitivity(root: Path, *, say: Callable[[str], None]) -> Path:
    """Go on with a measurement that was cut off; returns the page's path. Raises as `measure_sensitivity`."""
    directory = SweepDirectory.reopen(root)
    config = load_config(SensitivityConfig, files=[directory.root / f"{_KIND}.yaml"])
    parent = _parent(config)
    return _measure(config, parent, directory, _planned(config, parent, directory.base()), say)


def is_sensitivity(root: Path) -> bool:
    """The directory is that of such a measurement, not of a sweep."""
    return (root / f"{_KIND}.yaml").is_file()


def _parent(config: SensitivityConfig) -> RunDirectory:
    parent = RunDirectory(config.run.absolute())
    if not parent.config.is_file() or not parent.ledger.is_file():
        raise RunDirectoryError(f"run: {parent.root} is not the directory of a run")
    return parent


def _planned(config: SensitivityConfig, parent: RunDirectory, base: RunConfig) -> list[tuple[TrialSpec, Cell]]:
    setup = latest_setup(list(read_ledger(parent.ledger)))
    cells = _cells(config, parent, base, setup)
    return [(_spec(config, base, parent, setup, number, cell), cell) for number, cell in enumerate(cells)]


def _measure(
    config: SensitivityConfig,
    parent: RunDirectory,
    directory: SweepDirectory,
    trained: Sequence[tuple[TrialSpec, Cell]],
    say: Callable[[str], None],
) -> Path:
    say(f"{len(trained)} forks of {parent.root} at steps {sorted({cell.phase for _, cell in trained})}")
    names = [spec.name for spec, _ in trained]
    launch = directory.launch()
    with ray_cluster(launch, f"taskheat-{directory.root.name}"):
        at_once = config.max_concurrent or concurrency(launch, ray.cluster_resources())
        run_named(directory, names, objective=("macro",), stage="forks", at_once=at_once, say=say)
    failed = [name for name in names if not directory.is_done(name)]
    if failed:
        raise RunFailedError(
            f"{', '.join(failed)} failed; the cause is in {directory.run(failed[0]).manifest}. Once it is mended: "
            f"taskheat sweep --resume {directory.root}"
        )
    return write_sensitivity(_report(config, parent, directory, trained), directory.root)


def _cells(config: SensitivityConfig, parent: RunDirectory, base: RunConfig, setup: EngineSetup) -> list[Cell]:
    """Every phase with every nudge, the one of zero first; scores still to be measured."""
    names = [task.name for task in setup.tasks]
    unknown = sorted(set(config.group) - set(names))
    if unknown or len(set(config.group)) == len(names):
        raise ConfigError(
            f"group: {unknown or 'all tasks'} cannot be nudged; give some of the run's tasks: {', '.join(names)}"
        )
    fixed = [task.name for task in setup.tasks if task.base_weight is not None]
    if fixed:
        raise ConfigError(
            f"the cards of {', '.join(fixed)} give a base_weight, which no prior can change, so the mixture cannot be "
            "set; train the run with mixture.prior.type: explicit instead"
        )
    store = CheckpointStore(parent.checkpoint_place(base), keep=1)
    phases = store.steps() if config.phases is None else sorted(config.phases)
    missing = sorted(set(phases) - set(store.steps()))
    if missing or not phases:
        raise RunDirectoryError(
            f"phases: {parent.root} has no checkpoint at {missing or 'any step'}; there are {store.steps()}. Train the "
            "run with train.checkpoint_at=[...] to keep those that are wanted"
        )
    found = []
    for phase in phases:
        weights = dict(zip(names, store.read(phase).manifest.plan.weights, strict=True))
        for nudge in dict.fromkeys((0.0, *config.nudges)):
            after = nudged(weights, config.group, nudge)
            found.append(Cell(phase, nudge, sum(after[task] for task in config.group), after, {}, {}))
    return found


def _spec(
    config: SensitivityConfig, base: RunConfig, parent: RunDirectory, setup: EngineSetup, number: int, cell: Cell
) -> TrialSpec:
    interval, total = base.mixture.interval_of(base.train.steps), base.train.steps
    end = cell.phase + interval + config.steps
    if config.steps % interval or end > total:
        raise ConfigError(
            f"steps {config.steps}: give a multiple of the interval of {interval} steps; a fork at {cell.phase} is "
            f"nudged from {cell.phase + interval} on and must end by step {total}"
        )
    values = {task.name: task.business_value for task in setup.tasks}
    prior = {"type": "explicit", "weights": {task: weight / values[task] for task, weight in cell.weights.items()}}
    settings = [
        f"mixture.prior={json.dumps(prior)}",
        'mixture.policy={"type": "static"}',
        f"mixture.guards={json.dumps(_FREE)}",
        f"mixture.interval_steps={interval}",
        "train.checkpoint_at=[]",
        f"train.stop_after={json.dumps(end if end < total else None)}",
        *(f"stages.{stage}.policy=" for stage in range(len(base.stages))),
        *(f"stages.{stage}.guards={json.dumps(StageGuards().model_dump())}" for stage in range(len(base.stages))),
    ]
    return TrialSpec(name=f"fork-{number:03d}", settings=tuple(settings), origin=(str(parent.root), cell.phase))


def _report(
    config: SensitivityConfig,
    parent: RunDirectory,
    directory: SweepDirectory,
    trained: Sequence[tuple[TrialSpec, Cell]],
) -> SensitivityReport:
    scores = {
        (cell.phase, cell.nudge): {
            task: score.value
            for task, score in trial_result(
                directory.run(spec.name), name=spec.name, values={}, names=("macro",)
            ).scores.items()
        }
        for spec, cell in trained
    }
    cells = []
    for _, cell in trained:
        own, still = scores[cell.phase, cell.nudge], scores[cell.phase, 0.0]
        change = {task: own[task] - still[task] for task in own}
        cells.append(Cell(cell.phase, cell.nudge, cell.share, cell.weights, own, change))
    return SensitivityReport(
        schema_version=SCHEMA_VERSION,
        title=directory.root.name,
        run=str(parent.root),
        group=config.group,
        steps=config.steps,
        tasks=tuple(cells[0].weights),
        cells=tuple(cells),
    )
