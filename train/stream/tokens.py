"""Exact shares of supervised tokens: which task the next samples come from when a weight is a share of tokens.

Time is counted in tokens served, V. Task i with weight w is owed w·V tokens; its *debt* is that minus what it was
served; debts sum to zero. Its next sample, of known length l, has the start tag S = V - debt/w, when an ideal fluid
would begin it, and the finish tag F = S + l/w, when the fluid would be done. Among the samples already begun by the
fluid (S <= V, that is, debt >= 0) the one with the smallest finish tag goes next, whole. Debts sum to zero, so there
always is one. This is WF2Q (Bennett & Zhang, INFOCOM 1996) with every queue backlogged; a step is the next B samples.

Why |debt| < the longest row, under one plan and from zero debts, after every sample and so after every step.
Below: a task is served at debt >= 0 only, and its own target grows meanwhile: debt >= -(1 - w)·l > -L.
Above: let a sample with finish tag F be served over [t, t + l]. Let b be the last sample served before it whose finish
tag is later, begun at time u (none: then everything served until t + l has tags <= F, and t + l <= F). All samples
served after b were not yet begun by the fluid at u, else they had gone before b, and have finish tags <= F: the fluid
serves them within (u, F], so they hold less than F - u tokens, and t + l < u + |b| + F - u <= F + L. By then the
fluid had served the task all of its samples up to this one not before t + l - L, and from then on it serves at a rate
of at most one token a token: what it served by t is less than what the task got by t, plus l, plus L - l. (The second
step is Parekh & Gallager, IEEE/ACM Trans. Netw. 1 (1993), theorem 2.)

Tags are rounded up to whole tokens. V is whole, so who has begun is not changed; and work is whole, so "less than
F - u" survives for the rounded F: the bound stands as it is.

After a change of plan, or from any debts, the lower bound stands for every sequence of plans (debt > -L); as debts sum
to zero none reaches (K - 1)·L. The order is right: the smallest finish tag goes next, not the largest debt, so a plan
that gives everything to the task owed most and next to nothing to others owed more than a row serves those first. An
adversary who changes the plan after every sample so reached 9 longest rows at K = 40, 21 at 100 and 47 at 200.

A task of weight 0 is served only while it is owed tokens and no task with a weight has a debt >= 0.

Units are 2**-32 token. What a task gains over a block, at most 2**30 tokens (2**14 samples of 2**16 tokens) times a
weight of at most 2**32 units, is 2**62, and debts below (K - 1)·L leave room for it in int64 up to `MAX_TASKS` tasks.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

TOKEN_BITS = 32
TOKEN_ONE = 1 << TOKEN_BITS
MAX_ROW_TOKENS = 1 << 16
MAX_HORIZON = 1 << 30
MAX_TASKS = 1 << 14
_NEVER = np.int64(1) << 62

LengthsOf = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(tasks [N], how many samples of the task come before [N]) -> int64 [N] supervised tokens of that sample."""


class Draws(NamedTuple):
    """The next samples in the order served.

    `tasks` int32 [N]; `lengths` int64 [N]; `beyond`: the task whose turn is next although it has no sample left to
    give, None if there is none.
    """

    tasks: np.ndarray
    lengths: np.ndarray
    beyond: int | None


class _Jobs(NamedTuple):
    """Samples that may be served within the horizon, by task, in order within a task."""

    tasks: np.ndarray
    lengths: np.ndarray
    before: np.ndarray
    is_beyond: np.ndarray


