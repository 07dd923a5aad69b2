"""The mixture stream: which rows are trained at which step, in which slot of the global batch.

    weights ──► apportion | tokens: tasks of each step ──► slots shuffled by (seed, step)
                                                              │ each task's n-th sample
                                    repetition: caps          ├─► walk: its level and row, by (seed, task, level, epoch)
                                                              └─► arrange: single, chain or contrast

The stream is a function of (seed, step, plans so far). Nothing in it depends on the number of workers: it yields
the global batch, and ranks take their slots of it elsewhere. Which row, level and arrangement a task's n-th sample has
is a closed form of n, whatever the weights did in between; so counts alone are the whole state.

Steps are worked out a block at a time under the plan in force; a new plan throws the rest of the block away, so no
batch drawn under an older plan is ever handed out. The block's length does not change what is drawn.

What this does not do: read rows, tokenise, or decide weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from scheduler.errors import ConfigError, DataError
from scheduler.plan import MixturePlan
from scheduler.task import Repetition
from train.stream.apportion import MAX_BATCH_SIZE, ONE, read_weights
from train.stream.arrange import ArrangementDeal
from train.stream.batch import HASH_MASK, Batch
from train.stream.blocks import Block, SamplePlanner, Standing, TokenPlanner, longest_block
from train.stream.lengths import RowLengths
from train.stream.repetition import Limits
from train.stream.slots import occurrences, shuffle_slots
from train.stream.state import check_settings, read_standing, read_units
from train.stream.tokens import TOKEN_ONE
from train.stream.walk import LevelWalk, TaskWalk

_FIRST_LOOKAHEAD_STEPS = 32


class MixtureStream:
    """Global batches whose shares follow the weights exactly: to within one sample at every step under one plan.

    With `supervised_lengths` a weight is a share of supervised tokens instead, and what a task was served stays within
    the longest row's tokens of its target. A step holds `batch_size` samples either way.

    Args:
        num_rows: Rows per task, in the order of the plan's weights; each at least one.
        batch_size: Samples per optimiser step over all workers.
        seed: Chooses every shuffle; 0 <= seed < 2**63.
        level_sizes: Rows per task and difficulty level, easiest first, rows sorted by level; empty: one pool a task.
        repetition: How often each task's rows may be trained and what follows; empty: without end.
        supervised_lengths: int [rows] per task, each 1 to 2**16, in row order: weights are shares of tokens.
            None: of samples.
        lookahead_steps: Most steps planned at first after a change of plan, fewer if the plan before lasted fewer;
            what is drawn does not depend on it.

    Raises:
        DataError: A task has no rows, or a row no supervised token, or too many.
        ConfigError: There is no task, a setting is out of range, or per-task settings are not one per task.
    """

    def __init__(
        self,
        *,
        num_rows: Sequence[int],
        batch_size: int,
        seed: int,
        level_sizes: Sequence[Sequence[int]] = (),
        repetition: Sequence[Repetition] = (),
        supervised_lengths: Sequence[np.ndarray] | None = None,
        lookahead_steps: int = _FIRST_LOOKAHEAD_STEPS,
    ) -> None:
        self._num_rows = np.array(num_rows, dtype=np.int64)
        if self._num_rows.size == 0:
            raise ConfigError("num_rows is empty: a mixture stream needs at least one task")
        if (self._num_rows < 1).any():
            task = int(np.argmax(self._num_rows < 1))
            raise DataError(f"task {task} has {self._num_rows[task]} rows to train on; leave it out of the mixture")
        if not 1 <= batch_size <= MAX_BATCH_SIZE:
            raise ConfigError(f"batch_size is {batch_size}; the mixture stream takes 1 to {MAX_BATCH_SIZE}")
        if not 0 <= seed <= HASH_MASK:
            raise ConfigError(f"seed is {seed}; the mixture stream takes 0 to 2**63 - 1")
        self._batch_size, self._seed, self._first_lookahead = batch_size, seed, lookahead_steps
        self._levels = LevelWalk(level_sizes, num_rows=self._num_rows, seed=seed) if level_sizes else None
        self._tasks = TaskWalk(self._num_rows, seed=seed)
        self._arrangements = ArrangementDeal(self.num_tasks, seed=seed)
        self._limits = Limits(repetition, num_rows=self._num_rows)
        fingerprint = None
        if supervised_lengths is None:
            self._one, self._planner = ONE, SamplePlanner(batch_size=batch_size, limits=self._limits)
        else:
            lengths = RowLengths(supervised_lengths, num_rows=self._num_rows)
            lengths_at = partial(self._lengths_at, lengths)
            planner = TokenPlanner(
                batch_size=batch_size, limits=self._limits, mean_lengths=lengths.means, lengths_at=lengths_at
            )
            self._one, self._planner, fingerprint = TOKEN_ONE, planner, lengths.fingerprint()
        self._settings = {
            "seed": seed,
            "batch_size": batch_size,
            "num_rows": self._num_rows.tolist(),
            "level_sizes": [list(sizes) for sizes in level_sizes],
            "repetition": self._limits.describe(),
            "supervised_lengths": fingerprint,
        }
        self._begin()

    @property
    def num_tasks(self) -> int:
        """Number of tasks, K."""
        return len(self._num_rows)

    @property
    def step(self) -> int:
        """The next step to be drawn: steps [0, step) are done."""
        return self._block_step + self._position

    @property
    def num_samples(self) -> np.ndarray:
        """int64 [K]: samples served per task since step 0."""
        return self._standing().served

    @property
    def epochs(self) -> np.ndarray:
        """float64 [K]: samples served per task since step 0, divided by its rows."""
        return self.num_samples / self._num_rows

    @property
    def level_samples(self) -> np.ndarray:
        """int64 [K, L]: samples served per task and difficulty level; [K, 1] without levels."""
        served = self.num_samples
        return served[:, None] if self._levels is None else self._levels.level_samples(served)

    @property
    def debts(self) -> np.ndarray:
        """float64 [K]: cumulative target minus what was served, in samples (tokens if weights are shares of those)."""
        return self._standing().debts / self._one

    @property
    def weights(self) -> np.ndarray | None:
        """float64 [K]: the plan's weights, rounded to whole units; None before the first plan."""
        return None if self._weights is None else self._weights / self._one

    @property
    def used_up(self) -> np.ndarray:
        """bool [K]: tasks that left the mixture because their rows were used up."""
        return self._standing().left

    @property
    def ended(self) -> bool:
        """Whether the next step cannot be filled under the plan in force; a new plan may go on.

        Either a task under `stop` would have to give more than it has, or no task with a weight has anything left.
        """
        if self._weights is None or self._limits.is_open or self._position < self._num_planned:
            return False
        self._plan_block()
        return self._num_planned == 0

    def follow(self, plan: MixturePlan) -> None:
        """Follow a plan from the very next batch on: weights, arrangement, difficulty windows and replay ratio.

        What each task is owed or ahead by is carried over. Arrangements and levels are dealt afresh from here if their
        shares or windows changed.

        Raises:
            ConfigError: The weights, shares or windows are not such, or there are windows but no difficulty levels.
        """
        if plan.windows and self._levels is None:
            raise ConfigError("the plan has difficulty windows, but the stream was built without level_sizes")
        units = read_weights(plan.weights, num_tasks=self.num_tasks, one=self._one)
        standing = self._standing()
        changed = self._arrangements.follow(plan.arrangement, num_samples=standing.served)
        if self._levels is not None:
            changed |= self._levels.open(
                plan.windows, plan.replay_ratio, num_samples=standing.served, orders=plan.level_orders
            )
        self._take(units, changed=changed)

    def set_weights(self, weights: np.ndarray | Sequence[float]) -> None:
        """Follow new weights from the very next batch on; all else stays, remainders are carried over.

        Args:
            weights: float [K], finite, >= 0, summing to one. A task of weight 0 is served at most what it may still be
                owed (see `train.stream.apportion`).

        Raises:
            ConfigError: The weights are not such numbers.
        """
        self._take(read_weights(weights, num_tasks=self.num_tasks, one=self._one), changed=False)

    def next_batch(self) -> Batch:
        """Draw the batch of the current step and move to the next.

        Raises:
            ConfigError: No plan was given.
            DataError: The stream has ended: see `ended`.
        """
        if self._position == self._num_planned:
            self._advance_block()
        if self._slots is None:
            self._slots = self._draw_slots()
        tasks, rows, arrangements = next(self._slots)
        batch = Batch(self._block_step + self._position, tasks, rows, arrangements)
        self._position += 1
        return batch

    def skip(self, num_steps: int) -> None:
        """Move `num_steps` on under the plan in force without drawing rows.

        Raises:
            ConfigError: No plan was given.
            DataError: The stream ends before.
        """
        while num_steps > 0:
            if self._position == self._num_planned:
                self._advance_block()
            stride = min(num_steps, self._num_planned - self._position)
            self._position += stride
            self._slots = None
            num_steps -= stride

    def replay(self, plans: Sequence[tuple[int, MixturePlan | np.ndarray | Sequence[float]]], *, step: int) -> None:
        """Move to where a stream stands that followed `plans` from step 0 up to `step`.

        Args:
            plans: (first step in force, plan or weights [K]), by rising step, the first at step 0. Those that start
                after `step` are ignored.
            step: The step to stand at, that is, the next one to be drawn.

        Raises:
            ConfigError: The plans do not start at step 0 or are out of order.
        """
        starts = [start for start, _ in plans]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            raise ConfigError(f"plans start at steps {starts}; give them in order, the first from step 0")
        self._begin()
        for start, plan in plans:
            if start > step:
                break
            self.skip(start - self.step)
            if isinstance(plan, MixturePlan):
                self.follow(plan)
            else:
                self.set_weights(plan)
        self.skip(step - self.step)

    def state_dict(self) -> dict[str, Any]:
        """The whole state as plain whole numbers, exact in JSON; per-task lists only, whatever was drawn."""
        standing = self._standing()
        return {
            **self._settings,
            "step": self.step,
            "num_samples": standing.served.tolist(),
            "debts": standing.debts.tolist(),
            "weights": None if self._weights is None else self._weights.tolist(),
            "left": np.flatnonzero(standing.left).tolist(),
            "levels": None if self._levels is None else self._levels.state_dict(),
            "arrangement": self._arrangements.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; a state that is refused changes nothing.

        Raises:
            StateError: Keys are unknown or missing, the state is of another stream (seed, batch size, rows, levels,
                repetition or lengths differ), or its numbers contradict each other.
        """
        check_settings(state, self._settings)
        standing = read_standing(state, num_tasks=self.num_tasks, batch_size=self._batch_size)
        weights = state["weights"]
        if weights is not None:
            weights = read_units(state, "weights", num_tasks=self.num_tasks, total=self._one)
        arrangements, levels = copy(self._arrangements), copy(self._levels)
        arrangements.load_state_dict(state["arrangement"], num_samples=standing.served)
        if levels is not None:
            levels.load_state_dict(state["levels"], num_samples=standing.served)
        self._weights, self._arrangements, self._levels = weights, arrangements, levels
        self._restart(state["step"], standing)

    def _lengths_at(self, lengths: RowLengths, tasks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        return lengths.at(tasks, self._walk.rows(tasks, numbers))

    @property
    def _walk(self) -> TaskWalk | LevelWalk:
        return self._tasks if self._levels is None else self._levels

    def _take(self, units: np.ndarray, *, changed: bool) -> None:
        if changed or self._weights is None or not np.array_equal(units, self._weights):
            num_steps_lasted = self.step - self._plan_begun_at
            self._restart(self.step, self._standing())
            self._weights = units
            self._lookahead_steps = min(num_steps_lasted or self._first_lookahead, self._first_lookahead)

    def _begin(self) -> None:
        """Stand at step 0 without a plan."""
        self._weights: np.ndarray | None = None
        self._arrangements.restart()
        if self._levels is not None:
            self._levels.restart()
        nothing = np.zeros(self.num_tasks, dtype=np.int64)
        self._restart(0, Standing(nothing, nothing, np.zeros(self.num_tasks, dtype=bool)))

    def _restart(self, step: int, standing: Standing) -> None:
        """Stand at `step` with nothing planned ahead."""
        self._stand(step, Block(standing, standing.served, np.empty((0, self._batch_size), dtype=np.int32)))
        self._plan_begun_at, self._lookahead_steps = step, self._first_lookahead

    def _stand(self, step: int, block: Block) -> None:
        self._block, self._block_step, self._position = block, step, 0
        self._num_planned = len(block.tasks)
        self._slots: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def _standing(self) -> Standing:
        return self._block.standing(self._position)

    def _advance_block(self) -> None:
        self._plan_block()
        if self._num_planned == 0:
            used = np.flatnonzero(self.num_samples >= self._limits.caps).tolist()
            raise DataError(
                f"the stream ended at step {self.step}: the rows of tasks {used[:10]} are used up as often as their "
                "repetition.max_epochs allows, and the step cannot be filled; raise it, or train for fewer steps"
            )

    def _plan_block(self) -> None:
        """Plan as many steps as the last plan lasted, then twice as many each time, until remainders are in the way."""
        if self._weights is None:
            raise ConfigError("the mixture stream has no weights yet; call set_weights before the first batch")
        num_steps = min(self._lookahead_steps, longest_block(self._batch_size))
        self._stand(self.step, self._planner.plan(self._standing(), self._weights, num_steps=num_steps))
        self._lookahead_steps = 2 * max(1, self._num_planned)

    def _draw_slots(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(tasks, rows, arrangements) of the planned steps that are left, each [B] in slot order."""
        shape = self._block.tasks.shape
        tasks = shuffle_slots(self._block.tasks, first_step=self._block_step, seed=self._seed)
        numbers = self._block.start.served[tasks] + occurrences(tasks)
        drawn = (tasks.astype(np.int32), self._walk.rows(tasks, numbers), self._arrangements.codes(tasks, numbers))
        return islice(zip(*(each.reshape(shape) for each in drawn), strict=True), self._position, None)
