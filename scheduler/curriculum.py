"""The adaptive curriculum: which difficulty levels of each task are open, from its probes of those levels.

    level counts of a signal ─► accuracy on the open levels ─► Wilson bounds ─► rows of passes and of fails
        lower bound > promote_at, `promote_evaluations` in a row ─► phase + 1, levels re-scored
        upper bound < demote_at,  `demote_evaluations` in a row  ─► phase - 1

A task in phase p trains the levels at places p to p + open_levels - 1 of its order of levels (with three levels:
low-mid, mid-high, high) and replays those below. Its order begins as the rows' scores have it. Re-scoring follows the
model: of two neighbours the one that is measured easier beyond doubt (its lower bound above the other's upper) comes
first. Whole levels move, never rows: of single rows the engine knows nothing.

An evaluation that has no probe of a task's open levels neither continues nor ends its rows. The same probes come again
at every evaluation, so five in a row mean that the result is steady, not that it was drawn five times. Where scores
are fractions and not 0 or 1, a "success" is a part of one, and the bounds are wider than they need be.

Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927).

This decides nothing about weights, and draws no row: plans carry windows and orders to the stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.curriculum_config import CurriculumConfig
from scheduler.errors import StateError
from scheduler.evaluation import Evaluation
from scheduler.plan import Window
from scheduler.records import LevelMove

Counts = NDArray[np.int64]
Array = NDArray[np.float64]

_STATE_KEYS = {"phase", "passes", "fails", "orders", "all_open"}


class Curriculum:
    """The levels of every task of a run, K tasks of up to L levels. One `observe` per evaluation.

    Args:
        config: When tasks move.
        names: Of the tasks, in the run's order.
        num_levels: Difficulty levels per task.
    """

    def __init__(self, config: CurriculumConfig, *, names: tuple[str, ...], num_levels: tuple[int, ...]) -> None:
        self.config = config
        self.names = names
        self.num_levels: Counts = np.array(num_levels, dtype=np.int64)
        num_tasks, most = len(names), max(num_levels)
        self._z = NormalDist().inv_cdf(config.confidence)
        self.phase, self.passes, self.fails = (np.zeros(num_tasks, dtype=np.int64) for _ in range(3))
        self.order: Counts = np.tile(np.arange(most), (num_tasks, 1))
        self.all_open = False

    @property
    def last(self) -> Counts:
        """Last open place per task [K]."""
        top = self.num_levels - 1
        return top if self.all_open else np.minimum(self.phase + self.config.open_levels - 1, top)

    def windows(self) -> tuple[Window, ...]:
        """First and last open place per task, for a plan."""
        return tuple(zip(self.phase.tolist(), self.last.tolist(), strict=True))

    def orders(self) -> tuple[tuple[int, ...], ...]:
        """Levels by place per task, for a plan; empty while every task has its rows' own order."""
        if self._in_rows_order():
            return ()
        return tuple(self._order_of(task) for task in range(len(self.names)))

    def _in_rows_order(self) -> bool:
        return bool((self.order == np.arange(self.order.shape[1])).all())

    def observe(self, evaluation: Evaluation, *, progress: float) -> tuple[LevelMove, ...]:
        """Fold in one evaluation; answer which tasks' windows move with the next plan, in the order of the tasks.

        Args:
            evaluation: Its signals; tasks without counts by level stay as they are.
            progress: Share of the run that is over when the next plan begins.
        """
        probes, successes = evaluation.level_probes, evaluation.level_successes
        found = self._judge(probes, successes)
        config, judged = self.config, found.num_probes > 0
        passed, failed = found.lower > config.promote_at, found.upper < config.demote_at
        self.passes = np.where(judged, np.where(passed, self.passes + 1, 0), self.passes)
        self.fails = np.where(judged, np.where(failed, self.fails + 1, 0), self.fails)
        rises = judged & (self.passes >= config.promote_evaluations) & (self.phase < self.num_levels - 1)
        falls = judged & (self.fails >= config.demote_evaluations) & (self.phase > 0)
        moves = [self._promote(task, found, probes, successes) for task in np.flatnonzero(rises).tolist()]
        moves += [self._demote(task, found) for task in np.flatnonzero(falls).tolist()]
        return (*moves, *self._open_all(progress))

    def _judge(self, probes: Array, successes: Array) -> "_Found":
        """What the probes [L, K] of the levels now open say."""
        if not self._in_rows_order():
            probes, successes = (np.take_along_axis(counts, self.order.T, axis=0) for counts in (probes, successes))
        last, places = self.last, range(self.order.shape[1])
        is_open = np.array([(self.phase <= place) & (place <= last) for place in places])
        num_probes, right = ((counts * is_open).sum(axis=0) for counts in (probes, successes))
        return _Found(num_probes, right, *wilson(right, num_probes, self._z))

    def _promote(self, task: int, found: "_Found", probes: Array, successes: Array) -> LevelMove:
        before, row = self._order_of(task), int(self.passes[task])
        if self.config.rescore:
            after = rescored(before, *wilson(successes[:, task], probes[:, task], self._z))
            self.order[task, : len(after)] = after
        self._enter(task, int(self.phase[task]) + 1)
        threshold = self.config.promote_at
        return self._move("promoted", task, before, found, float(found.lower[task]), threshold, row)

    def _demote(self, task: int, found: "_Found") -> LevelMove:
        row = int(self.fails[task])
        self._enter(task, int(self.phase[task]) - 1)
        bound, threshold = float(found.upper[task]), self.config.demote_at
        return self._move("demoted", task, self._order_of(task), found, bound, threshold, row)

    def _enter(self, task: int, phase: int) -> None:
        self.phase[task], self.passes[task], self.fails[task] = phase, 0, 0

    def _move(
        self, kind: str, task: int, before: tuple[int, ...], found: "_Found", bound: float, threshold: float, row: int
    ) -> LevelMove:
        return LevelMove(
            task=self.names[task],
            kind=kind,
            window=(int(self.phase[task]), int(self.last[task])),
            order=self._order_of(task),
            order_before=before,
            num_successes=float(found.num_successes[task]),
            num_probes=int(found.num_probes[task]),
            bound=bound,
            threshold=threshold,
            num_evaluations=row,
        )

    def _open_all(self, progress: float) -> tuple[LevelMove, ...]:
        after = self.config.open_all_after
        if self.all_open or after is None or progress < after:
            return ()
        short = np.flatnonzero(self.last < self.num_levels - 1).tolist()
        self.all_open = True
        windows, orders = self.windows(), [self._order_of(task) for task in short]
        return tuple(
            LevelMove(self.names[task], "opened", windows[task], order, order)
            for task, order in zip(short, orders, strict=True)
        )

    def _order_of(self, task: int) -> tuple[int, ...]:
        return tuple(self.order[task, : self.num_levels[task]].tolist())

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy."""
        return {
            "phase": self.phase.tolist(),
            "passes": self.passes.tolist(),
            "fails": self.fails.tolist(),
            "orders": [list(order) for order in self.orders()],
            "all_open": self.all_open,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys, or where it is of other tasks."""
        if state.keys() != _STATE_KEYS:
            raise StateError(f"curriculum state has the keys {sorted(state)}; expected {sorted(_STATE_KEYS)}")
        columns = {name: np.array(state[name], dtype=np.int64) for name in ("phase", "passes", "fails")}
        orders = state["orders"]
        fits = (
            all(column.shape == self.phase.shape and (column >= 0).all() for column in columns.values())
            and (columns["phase"] < self.num_levels).all()
            and len(orders) in (0, len(self.names))
            and all(sorted(order) == list(range(n)) for order, n in zip(orders, self.num_levels.tolist(), strict=False))
        )
        if not fits:
            raise StateError("curriculum state is not one of this run's tasks and difficulty levels")
        self.phase, self.passes, self.fails = columns["phase"], columns["passes"], columns["fails"]
        self.order = np.tile(np.arange(self.order.shape[1]), (len(self.names), 1))
        for task, order in enumerate(orders):
            self.order[task, : len(order)] = order
        self.all_open = state["all_open"]


