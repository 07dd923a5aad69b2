"""`taskheat simulate`: arms of a mixture against learner models, seed by seed, in a table, a page and a JSON twin.

    SIM.yaml ─► SimulationConfig ─┬─► one EngineSetup an arm ─► scheduler.simulator.simulate ─► outcomes ─► table, page
    RUN ─► ledger ─► fitted tasks ┘

All arms of a seed face the same learner and the same luck, so differences between arms are paired. Nothing is trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from cluster.config import RunConfig, StageConfig, schedule_fault
from cluster.settings import load_config
from evalsvc.report.history import RunHistory
from evalsvc.report.simulation import ArmReport, FitReport, SimulationReport, arm_report, fit_report, shown_tasks
from evalsvc.report.simulation_page import cells, header
from scheduler.config_model import ConfigModel, faults
from scheduler.errors import ConfigError
from scheduler.ledger import read_ledger
from scheduler.policies import policy_notes
from scheduler.policy_config import GradientPolicy
from scheduler.setup import EngineSetup, MixtureConfig
from scheduler.simulator import FitPoints, LearnerConfig, MeasurementConfig, SimulatedRun, fit_tasks, simulate
from scheduler.simulator.fit import Fits
from scheduler.simulator.summary import macro_scores
from scheduler.task import TaskCard, TaskSpec

_ARM_SETTINGS = ("mixture", "stages", "tasks")
_IGNORED_OF_A_STAGE = (
    "learning_rate",
    "warmup_steps",
    "max_grad_norm",
    "micro_batch_size",
    "micro_batch_tokens",
    "max_length",
    "arrangement",
    "difficulty",
)
_EXTRAPOLATES = 1.5


class SimulatedTraining(ConfigModel):
    """The size of the run; null: that of the fitted run, or 1000 steps of 32 samples."""

    steps: int | None = Field(default=None, ge=1)
    global_batch_size: int | None = Field(default=None, ge=1)


class SimulationConfig(ConfigModel):
    """What is simulated. `tasks`, `stages` and `mixture` are those of a run's configuration.

    Attributes:
        learner: What the tasks are like; with a fitted run, only the tasks to be described otherwise.
        tasks: Ontology cards by task.
        train: Steps and batch size.
        stages: As in a run; learning rates, micro-batches, contexts and difficulty are ignored.
        mixture: Policy, prior, guards, interval and mode; what every arm starts from. Weights are of samples.
        measurement: How an evaluation sees the learner.
        arms: Named lists of overrides `a.b=value` of `mixture`, `stages` and `tasks`; the first arm is what the others
            are compared with.
        target_macro_score: For the steps to a target; null: what the first arm reached in the end, over seeds.
        num_seeds: Runs per arm.
        seed: The first seed.
    """

    learner: LearnerConfig = LearnerConfig()
    tasks: dict[str, TaskCard] = Field(default_factory=dict)
    train: SimulatedTraining = SimulatedTraining()
    stages: tuple[StageConfig, ...] = Field(
        default=RunConfig.model_fields["stages"].get_default(), min_length=1, max_length=2
    )
    mixture: MixtureConfig = MixtureConfig()
    measurement: MeasurementConfig = MeasurementConfig()
    arms: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    target_macro_score: float | None = Field(default=None, gt=0, le=1)
    num_seeds: int = Field(default=8, ge=1, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**31)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A finished run and the curves fitted to it."""

    path: Path
    setup: EngineSetup
    fits: Fits


def run_simulation(files: Sequence[Path], overrides: Sequence[str], *, fitted_run: Path | None) -> SimulationReport:
    """Simulate every arm on every seed.

    Raises:
        ConfigError: Settings are wrong, or a task can neither be fitted nor is described.
        LedgerError: `fitted_run` has no readable ledger.
    """
    config = load_config(SimulationConfig, files=files, overrides=overrides)
    fitted = None if fitted_run is None else fit_run(fitted_run)
    learner = _learner(config, fitted)
    changes = config.arms or {"as configured": ()}
    arms = {name: _arm(name, own, files, overrides) for name, own in changes.items()}
    setups = {name: _setup(name, arm, learner, fitted) for name, arm in arms.items()}
    seeds = range(config.seed, config.seed + config.num_seeds)
    runs = {
        name: [simulate(setup, learner, seed=seed, measurement=config.measurement) for seed in seeds]
        for name, setup in setups.items()
    }
    target = config.target_macro_score or _reached(next(iter(runs.values())), learner)
    shown = shown_tasks(learner, [run for arm in runs.values() for run in arm])
    reports: list[ArmReport] = []
    for name, arm_runs in runs.items():
        first = reports[0] if reports else None
        reports.append(
            arm_report(name, changes[name], arm_runs, learner, target_macro_score=target, shown=shown, reference=first)
        )
    setup = next(iter(setups.values()))
    return SimulationReport(
        title=simulation_name(files),
        num_steps=setup.total_steps,
        interval_steps=setup.interval_steps,
        global_batch_size=setup.global_batch_size,
        seeds=tuple(seeds),
        target_macro_score=target,
        kinds={name: task.curve.type for name, task in learner.tasks.items()},
        shown_tasks=shown,
        arms=tuple(reports),
        fit=_fit_report(fitted, config),
        notes=(*_ignored(arms), *_too_short(setups), *_extrapolations(fitted, config, runs)),
    )


