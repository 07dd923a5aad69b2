"""Which row a task's n-th sample is: each pool of rows is walked through seeded shuffles, one an epoch.

Without difficulty levels a task is one pool. With them each (task, level) is a pool with epochs of its own, and the
samples of a task are dealt (`train.stream.interleave`) between its levels: those of the window in proportion to their
rows, a share `replay_ratio` to the levels below it, in proportion to theirs. What a level was given under earlier
windows is kept as one number per level; what it was given since follows from the task's sample count alone.

A plan may put a task's levels into another order than its rows have (`level_orders`): windows, dealing and replay then
go by places in that order, rows and epochs stay with the levels.

Of a window's n samples a level is given its share to within ceil(log2(levels)) + 1 samples; with every level open and
no replay, exactly its rows in every epoch of the task.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scheduler.errors import ConfigError, DataError, StateError
from scheduler.plan import Window
from train.stream.interleave import MAX_TOTAL, deal, split
from train.stream.permutation import hash_fields, permute

_ROW_STREAM, _LEVEL_STREAM, _DEAL_STREAM = 2, 3, 4
_REPLAY_UNITS = 1 << 30
_STATE_KEYS = frozenset({"windows", "replay", "orders", "begun_at", "level_samples"})


class TaskWalk:
    """Rows of tasks that are one pool each."""

    def __init__(self, num_rows: np.ndarray, *, seed: int) -> None:
        self._num_rows, self._seed = num_rows, seed

    def rows(self, tasks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Rows int64 [N] of each task's sample `numbers` [N], counted from 0 at the start of the run."""
        epochs, positions = np.divmod(numbers, self._num_rows[tasks])
        return permute(positions, self._num_rows[tasks], hash_fields(self._seed, _ROW_STREAM, tasks, epochs))

    def state_dict(self) -> None:
        """Nothing beyond the stream's own counts."""
        return


