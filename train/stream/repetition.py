"""What happens when a task's rows are used up: caps on samples served, and how a task leaves the mixture.

A task leaves when the rule of the shares would have it give a sample beyond its cap, not before: up to there nothing is
different from a mixture without caps. In that very step it gives what it has left, and the rest of the batch goes to
the others. What it was still owed, this step's quota included, is handed over to them in proportion to their weights;
from then on their weights are renormalised and its debt is zero.

Bounds. A task leaves with a claim of at least zero (its turn had come), so no debt of another falls by it: all debts
stay above -1 sample (token mode: above minus the longest row), and as they sum to zero none reaches the number of tasks
that are left, times that. This is proved, not tight. A claim is worked off like any other remainder.

A step ends the stream, and is not drawn, if a task under `stop` that has a weight would have to give more than it has,
or if no task with a weight is left to fill it. A task of weight 0 that is still owed a sample it does not have leaves,
whatever its rule: no share of the plan in force is missed. All of this follows from seed, step and plans; block lengths
play no part.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scheduler.errors import ConfigError
from scheduler.setup import sample_cap
from scheduler.task import Repetition
from train.stream.apportion import ONE, UNIT_BITS, apportion_quotas, to_units

UNLIMITED = np.int64(1) << 60


class Limits:
    """Caps on samples per task.

    Attributes:
        caps: int64 [K] most samples each task gives; `UNLIMITED` without a cap.
        stops: bool [K]: whether the stream ends where the task is used up.
        is_open: No task has a cap.
    """

    def __init__(self, repetition: Sequence[Repetition], *, num_rows: np.ndarray) -> None:
        if len(repetition) not in (0, len(num_rows)):
            raise ConfigError(
                f"repetition has {len(repetition)} entries for {len(num_rows)} tasks; give one each, or none"
            )
        self.caps, self.stops = np.full(len(num_rows), UNLIMITED), np.zeros(len(num_rows), dtype=bool)
        for task, rule in enumerate(repetition):
            cap = sample_cap(rule, num_rows=int(num_rows[task]))
            if cap is not None:
                self.caps[task], self.stops[task] = cap, rule.then == "stop"
        self.is_open = bool((self.caps == UNLIMITED).all())

    def allowed(self, served: np.ndarray, left: np.ndarray) -> np.ndarray:
        """int64 [K] samples each task may still give; -1: it has left."""
        return np.where(left, -1, self.caps - served)

    def steps_within(self, tasks: np.ndarray, served: np.ndarray) -> int:
        """How many of the steps `tasks` [S, B] no cap stands in the way of."""
        if self.is_open:
            return len(tasks)
        remaining = self.caps - served
        exceeding = np.bincount(tasks.ravel(), minlength=len(served)) > remaining
        if not exceeding.any():
            return len(tasks)
        flat = tasks.ravel()
        places = np.flatnonzero(exceeding[flat])
        by_task = places[np.argsort(flat[places], kind="stable")]
        counts = np.bincount(flat[places], minlength=len(served))
        numbers = np.arange(len(by_task)) - (np.cumsum(counts) - counts)[flat[by_task]]
        first = by_task[numbers >= remaining[flat[by_task]]].min()
        return int(first) // tasks.shape[1]

    def describe(self) -> list[list[int | str | None]]:
        """JSON-able, for comparing two streams; empty without caps."""
        if self.is_open:
            return []
        caps = [None if cap == UNLIMITED else cap for cap in self.caps.tolist()]
        return [
            [cap, "stop" if stops else "redistribute"] for cap, stops in zip(caps, self.stops.tolist(), strict=True)
        ]


class Filled(NamedTuple):
    """A step in which tasks left: counts int64 [K], debts after it int64 [K], who has left by now bool [K]."""

    counts: np.ndarray
    debts: np.ndarray
    left: np.ndarray


def weights_of_stayers(weights: np.ndarray, left: np.ndarray) -> np.ndarray | None:
    """int64 [K]: `weights` without the tasks that left, renormalised to the same sum; None if nobody has a weight."""
    if not left.any():
        return weights
    kept = np.where(left, 0, weights)
    return to_units(kept.astype(np.float64), one=int(weights.sum())) if kept.any() else None


def hand_over(claims: np.ndarray, leaving: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Claims [K] with those of `leaving` [K] handed to the tasks with `weights` [K] in proportion; the sum stays."""
    total = int(claims[leaving].sum())
    shares = np.rint(total * (weights / weights.sum())).astype(np.int64)
    shares[np.argmax(weights)] += total - shares.sum()
    return np.where(leaving, 0, claims) + shares


def fill_step(
    debts: np.ndarray, weights: np.ndarray, *, batch_size: int, limits: Limits, allowed: np.ndarray
) -> Filled | None:
    """The step in which at least one task is asked for more than `allowed`; None if it cannot be filled.

    Args:
        debts: int64 [K] in units of a sample; zero for a task that left before.
        weights: int64 [K] in units, zero for a task that left before.
        batch_size: Samples of the step.
        limits: Which tasks stop the stream.
        allowed: int64 [K] from `Limits.allowed`.
    """
    before = allowed < 0
    leaving = np.zeros_like(before)
    rates = weights * batch_size
    quotas = debts + rates
    while True:
        own = np.where(leaving, 0, weights)
        if not own.any():
            return None
        claims = hand_over(quotas - np.where(leaving, allowed << UNIT_BITS, 0), leaving, own)
        counts = apportion_quotas(claims, np.where(leaving, 0, rates))
        exceeding = (counts > allowed) & ~before & ~leaving
        if not exceeding.any():
            served = counts + np.where(leaving, allowed, 0)
            return Filled(served, claims - counts * ONE, before | leaving)
        if (limits.stops & exceeding & (weights > 0)).any():
            return None
        leaving |= exceeding
