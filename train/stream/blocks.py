"""The next steps' tasks, a block at a time, and where the stream stands at every step of it.

A planner works out the tasks of the next steps under the weights in force: `SamplePlanner` where a weight is a share of
samples, `TokenPlanner` where it is a share of supervised tokens. A block is as long as nothing intervenes: it is cut
before a step in which a task is used up, and that step is a block of its own. What is drawn does not depend on where a
block ends, because the next one starts from exactly where the stream stands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from train.stream.apportion import MAX_BLOCK_SAMPLES, ONE, apportion_block
from train.stream.repetition import Limits, fill_step, hand_over, weights_of_stayers
from train.stream.tokens import MAX_HORIZON, TOKEN_ONE, Draws, draw_tokens

LengthsAt = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(tasks [N], number of each task's sample [N]) -> int64 [N] supervised tokens."""


class Standing(NamedTuple):
    """Where the stream stands: samples served int64 [K], debts int64 [K] in units, who has left bool [K]."""

    served: np.ndarray
    debts: np.ndarray
    left: np.ndarray


@dataclass(frozen=True, slots=True)
class Block:
    """Steps planned ahead.

    Attributes:
        start: Where the stream stands before the first of them.
        weights: int64 [K] weights in force, renormalised to the tasks that are left.
        tasks: int32 [S, B], in no particular order within a step; S = 0: the next step cannot be filled.
        lengths: int64 [S, B] supervised tokens of those samples; None where a weight is a share of samples.
        end: Where the stream stands after the block, given for a step (S = 1) in which tasks leave.
    """

    start: Standing
    weights: np.ndarray
    tasks: np.ndarray
    lengths: np.ndarray | None = None
    end: Standing | None = None

    def counts(self, num_steps: int) -> np.ndarray:
        """int64 [K]: samples served in the block's first steps."""
        return np.bincount(self.tasks[:num_steps].ravel(), minlength=len(self.weights))

    def standing(self, num_steps: int) -> Standing:
        """Where the stream stands after so many of the steps."""
        if num_steps == 0:
            return self.start
        if self.end is not None:
            return self.end
        counts = self.counts(num_steps)
        if self.lengths is None:
            gained = num_steps * self.tasks.shape[1] * self.weights - counts * ONE
        else:
            tokens = _sum_by_task(self.tasks[:num_steps], self.lengths[:num_steps], len(counts))
            gained = int(tokens.sum()) * self.weights - tokens * TOKEN_ONE
        return Standing(self.start.served + counts, self.start.debts + gained, self.start.left)


class SamplePlanner:
    """Weights are shares of samples (`train.stream.apportion`)."""

    def __init__(self, *, batch_size: int, limits: Limits) -> None:
        self._batch_size, self._limits = batch_size, limits

    def plan(self, start: Standing, weights: np.ndarray, *, num_steps: int) -> Block:
        """At most `num_steps` steps from `start`; none if the next one cannot be filled."""
        nothing = np.empty((0, self._batch_size), dtype=np.int32)
        own = weights_of_stayers(weights, start.left)
        if own is None:
            return Block(start, weights, nothing)
        tasks = apportion_block(start.debts, own * self._batch_size, num_steps=num_steps)
        num_kept = self._limits.steps_within(tasks, start.served)
        if num_kept > 0:
            return Block(start, own, tasks[:num_kept])
        allowed = self._limits.allowed(start.served, start.left)
        filled = fill_step(start.debts, own, batch_size=self._batch_size, limits=self._limits, allowed=allowed)
        if filled is None:
            return Block(start, own, nothing)
        step = np.repeat(np.arange(len(own), dtype=np.int32), filled.counts)[None, :]
        end = Standing(start.served + filled.counts, filled.debts, filled.left)
        return Block(start, own, step, end=end)


class TokenPlanner:
    """Weights are shares of supervised tokens (`train.stream.tokens`)."""

    def __init__(self, *, batch_size: int, limits: Limits, mean_lengths: np.ndarray, lengths_at: LengthsAt) -> None:
        self._batch_size, self._limits = batch_size, limits
        self._mean_lengths, self._lengths_at = mean_lengths, lengths_at

    def plan(self, start: Standing, weights: np.ndarray, *, num_steps: int) -> Block:
        """At most `num_steps` steps from `start`; none if the next one cannot be filled."""
        own = weights_of_stayers(weights, start.left)
        if own is None:
            return Block(start, weights, np.empty((0, self._batch_size), dtype=np.int32))
        draws = self._draw(start, own, num_steps * self._batch_size, at_least=self._batch_size)
        num_kept = len(draws.tasks) // self._batch_size
        if num_kept == 0:
            return self._fill_step(start, own, weights)
        shape, num_samples = (num_kept, self._batch_size), num_kept * self._batch_size
        return Block(start, own, draws.tasks[:num_samples].reshape(shape), draws.lengths[:num_samples].reshape(shape))

    def _draw(self, start: Standing, weights: np.ndarray, num_samples: int, *, at_least: int) -> Draws:
        """Draw up to `num_samples`, and `at_least` so many unless a task's turn comes that is used up."""
        horizon = min(int(num_samples / (weights / self._mean_lengths).sum() * TOKEN_ONE) + 1, MAX_HORIZON)
        while True:
            draws = draw_tokens(
                start.debts,
                weights,
                num_samples=num_samples,
                horizon=horizon,
                allowed=self._limits.allowed(start.served, start.left),
                mean_lengths=self._mean_lengths,
                lengths_of=lambda tasks, numbers: self._lengths_at(tasks, start.served[tasks] + numbers),
            )
            if len(draws.tasks) >= at_least or draws.beyond is not None:
                return draws
            horizon = min(2 * horizon, MAX_HORIZON)

    def _fill_step(self, start: Standing, weights: np.ndarray, plan_weights: np.ndarray) -> Block:
        """The step in which a task's turn comes that is used up; without a step if it cannot be filled."""
        ended = Block(start, weights, np.empty((0, self._batch_size), dtype=np.int32))
        now, own, parts, num_missing = start, weights, list[Draws](), self._batch_size
        while True:
            draws = self._draw(now, own, num_missing, at_least=num_missing)
            parts.append(draws)
            num_missing -= len(draws.tasks)
            now = _after(now, own, draws)
            if draws.beyond is None:
                break
            leaving = np.arange(len(own)) == draws.beyond
            left = now.left | leaving
            stayers = weights_of_stayers(plan_weights, left)
            if stayers is None or (self._limits.stops[draws.beyond] and plan_weights[draws.beyond] > 0):
                return ended
            own, now = stayers, Standing(now.served, hand_over(now.debts, leaving, stayers), left)
        tasks = np.concatenate([part.tasks for part in parts])[None, :]
        return Block(start, weights, tasks, np.concatenate([part.lengths for part in parts])[None, :], end=now)


def longest_block(batch_size: int) -> int:
    """Most steps worth planning at once."""
    return max(1, MAX_BLOCK_SAMPLES // batch_size)


def _after(start: Standing, weights: np.ndarray, draws: Draws) -> Standing:
    counts = np.bincount(draws.tasks, minlength=len(weights))
    tokens = _sum_by_task(draws.tasks, draws.lengths, len(weights))
    debts = start.debts + int(tokens.sum()) * weights - tokens * TOKEN_ONE
    return Standing(start.served + counts, debts, start.left)


def _sum_by_task(tasks: np.ndarray, lengths: np.ndarray, num_tasks: int) -> np.ndarray:
    """int64 [K]; sums in float64 are exact below 2**53."""
    return np.bincount(tasks.ravel(), weights=lengths.ravel(), minlength=num_tasks).astype(np.int64)
