"""What every policy sees, what it may answer, and what it may remember. Per-task arrays have shape [K].

A policy asks for shares prior · exp(tilt). `anchored` makes a tilt exact: the tasks a policy knows something about
share their part of the prior among themselves, and every other task keeps its prior share to the last bit of rounding,
so that missing evidence moves nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Memory = Mapping[str, Array]
"""What a policy remembers between evaluations, by name; NaN where it knows nothing. Never changed in place."""


_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Evidence:
    """Statistics in hand when a decision is made.

    A score, loss or other measurement keeps its last value while a task is not measured, and is NaN for a task that
    never was. Losses are nats per supervised token; losses of different tasks must be normalised before a rule
    compares them.

    Attributes:
        prior: Probability per task before any evidence; zero where the user wants none.
        previous: Weights of the plan before.
        num_rows: Training rows.
        heat: In [0, 1].
        learnability: In [0, 1]; below 1 where exposure has brought no progress.
        given_up: Tasks recognised as noise, or out of reach.
        gap: Shortfall of the filtered score against the task's target, in [0, 1].
        long_tail: Tasks of tier `long_tail`.
        measured: Tasks with at least one signal so far.
        fresh: Tasks with a signal in this very evaluation.
        span: Evaluations between the last two signals of a task; NaN before there are two.
        score: Last score, in [0, 1].
        first_score: First score.
        best_score: Best score so far.
        previous_score: The one before the last.
        loss: Last held-out loss.
        first_loss: First held-out loss.
        best_loss: Least held-out loss so far.
        previous_loss: The one before the last.
        train_loss: Mean training loss of the newest interval; NaN when the task was not trained in it or when it has
            been used in a decision before.
        previous_train_loss: The training loss before that.
        first_train_loss: The first training loss.
        gradient_squared: Squared norm of the task's expected gradient, without the luck of the rows; may be below 0.
        gradient_variance: Of the gradient of a single row, summed over the parameters.
        gradient_pull: Fall of the task's loss per unit of the applied update's length, nats per token.
        gradient_fresh: Tasks whose gradient has been measured since the evaluation before.
        served: Samples (supervised tokens, where weights are shares of tokens) served since step 0.
        exposure: The same between the last two signals of the task; NaN before there are two.
        total_exposure: The same of all tasks together in that time.
        step: Optimiser step whose weights were evaluated.
        progress: Share of the run that is over when the new plan begins, in [0, 1].
    """

    prior: Array
    previous: Array
    num_rows: Array
    heat: Array
    learnability: Array
    given_up: Mask
    gap: Array
    long_tail: Mask
    measured: Mask
    fresh: Mask
    span: Array
    score: Array
    first_score: Array
    best_score: Array
    previous_score: Array
    loss: Array
    first_loss: Array
    best_loss: Array
    previous_loss: Array
    train_loss: Array
    previous_train_loss: Array
    first_train_loss: Array
    gradient_squared: Array
    gradient_variance: Array
    gradient_pull: Array
    gradient_fresh: Mask
    served: Array
    exposure: Array
    total_exposure: Array
    step: int
    progress: float


@dataclass(frozen=True, slots=True)
class Driver:
    """A statistic that moved the weights: its name in words and its value for every task [K], NaN where unknown."""

    label: str
    values: Array

    def words(self) -> list[str]:
        """The statistic of every task [K] beside the mean of all tasks."""
        known = self.values[np.isfinite(self.values)]
        unknown = f"{self.label} not known yet"
        if not len(known):
            return [unknown] * len(self.values)
        mean = f"mean of all tasks {float(known.mean()):.3g}"
        return [
            f"{self.label} {value:.3g} ({mean})" if np.isfinite(value) else unknown for value in self.values.tolist()
        ]


@dataclass(frozen=True, slots=True)
class Target:
    """Weights asked for, as unnormalised log-probabilities [K], and what moved them; None: heat and its components."""

    logits: Array
    driver: Driver | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the previous weights, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy asks for, and what it remembers from now on."""

    outcome: Target | Hold
    memory: Memory


