"""Learnability: does more exposure still bring a task forward? And which tasks have nothing left to learn?

Per task a line is fitted through log held-out loss, and one through the score, against the samples n of the task itself
(not against time: a task that is served little has no chance to show progress). Least squares with weights w
that fade with the task's own exposure; Σ over the points of the segment, n̄ and ȳ their weighted means:

    slope   b = S_ny / S_nn,  S_nn = Σ w (n - n̄)²,  S_ny = Σ w (n - n̄)(y - ȳ)
    error   se(b) = σ / √S_nn;  σ² of log loss from the residuals, pulled to 0.03² by three points' worth of prior;
                    of the score binomial in its probes
    reach   what `horizon` further samples promise, the greater of
                loss   1 - exp(-horizon · (se(b) - b))            share of its loss, at the optimistic end
                score  horizon · (b - se(b)) / (target - level)   share of its gap, as far as the rise is no luck
            in [0, 1]. The loss is the sensitive measure and has the benefit of the doubt. Reach is 1 while a line has
            less than two points, or a segment less than `patience` samples: no evidence, no verdict

    wanted          clip(reach / full_reach, min, 1), for gaps from `min_gap` on; at half of it or less never damped
    learnability    moves towards wanted, by a factor of 2 an evaluation at most; min for a task recognised as noise

It scales the exponent with which heat raises a task, so that a task in doubt goes back to its prior share, where a
static mixture would have it. Below that share falls only what is recognised as noise.

Patience is a share of the task's base exposure, the samples it would get in the whole run under the prior; so is the
horizon, of the mean of all tasks where that is more; the weights halve every half of a horizon. The question is always
whether half a run more would be worth it, at its beginning as at its end.

A segment ends, and a new one begins with full patience, when an observation lies more than 3.5 standard errors off
its line on the side that says exposure matters: a loss that falls, a score that rises (a plateau left behind), a score
that falls (a task forgotten while it was starved). So a task that was given up and lives on its floor comes back by a
single clear step. What cannot be told apart: noise, a task beyond the model's means, a plateau that shows in neither
score nor loss; the floor keeps each of them under observation.

    noise   wanted and learnability are a half or less, and the segment is as long as `give_up`, a share of the base
            exposure; ends when wanted is 1
    solved  level - one standard error at or above the target; ends when level + one standard error is below it

`give_up` is a half: of a thing of unknown duration that has lasted n, as much again is the median of what is to come
(Gott, Nature 363 (1993), 315), so at half of its fair exposure a plateau is as likely to end too late as in time.

The line is ordinary weighted least squares (Draper & Smith, Applied Regression Analysis, ch. 9); the projection over a
horizon and its optimistic end are this project's own, in the spirit of upper confidence bounds (Auer et al. 2002).
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scheduler.arrays import Choose, clip
from scheduler.evaluation import Evaluation
from scheduler.setup import HeatConfig
from scheduler.trend import Trend, observation_variance

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_PRIOR_SIGMA = 0.03
_PRIOR_POINTS = 3.0
_BREAK = 3.5
_FADED = 1e-9
_NEVER = -1.0
_DOUBTED = 0.5


class Recognised(NamedTuple):
    """Since which step tasks are recognised as noise (or out of reach), and as solved [K]; None where one is not."""

    noise_since: list[int | None]
    solved_since: list[int | None]


@dataclass(slots=True)
class Lines:
    """Weighted sums of the two lines, arrays [K]: n samples served, l log loss, y score.

    `weight` is the sum of the weights, the `mean_` are weighted, the rest sums of products of deviations from them.
    """

    weight: Array
    mean_n: Array
    mean_l: Array
    mean_y: Array
    nn: Array
    nl: Array
    ll: Array
    ny: Array
    start_n: Array
    last_n: Array

    @classmethod
    def new(cls, num_tasks: int) -> "Lines":
        """No point yet."""
        return cls(*(np.zeros(num_tasks) for _ in fields(cls)))

    def forget(self, half: Array, n: Array, where: Mask) -> None:
        """Let the weights fade with the exposure since the last point; what is next to nothing is nothing."""
        keep = np.where(where, np.exp2(np.minimum(self.last_n - n, 0.0) / half), 1.0)
        keep = np.where(self.weight * keep < _FADED, 0.0, keep)
        self.weight, self.nn, self.nl, self.ll, self.ny = (
            keep * one for one in (self.weight, self.nn, self.nl, self.ll, self.ny)
        )

    def restart(self, n: Array, where: Mask) -> None:
        """Drop all points: a new segment begins at `n`."""
        if not where.any():
            return
        self.weight, self.nn, self.nl, self.ll, self.ny = (
            np.where(where, 0.0, one) for one in (self.weight, self.nn, self.nl, self.ll, self.ny)
        )
        self.start_n = np.where(where, n, self.start_n)

    def add(self, n: Array, log_loss: Array, score: Array, choose: Choose) -> None:
        """Take in a point of weight 1 for the tasks `choose` chooses (West's update, Comm. ACM 22 (1979), 532)."""
        weight = self.weight + 1.0
        part = self.weight / weight
        off_n, off_l, off_y = n - self.mean_n, log_loss - self.mean_l, score - self.mean_y
        self.nn = choose(self.nn + part * off_n**2, self.nn)
        self.nl = choose(self.nl + part * off_n * off_l, self.nl)
        self.ll = choose(self.ll + part * off_l**2, self.ll)
        self.ny = choose(self.ny + part * off_n * off_y, self.ny)
        self.mean_n = choose(self.mean_n + off_n / weight, self.mean_n)
        self.mean_l = choose(self.mean_l + off_l / weight, self.mean_l)
        self.mean_y = choose(self.mean_y + off_y / weight, self.mean_y)
        self.weight = choose(weight, self.weight)
        self.last_n = choose(n, self.last_n)

    def slopes(self) -> tuple[Array, Array]:
        """Of log loss and of the score, per sample [K]; 0 where a line has no two points apart."""
        safe = np.where(self.nn > 0.0, self.nn, np.inf)
        return self.nl / safe, self.ny / safe

    def loss_variance(self, slope: Array) -> Array:
        """Variance [K] of a single log loss about its line, whose slope is given."""
        residual = np.maximum(self.ll - slope * self.nl, 0.0)
        points = np.maximum(self.weight - 2.0, 0.0)
        return (_PRIOR_POINTS * _PRIOR_SIGMA**2 + residual) / (_PRIOR_POINTS + points)


@dataclass(slots=True)
class Learnability:
    """Per-task memory, arrays [K]. Steps are those of evaluations; -1 where it is not so.

    Attributes:
        value: Learnability, in [min, 1].
        progress_step: Last evaluation at which more exposure still promised full progress.
        noise_step: `progress_step` of a task recognised as noise or out of reach.
        solved_step: Evaluation since which the task is solved.
    """

    lines: Lines
    value: Array
    progress_step: Array
    noise_step: Array
    solved_step: Array

    @classmethod
    def new(cls, num_tasks: int) -> "Learnability":
        """Full learnability, nothing recognised."""
        never = np.full(num_tasks, _NEVER)
        return cls(Lines.new(num_tasks), np.ones(num_tasks), np.zeros(num_tasks), never, never.copy())

    def update(
        self,
        evaluation: Evaluation,
        *,
        step: int,
        served: Array,
        trend: Trend,
        target: Array,
        base_samples: Array,
        config: HeatConfig,
    ) -> None:
        """Fold in one evaluation; `trend` has it already."""
        measured, score, choose = evaluation.measured, evaluation["score"], evaluation.choice()
        horizon = config.stall_horizon_ratio * np.maximum(base_samples, base_samples.mean())
        log_loss = np.log(np.maximum(evaluation["loss"], 1e-6))
        lines, num_probes = self.lines, np.maximum(evaluation["num_probes"], 1.0)
        expected = np.where(lines.weight > 0.0, clip(lines.mean_y, 0.0, 1.0), score)
        noise = np.maximum(observation_variance(score, num_probes), observation_variance(expected, num_probes))
        lines.forget(horizon / 2, served, measured)
        broken = measured & _breaks(lines, served, log_loss, score, noise)
        lines.restart(served, broken | (measured & (lines.weight == 0.0)))
        lines.add(served, log_loss, score, choose)
        gap = np.maximum(target - trend.level, 0.0)
        reach = _reach(lines, noise, horizon=horizon, gap=gap)
        patient = served - lines.start_n < config.stall_patience_ratio * base_samples
        wanted = clip(reach / config.stall_full_reach, config.min_learnability, 1.0)
        concern = clip(2.0 * gap / target / max(config.stall_min_gap, 1e-9) - 1.0, 0.0, 1.0)
        wanted = np.where(patient, 1.0, 1.0 - concern * (1.0 - wanted))
        self.progress_step = np.where(measured & (wanted >= 1.0), step, self.progress_step)
        still = served - lines.start_n >= config.stall_give_up_ratio * base_samples
        self._recognise_noise(measured, wanted, still)
        self._recognise_solved(measured, step=step, trend=trend, target=target)
        moved = clip(wanted, self.value / 2.0, self.value * 2.0)
        moved = np.where(self.given_up, config.min_learnability, moved)
        self.value = choose(moved, self.value)

    @property
    def given_up(self) -> Mask:
        """Tasks recognised as noise or out of reach."""
        return self.noise_step >= 0

    def recognised(self) -> Recognised:
        """What every task is recognised as."""
        columns = (self.noise_step, self.solved_step)
        return Recognised(*([None if step < 0 else int(step) for step in column.tolist()] for column in columns))

    def _recognise_noise(self, measured: Mask, wanted: Array, still: Mask) -> None:
        doubtful = measured & still & (np.maximum(wanted, self.value) <= _DOUBTED) & (self.noise_step < 0)
        self.noise_step = np.where(doubtful, self.progress_step, self.noise_step)
        self.noise_step = np.where(measured & (wanted >= 1.0), _NEVER, self.noise_step)

    def _recognise_solved(self, measured: Mask, *, step: int, trend: Trend, target: Array) -> None:
        error = np.sqrt(trend.level_variance)
        reached, lost = trend.level - error >= target, trend.level + error < target
        self.solved_step = np.where(measured & reached & (self.solved_step < 0), step, self.solved_step)
        self.solved_step = np.where(measured & lost, _NEVER, self.solved_step)


def _breaks(lines: Lines, n: Array, log_loss: Array, score: Array, score_variance: Array) -> Mask:
    """Points [K] more than 3.5 standard errors off their line, towards a lower loss or any other score."""
    slope_l, slope_y = lines.slopes()
    ahead = n - lines.mean_n
    spread = 1.0 + 1.0 / np.maximum(lines.weight, 1e-12)
    spread = spread + ahead**2 / np.where(lines.nn > 0.0, lines.nn, np.inf)
    off_l = log_loss - lines.mean_l - slope_l * ahead
    off_y = score - lines.mean_y - slope_y * ahead
    known = lines.weight > 0.0
    lower_loss = off_l < -_BREAK * np.sqrt(lines.loss_variance(slope_l) * spread)
    other_score = np.abs(off_y) > _BREAK * np.sqrt(score_variance * spread)
    return known & (lower_loss | other_score)


def _reach(lines: Lines, score_variance: Array, *, horizon: Array, gap: Array) -> Array:
    """Gain [K] that `horizon` more samples promise, at the optimistic end; 1 where there is no line yet."""
    slope_l, slope_y = lines.slopes()
    no_line = lines.nn <= 0.0
    depth = np.where(no_line, 1.0, lines.nn)
    fall = np.sqrt(lines.loss_variance(slope_l) / depth) - slope_l
    rise = slope_y - np.sqrt(score_variance / depth)
    of_loss = -np.expm1(-clip(horizon * fall, 0.0, 50.0))
    of_gap = clip(horizon * rise / np.maximum(gap, 1e-3), 0.0, 1.0)
    return np.where(no_line, 1.0, np.maximum(of_loss, of_gap))
