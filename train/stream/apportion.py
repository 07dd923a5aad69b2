"""Exact shares: how many samples of each task one optimiser step holds.

Shares are kept in whole numbers of 2**-44 sample (`ONE` is a sample), so that a million steps drift by nothing and
every machine finds the same counts. Per task there is a *debt*: its cumulative target minus what it was served,
negative when it is ahead. Debts sum to zero. A step with rates r (weight times batch size B) has the *quotas*
q = debt + r and serves counts n >= 0 with sum n = B.

The rule. Every task is due floor(q) samples (none if q < 0); tasks with a fraction left may run ahead by one, and
those whose next sample falls due first do. When more is due than the batch holds, the largest quotas go first,
sample by sample. This is Tijdeman's chairman assignment (Discrete Mathematics 32, 1980) with a step, not a sample,
as the unit of time.

Why |debt| < 1 under one plan. Start from zero debts. Sample m of a task keeps its debt within (-1, 1) if and only
if it is served in a step t with floor((m-1)/r) + 1 <= t <= ceil(m/r). The samples whose window lies in steps s+1..e
number at most floor(re) - ceil(rs) <= r(e-s); over all tasks that is at most B(e-s), so by Hall's theorem all
windows can be met, and earliest deadline first, which is optimal for unit jobs, meets them. By step t, sum ceil(rt)
>= Bt samples were released: no step lacks samples to serve.

When the plan changes, remainders are carried. Debts stay > -1 whatever the plans (nothing is served at q <= 0).
They stay < 1 unless a new plan turns away from tasks that are ahead: then the others are together owed more than
the batch holds. Even so every debt stays below max(1, H(K // 2)), H the harmonic number, K the number of tasks,
whatever the plans; see `scheduler.debt`. Under a lasting plan the backlog is gone once every task that was ahead has
been caught up by its target; a task of weight 0 never is, so what it was served beyond its target stays owed to the
others.

A task of weight 0 gains no new claim. What it is still owed waits behind everybody else's: it is served, at most
one sample under a feasible plan, only in a step that no other task could fill without running a whole sample ahead.

What this does not do: choose rows, or the order inside the batch; see `train.stream.mixture`.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from scheduler.errors import ConfigError

UNIT_BITS = 44
ONE = 1 << UNIT_BITS
MAX_BATCH_SIZE = 1 << 14
MAX_BLOCK_SAMPLES = 1 << 14
_NEVER = np.int64(1) << 62
_TINY_RATE = 1e-200
_SUM_TOLERANCE = 1e-6
# Up to here sorting a nearly sorted list is faster than a heap.
_FEW_WAITING = 2048


def to_units(weights: np.ndarray, *, one: int = ONE) -> np.ndarray:
    """Round weights to whole units that sum to exactly `one`.

    Args:
        weights: float64 [K], finite, >= 0, with a sum above zero.
        one: Units that make a whole.

    Returns:
        int64 [K]. A positive weight is never rounded to zero; the rounding's remainder goes to the largest weight.
    """
    units = np.rint(weights / weights.sum() * one).astype(np.int64)
    units[(weights > 0) & (units == 0)] = 1
    units[np.argmax(units)] += one - units.sum()
    return units


def read_weights(weights: np.ndarray | Sequence[float], *, num_tasks: int, one: int = ONE) -> np.ndarray:
    """`to_units` of weights that come from outside.

    Raises:
        ConfigError: They are not `num_tasks` finite numbers >= 0 that sum to one.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (num_tasks,):
        raise ConfigError(f"weights have shape {values.shape}; the stream has {num_tasks} tasks")
    total = float(values.sum())
    if not (values.min() >= 0 and np.isfinite(total)):
        task = int(np.argmin(np.where(np.isfinite(values), values, -np.inf)))
        raise ConfigError(f"the weight of task {task} is {values[task]}; give a finite number >= 0")
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise ConfigError(f"weights sum to {total!r}; normalise them to sum to one")
    return to_units(values, one=one)


