"""Curves fitted to a finished run: per task, what its own exposure did to its held-out loss and score.

Loss first: log L(n) = log(floor + (start − floor)·(1 + n/scale)^(−exponent)), least squares within bounds, so that
residuals are relative, from several starts. Then the score on the fitted mastery, then format compliance. A task whose
loss rises again after its lowest point is fitted up to there, and the rise becomes an overfit effect; one whose loss
never moved becomes a flat curve. Standard errors are those of the linearised fit, s²·(JᵀJ)⁻¹.

What to believe: one run shows one path of exposure. Transfer between tasks cannot be told from a task's own exposure
and is not fitted; floor, scale and exponent are hardly told apart on less than a decade of exposure, and their standard
errors say so; past the greatest exposure seen, a curve is an extrapolation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from scheduler.simulator.config import Curve, Effect, NoiseCurve, Overfit, PowerLawCurve, SaturatedCurve, TaskLearner

Array = NDArray[np.float64]

MIN_POINTS = 6
_MIN_FALL = 0.02
_RISE = 0.1
_SATURATED_SCORE = 0.8
_EXPONENTS = (0.05, 10.0)
_SHARPNESS = (0.2, 20.0)
_TINY = 1e-9
_OVERFIT_PARAMETERS = 2
_LOGARITHMIC_LOSS = ("scale_samples", "exponent")


@dataclass(frozen=True, slots=True)
class FitPoints:
    """What a run measured of one task, in order of exposure; arrays of equal length [N].

    Attributes:
        task: Its name.
        num_rows: Its training rows.
        served: Samples of the task served before each evaluation.
        loss: Held-out loss, nats per supervised token.
        score: Measured score.
        format_compliance: Measured share of answers in the right format.
    """

    task: str
    num_rows: int
    served: Array
    loss: Array
    score: Array
    format_compliance: Array


class Estimate(NamedTuple):
    """A fitted parameter; `error` is its standard error, None at a bound or where the data do not determine it."""

    value: float
    error: float | None


@dataclass(frozen=True, slots=True)
class TaskFit:
    """The learner of one task and how well it is known.

    Attributes:
        learner: For the simulator.
        kind: `power_law`, or `flat` where the loss never moved.
        estimates: By parameter.
        loss_residual: Root mean square of the relative residuals of the loss.
        score_residual: The same of the score, absolute.
        num_points: Evaluations the curve was fitted to.
        greatest_exposure: Samples served at the last of them.
    """

    learner: TaskLearner
    kind: Literal["power_law", "flat"]
    estimates: Mapping[str, Estimate]
    loss_residual: float
    score_residual: float
    num_points: int
    greatest_exposure: float


@dataclass(frozen=True, slots=True)
class Fits:
    """Fitted tasks, and why the others could not be, by name."""

    fitted: Mapping[str, TaskFit]
    refused: Mapping[str, str]


def fit_tasks(points: Sequence[FitPoints]) -> Fits:
    """Fit every task for itself. A task with too few points is refused, with the reason."""
    refused = {task.task: reason for task in points if (reason := _refusal(task))}
    return Fits({task.task: _fit(task) for task in points if task.task not in refused}, refused)


def _refusal(points: FitPoints) -> str | None:
    distinct, needed = len(np.unique(points.served)), MIN_POINTS + (_OVERFIT_PARAMETERS if _overfits(points) else 0)
    if distinct >= needed:
        return None
    return f"measured at {distinct} different exposures; its curve needs {needed} or more"


def _fit(points: FitPoints) -> TaskFit:
    compliance = _fit_compliance(points)
    if _is_flat(points):
        return _flat(points, compliance)
    law = _fit_loss(points)
    start, floor, scale, exponent = (law.value(name) for name in ("start_loss", "floor_loss", *_LOGARITHMIC_LOSS))
    after = law.value("after_epochs") if "after_epochs" in law.estimates else np.inf
    mastery = 1.0 - (1.0 + points.served / scale) ** -exponent
    scores = _fit_score(mastery, points.score, np.maximum(points.served / points.num_rows - after, 0.0))
    curve = PowerLawCurve(
        start_loss=start,
        floor_loss=floor,
        scale_samples=scale,
        exponent=exponent,
        chance_score=scores.value("chance_score"),
        best_score=min(1.0, scores.value("chance_score") + scores.value("score_rise")),
        sharpness=scores.value("sharpness"),
    )
    effects: tuple[Effect, ...] = ()
    if np.isfinite(after):
        per_epoch = scores.value("score_per_epoch") if "score_per_epoch" in scores.estimates else 0.0
        rise = law.value("loss_per_epoch")
        effects = (Overfit(after_epochs=after, loss_per_epoch=rise, score_per_epoch=per_epoch),)
    return TaskFit(
        learner=_learner(points, curve, effects, compliance),
        kind="power_law",
        estimates={**law.estimates, **scores.estimates},
        loss_residual=law.residual,
        score_residual=scores.residual,
        num_points=len(points.loss),
        greatest_exposure=float(points.served.max()),
    )


def _learner(
    points: FitPoints, curve: Curve, effects: tuple[Effect, ...], compliance: tuple[float, float]
) -> TaskLearner:
    start, samples = compliance
    return TaskLearner(
        rows=points.num_rows, curve=curve, effects=effects, start_compliance=start, format_samples=samples
    )


def _is_flat(points: FitPoints) -> bool:
    """The log-loss has no slope against log exposure worth two standard errors, or falls by less than 2 %."""
    x, y = np.log1p(points.served), np.log(np.maximum(points.loss, _TINY))
    centred = x - x.mean()
    slope = float(centred @ (y - y.mean())) / float(centred @ centred)
    residual = y - y.mean() - slope * centred
    error = np.sqrt(float(residual @ residual) / (len(x) - 2) / float(centred @ centred))
    return bool(float(y[0] - y.min()) < _MIN_FALL or (slope > -2.0 * error and float(y[0] - y.min()) < _RISE))


def _flat(points: FitPoints, compliance: tuple[float, float]) -> TaskFit:
    loss, score = float(points.loss.mean()), float(points.score.mean())
    saturated = score >= _SATURATED_SCORE
    curve = SaturatedCurve(loss=loss, score=score) if saturated else NoiseCurve(loss=loss, chance_score=score)
    num_points = len(points.loss)
    errors = [float(values.std(ddof=1) / np.sqrt(num_points)) for values in (points.loss, points.score)]
    return TaskFit(
        learner=_learner(points, curve, (), compliance),
        kind="flat",
        estimates={"loss": Estimate(loss, errors[0]), "score": Estimate(score, errors[1])},
        loss_residual=float(points.loss.std()) / max(loss, _TINY),
        score_residual=float(points.score.std()),
        num_points=num_points,
        greatest_exposure=float(points.served[-1]),
    )


def _overfits(points: FitPoints) -> bool:
    """The held-out loss ends, twice in a row, clearly above its lowest point."""
    lowest = int(points.loss.argmin())
    after = points.loss[lowest + 1 :]
    return len(after) >= 2 and bool((after[-2:] > (1.0 + _RISE) * points.loss[lowest]).all())


@dataclass(frozen=True, slots=True)
class _Solution:
    estimates: Mapping[str, Estimate]
    residual: float

    def value(self, name: str) -> float:
        return self.estimates[name].value


def _fit_loss(points: FitPoints) -> _Solution:
    """The power law, with the rise after an epoch where the task overfits."""
    served, epochs = points.served, points.served / points.num_rows
    logs = np.log(np.maximum(points.loss, _TINY))
    first, lowest, most = float(np.exp(logs[0])), float(np.exp(logs.min())), float(served.max())

    def residuals(theta: Array) -> Array:
        start, floor, log_scale, log_exponent, *rise = theta
        loss = floor + (start - floor) * (1.0 + served / np.exp(log_scale)) ** -np.exp(log_exponent)
        if rise:
            after, per_epoch = rise
            loss = loss + per_epoch * np.maximum(epochs - after, 0.0)
        return np.log(loss) - logs

    names = ["start_loss", "floor_loss", *_LOGARITHMIC_LOSS]
    lower = [lowest, 0.0, np.log(1.0), np.log(_EXPONENTS[0])]
    upper = [3.0 * first, lowest * (1.0 - 1e-6), np.log(100.0 * most), np.log(_EXPONENTS[1])]
    starts = [
        [max(first, lowest * 1.001), share * lowest, np.log(max(fraction * most, 2.0)), np.log(exponent)]
        for share in (0.5, 0.95)
        for fraction in (0.02, 0.2)
        for exponent in (0.4, 1.5)
    ]
    if _overfits(points):
        names += ["after_epochs", "loss_per_epoch"]
        turn, last = float(epochs[points.loss.argmin()]), float(epochs.max())
        per_epoch = float(points.loss[-1] - lowest) / max(last - turn, _TINY)
        lower, upper = [*lower, 0.0, 0.0], [*upper, last, 10.0 * per_epoch]
        starts = [[*start, share * turn, per_epoch] for start in starts for share in (0.5, 0.95)]
    return _solve(residuals, names, starts, lower, upper, logarithmic=_LOGARITHMIC_LOSS)


def _fit_score(mastery: Array, score: Array, epochs_over: Array) -> _Solution:
    """The score on mastery, and what it loses with every epoch past the turn where there is one."""
    overfits = bool(epochs_over.max() > 0.0)

    def residuals(theta: Array) -> Array:
        chance, rise, log_sharpness, *cost = theta
        kept = (1.0 - cost[0]) ** epochs_over if cost else 1.0
        return chance + rise * mastery ** np.exp(log_sharpness) * kept - score

    names = ["chance_score", "score_rise", "sharpness"] + ["score_per_epoch"] * overfits
    first = min(max(float(score[0]), 0.01), 0.98)
    rise = min(max(float(score.max()) - first, 0.01), 0.99)
    lower = [0.0, 0.0, np.log(_SHARPNESS[0])] + [0.0] * overfits
    upper = [1.0, 1.0, np.log(_SHARPNESS[1])] + [0.9] * overfits
    starts = [[first, rise, np.log(sharpness)] + [0.02] * overfits for sharpness in (0.6, 1.5, 5.0)]
    return _solve(residuals, names, starts, lower, upper, logarithmic=("sharpness",))


def _fit_compliance(points: FitPoints) -> tuple[float, float]:
    """Start and samples of the format curve; not reported, as few decisions hang on it."""
    most = max(float(points.served.max()), 2.0)

    def residuals(theta: Array) -> Array:
        start, log_samples = theta
        return 1.0 - (1.0 - start) * np.exp(-points.served / np.exp(log_samples)) - points.format_compliance

    first = min(max(float(points.format_compliance[0]), 0.01), 0.99)
    solution = _solve(
        residuals,
        ["start", "samples"],
        [[first, np.log(max(fraction * most, 1.5))] for fraction in (0.01, 0.1, 0.5)],
        [0.0, 0.0],
        [1.0, np.log(1000.0 * most)],
        logarithmic=("samples",),
    )
    return solution.value("start"), solution.value("samples")


def _solve(
    residuals: Callable[[Array], Array],
    names: Sequence[str],
    starts: Sequence[Sequence[float]],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    logarithmic: tuple[str, ...],
) -> _Solution:
    """The best solution over the starts; the parameters in `logarithmic` are solved for in logs."""
    low, high = np.array(lower), np.array(upper)
    inside = 1e-9 * (high - low)
    solutions = [
        least_squares(residuals, np.clip(np.array(start), low + inside, high - inside), bounds=(low, high))
        for start in starts
    ]
    best = min(solutions, key=lambda solution: float(solution.cost))
    num_points, num_free = best.jac.shape
    variance = 2.0 * float(best.cost) / max(num_points - num_free, 1)
    values, errors = best.x.copy(), _errors(best.jac, variance)
    for index in map(list(names).index, logarithmic):
        values[index] = np.exp(values[index])
        errors[index] *= values[index]
    at_bound = (best.x - low < 1e-4 * (high - low)) | (high - best.x < 1e-4 * (high - low))
    estimates = {
        name: Estimate(value, None if bound or not np.isfinite(error) else error)
        for name, value, error, bound in zip(names, values.tolist(), errors.tolist(), at_bound.tolist(), strict=True)
    }
    return _Solution(estimates, float(np.sqrt(np.mean(best.fun**2))))


def _errors(jacobian: Array, variance: float) -> Array:
    """Standard errors; infinite for a parameter that lies in the null space of the Jacobian."""
    _, singular, rotation = np.linalg.svd(jacobian, full_matrices=False)
    known = singular > singular.max() * 1e-10
    inverse = np.where(known, 1.0 / np.where(known, singular, 1.0), 0.0)
    errors = np.sqrt(variance * np.sum((rotation.T * inverse) ** 2, axis=1))
    undetermined = np.sum((rotation.T[:, ~known]) ** 2, axis=1) > 1e-6
    return np.where(undetermined, np.inf, errors)