def draw_tokens(
    debts: np.ndarray,
    weights: np.ndarray,
    *,
    num_samples: int,
    horizon: int,
    allowed: np.ndarray,
    mean_lengths: np.ndarray,
    lengths_of: LengthsOf,
) -> Draws:
    """Draw until `num_samples` are drawn, `horizon` tokens are reached, or a task's turn comes that may give no more.

    Args:
        debts: int64 [K] in units of a token, summing to zero.
        weights: int64 [K] in units, summing to `TOKEN_ONE`.
        num_samples: Samples wanted, at most.
        horizon: Tokens to look ahead, at most `MAX_HORIZON`; no sample begins at or beyond it.
        allowed: int64 [K] samples each task may still give; -1: the task takes no part.
        mean_lengths: float64 [K], about how long a task's samples are; only speed depends on it.
        lengths_of: Lengths of each task's next samples.
    """
    limits = np.where(allowed < 0, 0, debts + horizon * weights + (weights == 0))
    jobs = _jobs_within(limits, allowed, mean_lengths, lengths_of, num_samples=num_samples)
    starts, finishes = _tags(jobs, debts, weights)
    order = np.argsort(finishes, kind="stable")
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    by_start = np.argsort(starts, kind="stable")
    served, beyond_rank = _earliest_finish_first(
        starts=[*starts[by_start].tolist(), MAX_HORIZON],
        ranks=ranks[by_start].tolist(),
        lengths=jobs.lengths[order].tolist(),
        is_beyond=jobs.is_beyond[order].tolist(),
        num_samples=num_samples,
        horizon=horizon,
    )
    chosen = order[np.array(served, dtype=np.int64)]
    beyond = None if beyond_rank is None else int(jobs.tasks[order[beyond_rank]])
    return Draws(jobs.tasks[chosen].astype(np.int32), jobs.lengths[chosen], beyond)


def _jobs_within(
    limits: np.ndarray, allowed: np.ndarray, mean_lengths: np.ndarray, lengths_of: LengthsOf, *, num_samples: int
) -> _Jobs:
    """Every sample with a start tag before the horizon: fewer than `limits` units come before it in its task.

    Of one task no more than `num_samples` are drawn, so no more are listed.
    """
    taking = np.flatnonzero(limits > 0)
    most = np.minimum(allowed[taking] + 1, num_samples)
    counts = np.minimum((limits[taking] / (mean_lengths[taking] * TOKEN_ONE)).astype(np.int64) + 2, most)
    while True:
        firsts = np.cumsum(counts) - counts
        places = np.repeat(np.arange(len(taking)), counts)
        numbers = np.arange(len(places)) - firsts[places]
        lengths = lengths_of(taking[places], numbers)
        through = np.cumsum(lengths)
        before = through - lengths
        before -= before[firsts][places] if len(places) else 0
        totals = np.add.reduceat(lengths, firsts) if len(firsts) else lengths
        short = (totals << TOKEN_BITS < limits[taking]) & (counts < most)
        if not short.any():
            break
        counts = np.where(short, np.minimum(2 * counts, most), counts)
    kept = before << TOKEN_BITS < limits[taking][places]
    places, numbers = places[kept], numbers[kept]
    is_beyond = numbers == allowed[taking][places]
    return _Jobs(taking[places], lengths[kept], before[kept], is_beyond)


def _tags(jobs: _Jobs, debts: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and finish tags, rounded up to whole tokens from now."""
    ahead = (jobs.before << TOKEN_BITS) - debts[jobs.tasks]
    own = weights[jobs.tasks]
    divisor = np.maximum(own, 1)
    starts = np.where(own > 0, -(-ahead // divisor), np.where(ahead <= 0, 0, _NEVER))
    finishes = np.where(own > 0, -(-(ahead + (jobs.lengths << TOKEN_BITS)) // divisor), _NEVER)
    return starts, finishes


def _earliest_finish_first(
    *, starts: list[int], ranks: list[int], lengths: list[int], is_beyond: list[bool], num_samples: int, horizon: int
) -> tuple[list[int], int | None]:
    """Ranks in the order served, and the rank that had to end it because its task may give no more.

    `starts` (ended by a sentinel) and `ranks` are by start tag; `lengths` and `is_beyond` by rank.
    """
    heap: list[int] = []
    served: list[int] = []
    now = upcoming = 0
    while len(served) < num_samples and now < horizon:
        while starts[upcoming] <= now:
            heappush(heap, ranks[upcoming])
            upcoming += 1
        rank = heappop(heap)
        if is_beyond[rank]:
            return served, rank
        served.append(rank)
        now += lengths[rank]
    return served, None