def apportion_step(debts: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Counts of one step by the rule above, for any debts.

    Args:
        debts: int64 [K] in units, summing to zero.
        rates: int64 [K] in units per step, >= 0, summing to the batch size times `ONE`.

    Returns:
        int64 [K] samples per task, summing to the batch size.
    """
    return apportion_quotas(debts + rates, rates)


def apportion_quotas(quotas: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Counts of one step by the rule above, from the quotas; a batch holds as many samples as the quotas sum to.

    Args:
        quotas: int64 [K] in units, summing to the batch size times `ONE`.
        rates: int64 [K] in units per step, >= 0. They say when the next sample falls due, in whole steps.

    Returns:
        int64 [K] samples per task, summing to the batch size.
    """
    counts = np.maximum(quotas >> UNIT_BITS, 0)
    batch_size = int(quotas.sum() >> UNIT_BITS)
    num_spare = batch_size - int(counts.sum())
    if num_spare < 0:
        return _largest_quotas_first(quotas, counts, batch_size)
    fractions = quotas & (ONE - 1)
    candidates = np.flatnonzero((quotas > 0) & (fractions > 0))
    deadlines = _steps_until_due(ONE - fractions[candidates], rates[candidates])
    counts[candidates[np.argsort(deadlines, kind="stable")[:num_spare]]] += 1
    return counts


def apportion_block(debts: np.ndarray, rates: np.ndarray, *, num_steps: int) -> np.ndarray:
    """Tasks served in the next steps under one plan: what `apportion_step`, step by step, would serve.

    Costs O(K + samples log samples) for the block: every sample's release and deadline are known in closed form, so one
    sort ranks all samples of the block and a queue of ranks runs earliest deadline first. Of the samples released at
    once, as many as the block holds are enough to rank; `_may_be_served` finds their tasks without a sort.

    Args:
        debts: int64 [K] in units, summing to zero.
        rates: int64 [K] in units per step, >= 0, summing to the batch size times `ONE`.
        num_steps: Steps wanted; times the batch size at most `MAX_BLOCK_SAMPLES` (one step is always allowed).

    Returns:
        int32 [S, B], 1 <= S <= num_steps. S is smaller when more falls due in step S + 1 than the batch holds.
    """
    batch_size = int(rates.sum() >> UNIT_BITS)
    claims = debts + num_steps * rates
    active = np.flatnonzero(claims > 0)
    if len(active) > 2 * num_steps * batch_size:
        active = active[_may_be_served(debts[active], rates[active], num_served=num_steps * batch_size)]
    num_released = -(-claims[active] >> UNIT_BITS)
    places = np.repeat(np.arange(len(active)), num_released)
    served_before = (np.arange(len(places)) - (np.cumsum(num_released) - num_released)[places]) << UNIT_BITS
    ahead, own_rates = served_before - debts[active][places], rates[active][places]
    releases = np.maximum(ahead // np.maximum(own_rates, 1), 0)
    deadlines = np.maximum(_steps_until_due(ahead + ONE, own_rates) - 1, 0)

    order = np.argsort(deadlines, kind="stable")
    served_ranks = _earliest_deadline_first(releases[order], num_steps=num_steps, batch_size=batch_size)
    by_rank = deadlines[order]
    steps_served = np.full(len(places), num_steps)
    steps_served[served_ranks] = np.arange(num_steps * batch_size) // batch_size
    overdue = steps_served > by_rank
    num_kept = int(by_rank[np.argmax(overdue)]) if overdue.any() else num_steps
    if num_kept == 0:
        return np.repeat(np.arange(len(debts), dtype=np.int32), apportion_step(debts, rates))[None, :]
    tasks = active.astype(np.int32)[places[order[served_ranks[: num_kept * batch_size]]]]
    return tasks.reshape(num_kept, batch_size)


def _may_be_served(debts: np.ndarray, rates: np.ndarray, *, num_served: int) -> np.ndarray:
    """bool [K]: tasks released later, and of those released at once the first `num_served` by deadline and any ties.

    The jobs of a task left out wait behind more than `num_served` others from the first step to the last. Were one of
    them overdue, so were one of those, and no later. Deadlines are estimated in float64 and rounded up with a margin
    far above its error, which can only let more in; a rate of zero stands as one too small to fall due in time.
    """
    at_once = debts > 0
    place = len(debts) - np.count_nonzero(at_once) + num_served
    if place >= len(debts):
        return np.ones(len(debts), dtype=bool)
    deadlines = np.where(at_once, (ONE - debts) / np.maximum(rates, _TINY_RATE), -np.inf)
    last = np.partition(deadlines, place)[place]
    return deadlines <= np.ceil(max(last, 1.0) * (1 + 1e-9)) * (1 + 1e-9)


def _earliest_deadline_first(releases: np.ndarray, *, num_steps: int, batch_size: int) -> np.ndarray:
    """Ranks in the order served. `releases` [jobs] is the step each rank is released in; a lower rank is due sooner.

    A sorted list is a heap; while few ranks wait, keeping it sorted is cheaper than pushing and popping them.
    """
    by_release = np.argsort(releases, kind="stable")
    ends = np.searchsorted(releases[by_release], np.arange(num_steps), side="right").tolist()
    ranks = by_release.tolist()
    heap: list[int] = []
    served: list[int] = []
    begin = 0
    for end in ends:
        if len(heap) + end - begin <= _FEW_WAITING or begin == 0:
            heap += ranks[begin:end]
            heap.sort()
            served += heap[:batch_size]
            del heap[:batch_size]
        else:
            for rank in ranks[begin:end]:
                heappush(heap, rank)
            served += [heappop(heap) for _ in range(batch_size)]
        begin = end
    return np.array(served, dtype=np.int64)


def _largest_quotas_first(quotas: np.ndarray, num_due: np.ndarray, batch_size: int) -> np.ndarray:
    """Counts when more is due than the batch holds: the largest quota left takes each sample."""
    tasks = np.repeat(np.arange(len(quotas)), num_due)
    first_job = np.cumsum(num_due) - num_due
    levels = quotas[tasks] - ((np.arange(len(tasks)) - first_job[tasks]) << UNIT_BITS)
    chosen = tasks[np.argsort(-levels, kind="stable")[:batch_size]]
    return np.bincount(chosen, minlength=len(quotas))


def _steps_until_due(numerators: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Steps until a target grows by `numerators` (rounded up); `_NEVER` for what is still ahead of a rate of zero."""
    steps = -(-numerators // np.maximum(rates, 1))
    return np.where((rates == 0) & (numerators > 0), _NEVER, steps)