def thin_evidence(prior: Array, heard: Mask, *, min_ratio: float, what: str) -> Hold | None:
    """Why no weight may move yet: the tasks in `heard` hold too little of the prior; None where they hold enough."""
    covered = float(prior[heard].sum())
    if heard.any() and covered >= min_ratio - _ROUNDING:
        return None
    return Hold(f"{what} hold {covered:.0%} of the prior; {min_ratio:.0%} are asked for (min_measured_ratio)")


class Rule(Protocol):
    """A policy resolved against the tasks of a run. Stateless: what it remembers is handed in and out."""

    def first_weights(self, prior: Array, /) -> Array:
        """The shares [K] that it asks for at step 0, before any evaluation."""
        ...

    def first_memory(self, num_tasks: int, /) -> Memory:
        """What it remembers before any evaluation."""
        ...

    def step(self, evidence: Evidence, memory: Memory) -> Answer:
        """Fold in one evaluation. A pure function: equal arguments give equal answers, bit for bit."""
        ...


class BeginsAtPrior:
    """A rule that asks for the prior before any evaluation."""

    __slots__ = ()

    def first_weights(self, prior: Array, /) -> Array:
        """The prior itself."""
        return prior


class Memoryless:
    """A rule that remembers nothing."""

    __slots__ = ()

    def first_memory(self, _num_tasks: int, /) -> Memory:
        """Nothing."""
        return {}


def log_prior(prior: Array) -> Array:
    """Log of the prior [K], with a finite value far below any other where it is zero."""
    return np.log(np.maximum(prior, 1e-30))


def tilted(prior: Array, tilt: Array, driver: Driver | None = None) -> Target:
    """Ask for shares prior · exp(tilt)."""
    return Target(log_prior(prior) + tilt, driver)


def anchored(prior: Array, tilt: Array, known: Mask) -> Array:
    """The tilt [K] shifted so that the tasks in `known` keep their part of the prior together; 0 for every other task.

    The shares prior · exp(tilt) then sum to one.
    """
    counted = known & (prior > 0.0)
    if not counted.any():
        return np.zeros_like(tilt)
    top = float(tilt[counted].max())
    mass = prior[counted]
    shift = top + np.log(float((mass * np.exp(tilt[counted] - top)).sum()) / float(mass.sum()))
    return np.where(counted, tilt - shift, 0.0)


def mixed_with_prior(tilt: Array, ratio: float) -> Array:
    """Tilt [K] of the shares (1 - ratio) · prior · exp(tilt) + ratio · prior."""
    if ratio <= 0.0:
        return tilt
    if ratio >= 1.0:
        return np.zeros_like(tilt)
    return np.logaddexp(tilt + np.log1p(-ratio), np.log(ratio))


def relative_drop(before: Array, after: Array) -> Array:
    """(before - after) / before where a loss [K] fell, / after where it rose: in [-1, 1], NaN where either is."""
    return (before - after) / np.maximum(np.maximum(before, after), 1e-12)


def share_left(loss: Array, first: Array) -> Array:
    """Share [K] of the first loss that is left, at most 2; NaN where either is."""
    return 2.0 * np.minimum(0.5 * loss, first) / np.maximum(first, 1e-12)


def joined_average(average: Array, newest: Array, *, fresh: Mask, rate: float) -> Array:
    """Moving average [K] that takes in `newest` for the tasks in `fresh`; NaN for a task that has not joined yet.

    The first tasks start at zero, as in the papers; a task that joins later starts at the mean of those before it, so
    that coming late is neither punished nor rewarded.
    """
    known = np.isfinite(average)
    start = float(average[known].mean()) if known.any() else 0.0
    old = np.where(known, average, start)
    return np.where(fresh, (1.0 - rate) * old + rate * np.where(fresh, newest, 0.0), average)