def _reached(runs: Sequence[SimulatedRun], learner: LearnerConfig) -> float:
    """Mean macro score at the end."""
    return float(np.mean([macro_scores(run, learner)[-1] for run in runs]))


def simulation_name(files: Sequence[Path]) -> str:
    """Of the page, and of its folder where none is given."""
    return "+".join(file.stem for file in files)


def simulation_text(report: SimulationReport) -> str:
    """The table of arms, the fitted parameters and the notes, for a terminal."""
    lines = [
        f"{len(report.kinds)} tasks, {report.num_steps} steps of {report.global_batch_size} samples, measured every "
        f"{report.interval_steps} steps, {len(report.seeds)} seed(s); ± is half of a 95 % interval over seeds",
        "",
        *_aligned([header(report), *(cells(report, arm) for arm in report.arms)]),
    ]
    for fit in report.fit:
        parameters = ", ".join(
            f"{one.name} {one.value:.3g} {'(bound)' if one.error is None else f'± {one.error:.2g}'}"
            for one in fit.parameters
        )
        lines.append(
            f"{'' if fit is not report.fit[0] else chr(10)}fitted {fit.task}: {fit.kind}: {parameters}; residual "
            f"{fit.loss_residual:.2%} of the loss, {fit.score_residual:.3f} of the score, {fit.num_points} points"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def fit_run(path: Path) -> Fitted:
    """Fit every task of the run at `path` (its directory or ledger) to its surviving signals.

    Raises:
        LedgerError: No ledger, or a damaged one.
    """
    history = RunHistory.of(read_ledger(path))
    setup = history.run_setup
    served = {boundary.report.step: boundary.report.num_samples for boundary in history.boundaries}
    points: list[FitPoints] = []
    for index, (name, rows) in enumerate(zip(history.task_names, setup.num_rows, strict=True)):
        signals = [signal for signal in history.signals[name] if signal.step in served]
        points.append(
            FitPoints(
                task=name,
                num_rows=rows,
                served=np.array([served[signal.step][index] for signal in signals], dtype=np.float64),
                loss=np.array([signal.loss for signal in signals]),
                score=np.array([signal.score for signal in signals]),
                format_compliance=np.array([signal.format_compliance for signal in signals]),
            )
        )
    return Fitted(path, setup, fit_tasks(points))


def _learner(config: SimulationConfig, fitted: Fitted | None) -> LearnerConfig:
    """The described tasks over the fitted ones; a fitted run's tasks come first, in its order."""
    described = config.learner.tasks
    if fitted is None:
        if not described:
            raise ConfigError("learner.tasks is empty: describe at least one task there, or fit a run with --fit RUN")
        return config.learner
    missing = {name: reason for name, reason in fitted.fits.refused.items() if name not in described}
    if missing:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ConfigError(
            f"{fitted.path}: these tasks cannot be fitted ({reasons}); describe each under learner.tasks.NAME, or fit "
            "a run that measured them more often"
        )
    names = [task.name for task in fitted.setup.tasks]
    tasks = {name: described.get(name) or fitted.fits.fitted[name].learner for name in names}
    return config.learner.model_copy(update={"tasks": tasks | described})


def _arm(name: str, own: Sequence[str], files: Sequence[Path], overrides: Sequence[str]) -> SimulationConfig:
    for override in own:
        section = override.partition("=")[0].strip().split(".")[0]
        if section not in _ARM_SETTINGS:
            raise ConfigError(
                f"arms.{name}: {override!r} changes {section!r}; an arm may change "
                f"{', '.join(_ARM_SETTINGS)}; all else is the same for every arm"
            )
    try:
        return load_config(SimulationConfig, files=files, overrides=[*overrides, *own])
    except ConfigError as error:
        raise ConfigError(f"arms.{name}: {error}") from error


def _setup(name: str, config: SimulationConfig, learner: LearnerConfig, fitted: Fitted | None) -> EngineSetup:
    """The engine's setup of one arm, as `taskheat run` would make it."""
    unknown = sorted(config.tasks.keys() - learner.tasks.keys())
    if unknown:
        raise ConfigError(f"tasks: {unknown} have cards, but learner.tasks has only {list(learner.tasks)}")
    cards: dict[str, TaskSpec] = {} if fitted is None else {task.name: task for task in fitted.setup.tasks}
    cards |= {task: TaskSpec(name=task, **card.model_dump()) for task, card in config.tasks.items()}
    steps = config.train.steps or (1000 if fitted is None else fitted.setup.total_steps)
    batch_size = config.train.global_batch_size or (32 if fitted is None else fitted.setup.global_batch_size)
    fault = schedule_fault(config.stages, config.mixture, steps=steps)
    if fault is not None:
        raise ConfigError(f"arms.{name}: {fault}")
    first, last = config.stages[0], config.stages[-1]
    policies = (first.policy or config.mixture.policy, last.policy or config.mixture.policy)
    if any(isinstance(policy, GradientPolicy) for policy in policies):
        raise ConfigError(
            f"arms.{name}: policy.type gradient cannot be simulated: the learner has losses and scores, no gradients; "
            "try it in a short run, or simulate another policy"
        )
    try:
        return EngineSetup(
            tasks=tuple(cards.get(task) or TaskSpec(name=task) for task in learner.tasks),
            num_rows=tuple(task.rows for task in learner.tasks.values()),
            seed=config.seed,
            total_steps=steps,
            global_batch_size=batch_size,
            mixture=config.mixture.model_copy(update={"weight_unit": "samples"}),
            boundary=first.until,
            stage_policies=policies,
            stage_guards=(first.guards, last.guards),
            num_probes=(config.measurement.num_probes,) * len(learner.tasks),
        )
    except ValidationError as error:
        raise ConfigError(f"arms.{name}: {faults(error)}") from error


def _ignored(arms: Mapping[str, SimulationConfig]) -> Iterator[str]:
    """Settings that were written and that no simulation can follow."""
    stages = [stage for arm in arms.values() for stage in arm.stages]
    ignored = [name for name in _IGNORED_OF_A_STAGE if any(name in stage.model_fields_set for stage in stages)]
    if ignored:
        yield (
            f"Ignored in stages: {', '.join(ignored)}. The learner has no learning rate, no micro-batches, no context "
            "and no levels."
        )
    if any(arm.mixture.weight_unit == "tokens" for arm in arms.values()):
        yield "mixture.weight_unit tokens is taken as samples: every simulated sample is of one length."
    if any(arm.mixture.mode == "async" for arm in arms.values()):
        yield "mixture.mode async: every plan is taken to be ready at the next boundary."
    if any(arm.mixture.curriculum is not None for arm in arms.values()):
        yield "mixture.curriculum is ignored: the learner has no difficulty levels."


def _too_short(setups: Mapping[str, EngineSetup]) -> Iterator[str]:
    for name, setup in setups.items():
        yield from (f"arms.{name}: {note}" for note in policy_notes(setup))


def _extrapolations(
    fitted: Fitted | None, config: SimulationConfig, runs: Mapping[str, Sequence[SimulatedRun]]
) -> Iterator[str]:
    """Arms that served a fitted task far more than the fitted run did."""
    if fitted is None:
        return
    for index, task in enumerate(fitted.setup.tasks):
        if task.name in config.learner.tasks:
            continue
        seen = fitted.fits.fitted[task.name].greatest_exposure
        beyond = {name: max(int(run.num_samples[-1, index]) for run in arm) for name, arm in runs.items()}
        far = {name: most for name, most in beyond.items() if most > _EXTRAPOLATES * seen}
        if far:
            arms = ", ".join(f"{name} ({most} samples)" for name, most in far.items())
            yield f"{task.name} was fitted up to {seen:.0f} samples; extrapolated in {arms}."


def _fit_report(fitted: Fitted | None, config: SimulationConfig) -> tuple[FitReport, ...]:
    if fitted is None:
        return ()
    return tuple(fit_report(name, fit) for name, fit in fitted.fits.fitted.items() if name not in config.learner.tasks)
