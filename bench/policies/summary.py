"""What the runs of a suite say together: every arm beside uniform, and the heat arm beside each arm it must beat.

    simple       the best of uniform, proportional, temperature and UniMax: one arm for all seeds, by its mean score on
                 the selection rows
    dirichlet    the best of the Dirichlet mixtures, in each seed by the selection rows of that seed
    hindsight    the best of all static mixtures, likewise; what regret is measured against

`macro` is chosen by macro and `worst` by worst score. Tests are adjusted by Holm over all comparisons of one table
column.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.policies.arms import ARMS, CONTROLS, DIRICHLET, HEAT, SIMPLE_STATICS, STATICS
from bench.policies.inference import holm, mean_interval, restricted_mean, sign_flip_p
from bench.policies.outcome import Outcome

Metric = Literal["macro", "worst"]
METRICS: tuple[Metric, ...] = ("macro", "worst")
UNIFORM = "uniform"
BEST_DIRICHLET = "best of 8 Dirichlet"
HINDSIGHT = "best static in hindsight"
Scores = Mapping[int, float]
"""By seed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference, its 95 % interval (None from one seed), and its sign-flip p after Holm."""

    mean: float
    interval: tuple[float, float] | None
    p: float
    num_seeds: int

    @property
    def above_zero(self) -> bool:
        """Whether the interval excludes zero from above."""
        return self.interval is not None and self.interval[0] > 0.0

    @property
    def below_zero(self) -> bool:
        """Whether the interval excludes zero from below."""
        return self.interval is not None and self.interval[1] < 0.0


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One arm over its seeds; None where it does not apply or nothing was run.

    Attributes:
        name: Of the arm.
        num_seeds: Runs.
        macro: Mean over seeds of the mean test score over tasks.
        worst: Mean over seeds of the least test score of a task.
        to_uniform: Difference to uniform, by metric.
        regret: What the best static mixture in hindsight has more, by metric.
        to_target: Restricted mean of the compute at which uniform's final selection score was reached, as a share of
            uniform's compute.
        num_reached: Runs that reached it.
        move: Mean total variation of an update.
        probe_ratio: Compute of the probes against that of training.
        compute_ratio: All compute against uniform's.
        random_share: Mean weight of a task with random labels.
        cpu_s: Mean CPU-seconds of a run.
        run_of: How many of its runs are those of another arm, by that arm: the engine decided the same.
    """

    name: str
    num_seeds: int
    macro: float
    worst: float
    to_uniform: Mapping[Metric, Difference]
    regret: Mapping[Metric, float]
    to_target: float | None
    num_reached: int
    move: float | None
    probe_ratio: float | None
    compute_ratio: float | None
    random_share: float | None
    cpu_s: float | None
    run_of: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Recognition:
    """What became of random labels under the heat policy: share of runs that damped them, when, and the feed after.

    `share_after` and `floor` are mean weights; `most_after` the greatest feed of a run as a multiple of its floor.
    """

    num_runs: int
    num_recognised: int
    at: float | None
    share_after: float | None
    floor: float
    most_after: float | None


@dataclass(frozen=True, slots=True)
class SuiteSummary:
    """A suite: arms in the order they are shown, heat beside its references by metric, and the noise task."""

    suite: str
    seeds: tuple[int, ...]
    arms: tuple[ArmSummary, ...]
    best_simple: Mapping[Metric, str]
    heat_beside: Mapping[Metric, Mapping[str, Difference]]
    recognition: Recognition | None


def summarise(suite: str, outcomes: Sequence[Outcome]) -> SuiteSummary:
    """Of all runs of one suite. Needs the uniform arm."""
    by_arm: dict[str, dict[int, Outcome]] = {}
    for one in outcomes:
        by_arm.setdefault(one.arm, {})[one.seed] = one
    scores: dict[Metric, dict[str, Scores]] = {metric: _scores(by_arm, metric) for metric in METRICS}
    shown = [name for name in _names_shown() if name in scores["macro"]]
    simple: dict[Metric, str] = {metric: _best_simple(by_arm, metric) for metric in METRICS}
    return SuiteSummary(
        suite=suite,
        seeds=tuple(sorted({one.seed for one in outcomes})),
        arms=_arm_summaries(shown, by_arm, scores),
        best_simple=simple,
        heat_beside={
            metric: differences(
                scores[metric].get(HEAT, {}),
                {
                    name: scores[metric][name]
                    for name in (simple[metric], *CONTROLS, BEST_DIRICHLET)
                    if name in scores[metric]
                },
            )
            for metric in METRICS
        },
        recognition=_recognition(list(by_arm.get(HEAT, {}).values())),
    )


def _names_shown() -> list[str]:
    statics = [arm.name for arm in STATICS]
    others = [name for name in ARMS if name not in {*statics, *(arm.name for arm in DIRICHLET)}]
    return [*statics, BEST_DIRICHLET, *others]


def _scores(by_arm: Mapping[str, Mapping[int, Outcome]], metric: Metric) -> dict[str, Scores]:
    """Test scores by arm and seed, the arms that choose in hindsight included."""
    scores: dict[str, Scores] = {
        name: {seed: _test(one, metric) for seed, one in runs.items()} for name, runs in by_arm.items()
    }
    drawn = [arm.name for arm in DIRICHLET]
    if set(drawn) <= by_arm.keys():
        scores[BEST_DIRICHLET] = _chosen(by_arm, drawn, metric)
    statics = [*SIMPLE_STATICS, *drawn]
    scores[HINDSIGHT] = _chosen(by_arm, [name for name in statics if name in by_arm], metric)
    return scores


