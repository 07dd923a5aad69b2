"""What a simulation found, as frozen data: everything its table, page and JSON twin show, and no more.

`simulation.json` is `dataclasses.asdict` of `SimulationReport`, so these classes are its schema.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.simulator import LearnerConfig, SimulatedRun, TaskFit
from scheduler.simulator.summary import Interval, interval, learnable, macro_scores, outcome

MAX_SHOWN_TASKS = 12
_MAX_POINTS = 101


@dataclass(frozen=True, slots=True)
class Curves:
    """Means over seeds at some boundaries [B], `low` and `high` the extremes over seeds; per shown task likewise."""

    steps: tuple[int, ...]
    macro: tuple[float, ...]
    macro_low: tuple[float, ...]
    macro_high: tuple[float, ...]
    worst: tuple[float, ...]
    scores: Mapping[str, tuple[float, ...]]
    weights: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class ArmReport:
    """One arm over all seeds.

    Attributes:
        name: As written.
        overrides: What makes it differ.
        final_macro: Mean score over tasks at the end; noise tasks do not count, here and below.
        final_macro_gain: The same minus the first arm's, seed by seed; None for the first arm.
        final_worst: Lowest score of a task at the end.
        mean_macro: Macro score averaged over the run's steps.
        steps_to_target: Steps until the macro score was at the target, a seed that never was counted as the whole run.
        seeds_at_target: Seeds that got there.
        noise_share: Share of all samples that went to noise tasks.
        saturated_share: Likewise, to tasks at their best from the start.
        num_decisions: Decisions in one run.
        num_held: Decisions, on average over seeds, in which the policy kept the old weights.
        guards: In how many decisions each guard held a task back, on average over seeds.
        stage_2_steps: First step of stage 2 by seed, for those that reached it.
        curves: Over time.
    """

    name: str
    overrides: tuple[str, ...]
    final_macro: Interval
    final_macro_gain: Interval | None
    final_worst: Interval
    mean_macro: Interval
    steps_to_target: Interval
    seeds_at_target: int
    noise_share: Interval
    saturated_share: Interval
    num_decisions: int
    num_held: float
    guards: Mapping[str, float]
    stage_2_steps: tuple[int, ...]
    curves: Curves


@dataclass(frozen=True, slots=True)
class ParameterReport:
    """A fitted parameter; `error` is its standard error, None at a bound or where it is not determined."""

    name: str
    value: float
    error: float | None


@dataclass(frozen=True, slots=True)
class FitReport:
    """How a task of the fitted run was understood. Residuals are root mean squares: of the loss relative."""

    task: str
    kind: str
    parameters: tuple[ParameterReport, ...]
    loss_residual: float
    score_residual: float
    num_points: int
    greatest_exposure: float


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """A whole simulation; the first arm is what the others are compared with. `kinds`: type of curve by task."""

    title: str
    num_steps: int
    interval_steps: int
    global_batch_size: int
    seeds: tuple[int, ...]
    target_macro_score: float
    kinds: Mapping[str, str]
    shown_tasks: tuple[str, ...]
    arms: tuple[ArmReport, ...]
    fit: tuple[FitReport, ...]
    notes: tuple[str, ...]


def shown_tasks(learner: LearnerConfig, runs: Sequence[SimulatedRun]) -> tuple[str, ...]:
    """The tasks whose curves are drawn: all, or the twelve whose weight moved most in any run."""
    names = tuple(learner.tasks)
    if len(names) <= MAX_SHOWN_TASKS:
        return names
    moved = np.max([np.ptp(run.weights, axis=0) for run in runs], axis=0)
    most = set(np.argsort(-moved, kind="stable")[:MAX_SHOWN_TASKS].tolist())
    return tuple(name for index, name in enumerate(names) if index in most)


def arm_report(
    name: str,
    overrides: tuple[str, ...],
    runs: Sequence[SimulatedRun],
    learner: LearnerConfig,
    *,
    target_macro_score: float,
    shown: Sequence[str],
    reference: ArmReport | None,
) -> ArmReport:
    """One arm from its runs, one a seed; `reference` is the first arm's report, over the same seeds."""
    found = [outcome(run, learner, target_macro_score=target_macro_score) for run in runs]
    final = interval([one.final_macro for one in found])
    gain = None
    if reference is not None:
        gain = interval(np.subtract(final.values, reference.final_macro.values).tolist())
    total = int(runs[0].steps[-1])
    guards = Counter(guard for run in runs for decision in run.held_by for guard in decision)
    return ArmReport(
        name=name,
        overrides=overrides,
        final_macro=final,
        final_macro_gain=gain,
        final_worst=interval([one.final_worst for one in found]),
        mean_macro=interval([one.mean_macro for one in found]),
        steps_to_target=interval([total if one.steps_to_target is None else one.steps_to_target for one in found]),
        seeds_at_target=sum(one.steps_to_target is not None for one in found),
        noise_share=interval([one.noise_share for one in found]),
        saturated_share=interval([one.saturated_share for one in found]),
        num_decisions=len(runs[0].holds),
        num_held=float(np.mean([sum(hold is not None for hold in run.holds) for run in runs])),
        guards={guard: count / len(runs) for guard, count in guards.most_common()},
        stage_2_steps=tuple(int(run.steps[run.stages == 2][0]) for run in runs if (run.stages == 2).any()),
        curves=_curves(runs, learner, shown),
    )


def fit_report(task: str, fit: TaskFit) -> FitReport:
    """One fitted task."""
    return FitReport(
        task=task,
        kind=fit.kind,
        parameters=tuple(ParameterReport(name, *estimate) for name, estimate in fit.estimates.items()),
        loss_residual=fit.loss_residual,
        score_residual=fit.score_residual,
        num_points=fit.num_points,
        greatest_exposure=fit.greatest_exposure,
    )


def _curves(runs: Sequence[SimulatedRun], learner: LearnerConfig, shown: Sequence[str]) -> Curves:
    num_boundaries = len(runs[0].steps)
    at = np.unique(np.linspace(0, num_boundaries - 1, min(num_boundaries, _MAX_POINTS)).round().astype(int))
    macro = np.array([macro_scores(run, learner)[at] for run in runs])
    worst = np.mean([run.scores[:, learnable(learner)].min(axis=1)[at] for run in runs], axis=0)
    scores = np.mean([run.scores[at] for run in runs], axis=0)
    weights = np.mean([run.weights[at] for run in runs], axis=0)
    columns = {name: list(learner.tasks).index(name) for name in shown}
    return Curves(
        steps=tuple(runs[0].steps[at].tolist()),
        macro=_plain(macro.mean(axis=0)),
        macro_low=_plain(macro.min(axis=0)),
        macro_high=_plain(macro.max(axis=0)),
        worst=_plain(worst),
        scores={name: _plain(scores[:, column]) for name, column in columns.items()},
        weights={name: _plain(weights[:, column]) for name, column in columns.items()},
    )


def _plain(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())