class LevelWalk:
    """Rows of tasks whose rows are sorted by difficulty level, each level a contiguous range.

    Args:
        level_sizes: Rows per task and level, easiest first; a level may be empty.
        num_rows: int64 [K] rows per task, what the levels add up to.
        seed: Chooses every shuffle.

    Raises:
        ConfigError: The levels do not add up to the rows.
        DataError: A task has 2**31 rows or more.
    """

    def __init__(self, level_sizes: Sequence[Sequence[int]], *, num_rows: np.ndarray, seed: int) -> None:
        if len(level_sizes) != len(num_rows) or [sum(sizes) for sizes in level_sizes] != num_rows.tolist():
            raise ConfigError(
                "level_sizes do not add up to num_rows task by task; give each task the rows of its levels"
            )
        if num_rows.max() > MAX_TOTAL:
            raise DataError(f"a task has {num_rows.max()} rows; with difficulty levels at most {MAX_TOTAL} fit")
        self._seed, self._num_levels = seed, np.array([len(sizes) for sizes in level_sizes], dtype=np.int64)
        self._sizes = np.zeros((len(num_rows), int(self._num_levels.max())), dtype=np.int64)
        for task, sizes in enumerate(level_sizes):
            self._sizes[task, : len(sizes)] = sizes
        self._cuts = np.concatenate([np.zeros((len(num_rows), 1), np.int64), self._sizes.cumsum(axis=1)], axis=1)
        self.restart()

    def restart(self) -> None:
        """Nothing drawn yet, every level open."""
        everything = tuple((0, int(count) - 1) for count in self._num_levels)
        none = np.zeros(len(self._sizes), dtype=np.int64)
        self._begin(everything, 0, (), begun_at=none, level_samples=np.zeros_like(self._sizes))

    def open(
        self,
        windows: Sequence[Window],
        replay_ratio: float,
        *,
        num_samples: np.ndarray,
        orders: Sequence[Sequence[int]] = (),
    ) -> bool:
        """Follow new windows from sample `num_samples` [K] of each task on; answers whether anything changed.

        Args:
            windows: First and last open level per task, from 0; empty: every level. A window beyond a task's levels is
                clipped to its last one; one that holds no row is extended down, then up, until it does.
            replay_ratio: Share of a task's samples from the levels below its window, in [0, 1).
            num_samples: Samples served per task so far.
            orders: Levels by place per task; empty: as the rows have them.

        Raises:
            ConfigError: There is not one window per task, a window is empty, the ratio is out of range, or an order
                does not name each level of its task once.
        """
        windows = tuple(windows) or tuple((0, int(count) - 1) for count in self._num_levels)
        replay = round(replay_ratio * _REPLAY_UNITS)
        level_orders = tuple(tuple(order) for order in orders)
        if (windows, replay, level_orders) == (self._windows, self._replay, self._orders):
            return False
        if len(windows) != len(self._sizes):
            raise ConfigError(
                f"the plan has {len(windows)} difficulty windows; the stream has {len(self._sizes)} tasks"
            )
        if not 0 <= replay_ratio < 1:
            raise ConfigError(f"replay_ratio is {replay_ratio}; give a number in [0, 1)")
        for task, (first, last) in enumerate(windows):
            if not 0 <= first <= last:
                raise ConfigError(f"task {task} has the difficulty window {(first, last)}; give 0 <= first <= last")
        if not self._are_orders(level_orders):
            raise ConfigError("the plan's level_orders do not name every difficulty level of every task once")
        level_samples = self.level_samples(num_samples)
        self._begin(windows, replay, level_orders, begun_at=num_samples.copy(), level_samples=level_samples)
        return True

    def rows(self, tasks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Rows int64 [N] of each task's sample `numbers` [N], which are not before the window's first."""
        since = numbers - self._begun_at[tasks]
        replayed, before = split(
            since, self._replay_shares[tasks], self._replay_totals[tasks], self._replay_keys(tasks)
        )
        first = np.where(replayed, 0, self._first[tasks])
        end = np.where(replayed, self._first[tasks], self._end[tasks])
        dealt = np.where(replayed, before, since - before)
        places, within = deal(self._place_cuts, tasks, dealt, first=first, end=end, seed=self._deal_seed)
        levels = self._level_at[tasks, places]
        sizes = self._sizes[tasks, levels]
        epochs, positions = np.divmod(self._level_samples[tasks, levels] + within, sizes)
        keys = hash_fields(self._seed, _LEVEL_STREAM, tasks, levels, epochs)
        return self._cuts[tasks, levels] + permute(positions, sizes, keys)

    def level_samples(self, num_samples: np.ndarray) -> np.ndarray:
        """int64 [K, L]: samples each level was given in all, once the tasks were served `num_samples` [K]."""
        tasks = np.arange(len(self._sizes))
        since = num_samples - self._begun_at
        _, replayed = split(since, self._replay_shares, self._replay_totals, self._replay_keys(tasks))
        given = self._level_samples.copy()
        for place in range(self._sizes.shape[1]):
            below = place < self._first
            taking = np.flatnonzero(place < self._end)
            first, end = np.where(below, 0, self._first), np.where(below, self._first, self._end)
            dealt = np.where(below, replayed, since - replayed)
            towards = np.full(len(taking), place)
            _, counts = deal(
                self._place_cuts,
                taking,
                dealt[taking],
                first=first[taking],
                end=end[taking],
                seed=self._deal_seed,
                towards=towards,
            )
            given[taking, self._level_at[taking, place]] += counts
        return given

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; lists by task."""
        return {
            "windows": [list(window) for window in self._windows],
            "replay": self._replay,
            "orders": [list(order) for order in self._orders],
            "begun_at": self._begun_at.tolist(),
            "level_samples": self._level_samples.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, num_samples: np.ndarray) -> None:
        """Inverse of `state_dict`.

        Raises:
            StateError: Keys are unknown or missing, or the numbers do not fit these levels or `num_samples` [K].
        """
        if state.keys() != _STATE_KEYS:
            raise StateError(f"stream state: levels have the keys {sorted(state)}, expected {sorted(_STATE_KEYS)}")
        begun_at = np.array(state["begun_at"], dtype=np.int64)
        level_samples = np.array(state["level_samples"], dtype=np.int64)
        orders = tuple(tuple(order) for order in state["orders"])
        fits = (
            self._are_orders(orders)
            and level_samples.shape == self._sizes.shape
            and begun_at.shape == num_samples.shape
            and len(state["windows"]) == len(begun_at)
            and (level_samples >= 0).all()
            and (level_samples.sum(axis=1) == begun_at).all()
            and (begun_at <= num_samples).all()
            and 0 <= state["replay"] < _REPLAY_UNITS
        )
        if not fits:
            raise StateError("stream state: the samples per difficulty level do not fit the tasks' levels and samples")
        windows = tuple((first, last) for first, last in state["windows"])
        self._begin(windows, state["replay"], orders, begun_at=begun_at, level_samples=level_samples)

    @property
    def _deal_seed(self) -> int:
        return self._seed ^ _DEAL_STREAM

    def _replay_keys(self, tasks: np.ndarray) -> np.ndarray:
        return hash_fields(self._seed, _DEAL_STREAM, tasks)

    def _are_orders(self, orders: tuple[tuple[int, ...], ...]) -> bool:
        """Whether these are the levels of every task in some order, or none at all."""
        counts = self._num_levels.tolist()
        return not orders or [sorted(order) for order in orders] == [list(range(count)) for count in counts]

    def _begin(
        self,
        windows: tuple[Window, ...],
        replay: int,
        orders: tuple[tuple[int, ...], ...],
        *,
        begun_at: np.ndarray,
        level_samples: np.ndarray,
    ) -> None:
        self._windows, self._replay, self._orders = windows, replay, orders
        self._begun_at, self._level_samples = begun_at, level_samples
        tasks = np.arange(len(self._sizes))
        self._level_at = np.tile(np.arange(self._sizes.shape[1]), (len(tasks), 1))
        for task, order in enumerate(orders):
            self._level_at[task, : len(order)] = order
        sizes = np.take_along_axis(self._sizes, self._level_at, axis=1)
        self._place_cuts = np.concatenate([np.zeros((len(tasks), 1), np.int64), sizes.cumsum(axis=1)], axis=1)
        asked = np.array(windows, dtype=np.int64)
        first = np.minimum(asked[:, 0], self._num_levels - 1)
        end = np.minimum(asked[:, 1], self._num_levels - 1) + 1
        cuts = self._place_cuts
        first = np.where(cuts[tasks, end] > cuts[tasks, first], first, 0)
        self._first, self._end = first, np.where(cuts[tasks, end] > 0, end, self._num_levels)
        self._replay_shares = np.where(cuts[tasks, first] > 0, replay, 0)
        self._replay_totals = np.full(len(tasks), _REPLAY_UNITS)