@dataclass(frozen=True, slots=True)
class _Found:
    """Arrays [K]: probes of the open levels, right answers among them, Wilson bounds of the accuracy."""

    num_probes: Array
    num_successes: Array
    lower: Array
    upper: Array


def wilson(successes: Array, num_probes: Array, z: float) -> tuple[Array, Array]:
    """Lower and upper bound of a proportion, `z` standard errors away; (0, 1) where nothing was measured."""
    count = np.maximum(num_probes, 1.0)
    share = successes / count
    scale = 1.0 + z * z / count
    centre = share + z * z / (2.0 * count)
    margin = z * np.sqrt(np.maximum(share * (1.0 - share), 0.0) / count + z * z / (4.0 * count * count))
    measured = num_probes > 0
    lower = np.clip((centre - margin) / scale, 0.0, 1.0)
    upper = np.clip((centre + margin) / scale, 0.0, 1.0)
    return np.where(measured, lower, 0.0), np.where(measured, upper, 1.0)


def rescored(order: tuple[int, ...], lower: Array, upper: Array) -> tuple[int, ...]:
    """The order after neighbours have changed places until none is easier beyond doubt than the one before it.

    "Easier beyond doubt" (lower bound above the other's upper) is a partial order, and every exchange undoes one
    inversion of it, so this ends.

    Args:
        order: Levels by place.
        lower: Bounds of the accuracy by level.
        upper: See `lower`.
    """
    places = list(order)
    place = 0
    while place + 1 < len(places):
        first, second = places[place], places[place + 1]
        if lower[second] > upper[first]:
            places[place], places[place + 1] = second, first
            place = max(place - 1, 0)
        else:
            place += 1
    return tuple(places)