def _chosen(by_arm: Mapping[str, Mapping[int, Outcome]], names: Sequence[str], metric: Metric) -> Scores:
    seeds = set.intersection(*(set(by_arm[name]) for name in names)) if names else set()
    best = {seed: max((by_arm[name][seed] for name in names), key=_selection_key(metric)) for seed in sorted(seeds)}
    return {seed: _test(one, metric) for seed, one in best.items()}


def _selection_key(metric: Metric) -> Callable[[Outcome], tuple[float, float]]:
    """The selection score, ties by the other one."""
    if metric == "macro":
        return lambda one: (one.selection_macro, one.selection_worst)
    return lambda one: (one.selection_worst, one.selection_macro)


def _test(one: Outcome, metric: Metric) -> float:
    return one.macro if metric == "macro" else one.worst


def _best_simple(by_arm: Mapping[str, Mapping[int, Outcome]], metric: Metric) -> str:
    """The simple static with the best mean on the selection rows."""
    key = _selection_key(metric)
    present = [name for name in SIMPLE_STATICS if name in by_arm]
    return max(present, key=lambda name: tuple(np.mean([key(one) for one in by_arm[name].values()], axis=0)))


def differences(own: Scores, references: Mapping[str, Scores]) -> dict[str, Difference]:
    """`own` minus each reference on the seeds they share, adjusted together; references without any are left out."""
    return _adjusted({name: (own, other) for name, other in references.items()})


def _adjusted(pairs: Mapping[str, tuple[Scores, Scores]]) -> dict[str, Difference]:
    paired = {
        name: [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]
        for name, (own, other) in pairs.items()
    }
    paired = {name: values for name, values in paired.items() if values}
    p_values = holm({name: sign_flip_p(values) for name, values in paired.items()})
    return {
        name: Difference(float(np.mean(values)), mean_interval(values), p_values[name], len(values))
        for name, values in paired.items()
    }


def _arm_summaries(
    shown: Sequence[str], by_arm: Mapping[str, Mapping[int, Outcome]], scores: Mapping[Metric, Mapping[str, Scores]]
) -> tuple[ArmSummary, ...]:
    beside: dict[Metric, dict[str, Difference]] = {
        metric: _adjusted({name: (own[name], own[UNIFORM]) for name in shown if name != UNIFORM})
        for metric, own in scores.items()
    }
    return tuple(
        _arm_summary(
            name,
            by_arm.get(name, {}),
            by_arm[UNIFORM],
            {metric: own[name] for metric, own in scores.items()},
            {metric: own[HINDSIGHT] for metric, own in scores.items()},
            {metric: found[name] for metric, found in beside.items() if name in found},
        )
        for name in shown
    )


def _arm_summary(
    name: str,
    runs: Mapping[int, Outcome],
    uniform: Mapping[int, Outcome],
    own: Mapping[Metric, Scores],
    hindsight: Mapping[Metric, Scores],
    to_uniform: Mapping[Metric, Difference],
) -> ArmSummary:
    paired = [(one, uniform[seed]) for seed, one in runs.items() if seed in uniform]
    times = [_time_to(one, beside) for one, beside in paired]
    random_shares = [one.random_share for one in runs.values() if one.random_share is not None]
    return ArmSummary(
        name=name,
        num_seeds=len(own["macro"]),
        macro=_mean(own["macro"].values()),
        worst=_mean(own["worst"].values()),
        to_uniform=to_uniform,
        regret={
            metric: _mean(best[seed] - own[metric][seed] for seed in own[metric] if seed in best)
            for metric, best in hindsight.items()
        },
        to_target=restricted_mean(times, horizon=1.0) if times else None,
        num_reached=sum(time is not None for time in times),
        move=_mean(float(np.mean(one.moves)) for one in runs.values()) if runs else None,
        probe_ratio=_mean(one.probe_units / one.train_units for one in runs.values()) if runs else None,
        compute_ratio=_mean((one.train_units + one.probe_units) / beside.train_units for one, beside in paired)
        if paired
        else None,
        random_share=_mean(random_shares) if random_shares else None,
        cpu_s=_mean(one.cpu_s for one in runs.values()) if runs else None,
        run_of=Counter(one.run_of for one in runs.values() if one.run_of is not None),
    )


def _time_to(one: Outcome, uniform: Outcome) -> float | None:
    """Share of uniform's compute at which its final selection score was reached."""
    units = one.units_to(uniform.curve[-1][1])
    return None if units is None else units / uniform.curve[-1][0]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _recognition(runs: Sequence[Outcome]) -> Recognition | None:
    with_random = [one for one in runs if one.random_share is not None and one.random_floor]
    if not with_random:
        return None
    fed = [(one.random_share_after, one.random_floor) for one in with_random]
    after = [(share, floor) for share, floor in fed if share is not None and floor]
    at = [one.recognised_at for one in with_random if one.recognised_at is not None]
    return Recognition(
        num_runs=len(with_random),
        num_recognised=len(at),
        at=_mean(at) if at else None,
        share_after=_mean(share for share, _ in after) if after else None,
        floor=_mean(one.random_floor or 0.0 for one in with_random),
        most_after=max((share / floor for share, floor in after), default=None),
    )
