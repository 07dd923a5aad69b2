"""The mixture stream: which rows are trained at which step, in which slot of the global batch.

    weights ──► apportion: tasks of each step ──► slots shuffled by (seed, step) ──► rows by (seed, task, epoch)

The stream is a function of (seed, step, plans so far). Nothing in it depends on the number of workers: it yields
the global batch, and ranks take their slots of it elsewhere. Each task walks through seeded shuffles of its rows,
one an epoch, from where it stopped, whatever the weights did in between; so counts alone are the whole state.

Steps are worked out a block at a time under the plan in force; a new plan throws the rest of the block away, so no
batch drawn under an older plan is ever handed out. The block's length does not change what is drawn.

What this does not do: read rows, tokenise, or decide weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scheduler.errors import ConfigError, DataError, StateError
from train.stream.apportion import MAX_BATCH_SIZE, MAX_BLOCK_SAMPLES, ONE, apportion_block, to_units
from train.stream.permutation import hash_fields, permute

HASH_MASK = (1 << 63) - 1
_SLOT_STREAM, _ROW_STREAM = 1, 2
_FIRST_LOOKAHEAD_STEPS = 16
_STATE_KEYS = frozenset({"seed", "batch_size", "num_rows", "step", "num_samples", "debts", "weights"})


@dataclass(frozen=True, slots=True)
class Batch:
    """The global batch of one optimiser step, in slot order.

    Attributes:
        step: The optimiser step, from 0.
        tasks: int32 [B], index of each slot's task.
        rows: int64 [B], each slot's row within its task.
    """

    step: int
    tasks: np.ndarray
    rows: np.ndarray


def add_hashes(first: int, second: int) -> int:
    """Hash of the union of two disjoint sets of samples."""
    return (first + second) & HASH_MASK


def slots_hash(step: int, slots: np.ndarray, tasks: np.ndarray, rows: np.ndarray) -> int:
    """Order-independent hash of (step, slot, task, row) tuples: their 64-bit hashes summed modulo 2**63.

    Hashes of disjoint sets of slots add up, modulo 2**63, to the hash of their union: ranks hash what they trained, the
    sum is compared with the stream's own.

    Args:
        step: The optimiser step all slots belong to.
        slots: int [N] positions in the global batch.
        tasks: int [N].
        rows: int [N].
    """
    if not len(slots) == len(tasks) == len(rows):
        raise ValueError(f"slots, tasks and rows differ in length: {len(slots)}, {len(tasks)}, {len(rows)}")
    return int(hash_fields(step, slots, tasks, rows).sum(dtype=np.uint64)) & HASH_MASK if len(slots) else 0


def sequence_hash(batch: Batch) -> int:
    """`slots_hash` of a whole batch."""
    return slots_hash(batch.step, np.arange(len(batch.tasks)), batch.tasks, batch.rows)


class MixtureStream:
    """Global batches whose shares follow the weights to within one sample at every step.

    Args:
        num_rows: Rows per task, in the order of the plan's weights; each at least one.
        batch_size: Samples per optimiser step over all workers.
        seed: Chooses every shuffle; 0 <= seed < 2**63.

    Raises:
        DataError: A task has no rows.
        ConfigError: There is no task, or batch size or seed is out of range.
    """

    def __init__(self, *, num_rows: Sequence[int], batch_size: int, seed: int) -> None:
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
        self._batch_size = batch_size
        self._seed = seed
        self._weights: np.ndarray | None = None
        self._restart(step=0, served=np.zeros(self.num_tasks, np.int64), debts=np.zeros(self.num_tasks, np.int64))

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
        return self._served + self._block_counts()

    @property
    def epochs(self) -> np.ndarray:
        """float64 [K]: samples served per task since step 0, divided by its rows."""
        return self.num_samples / self._num_rows

    @property
    def debts(self) -> np.ndarray:
        """float64 [K]: cumulative target minus samples served, in samples; exact."""
        return self._debt_units() / ONE

    @property
    def weights(self) -> np.ndarray | None:
        """float64 [K]: the weights in force, rounded to multiples of 2**-44; None before the first `set_weights`."""
        return None if self._weights is None else self._weights / ONE

    def set_weights(self, weights: np.ndarray | Sequence[float]) -> None:
        """Follow new weights from the very next batch on; what each task is owed or ahead by is carried over.

        Args:
            weights: float [K], finite, >= 0, summing to one. A task of weight 0 is served at most the one sample it may
                still be owed (see `train.stream.apportion`).

        Raises:
            ConfigError: The weights are not such numbers.
        """
        values = np.asarray(weights, dtype=np.float64)
        if values.shape != (self.num_tasks,):
            raise ConfigError(f"weights have shape {values.shape}; the stream has {self.num_tasks} tasks")
        if not np.isfinite(values).all() or (values < 0).any():
            task = int(np.argmin(np.where(np.isfinite(values), values, -np.inf)))
            raise ConfigError(f"the weight of task {task} is {values[task]}; give a finite number >= 0")
        if abs(values.sum() - 1.0) > 1e-6:
            raise ConfigError(f"weights sum to {float(values.sum())!r}; normalise them to sum to one")
        units = to_units(values)
        if self._weights is None or not np.array_equal(units, self._weights):
            self._fold()
            self._weights = units

    def next_batch(self) -> Batch:
        """Draw the batch of the current step and move to the next.

        Raises:
            ConfigError: No weights were set.
        """
        if self._position == len(self._schedule):
            self._plan_block()
        if self._drawn is None:
            tasks = _shuffle_slots(self._schedule, first_step=self._block_step, seed=self._seed)
            rows = _assign_rows(tasks, served=self._served, num_rows=self._num_rows, seed=self._seed)
            self._drawn = tasks, rows
        tasks, rows = self._drawn
        batch = Batch(self.step, tasks[self._position], rows[self._position])
        self._position += 1
        return batch

    def skip(self, num_steps: int) -> None:
        """Move `num_steps` on under the weights in force without drawing rows."""
        while num_steps > 0:
            if self._position == len(self._schedule):
                self._plan_block()
            stride = min(num_steps, len(self._schedule) - self._position)
            self._position += stride
            num_steps -= stride

    def replay(self, plans: Sequence[tuple[int, np.ndarray]], *, step: int) -> None:
        """Move to where a stream stands that followed `plans` from step 0 up to `step`.

        Args:
            plans: (first step in force, weights [K]), by rising step, the first at step 0. Those that start after
            `step`
                are ignored.
            step: The step to stand at, that is, the next one to be drawn.

        Raises:
            ConfigError: The plans do not start at step 0 or are out of order.
        """
        starts = [start for start, _ in plans]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            raise ConfigError(f"plans start at steps {starts}; give them in order, the first from step 0")
        self._restart(step=0, served=np.zeros(self.num_tasks, np.int64), debts=np.zeros(self.num_tasks, np.int64))
        for start, weights in plans:
            if start > step:
                break
            self.skip(start - self.step)
            self.set_weights(weights)
        self.skip(step - self.step)

    def state_dict(self) -> dict[str, Any]:
        """The whole state as plain numbers, exact in JSON."""
        return {
            "seed": self._seed,
            "batch_size": self._batch_size,
            "num_rows": self._num_rows.tolist(),
            "step": self.step,
            "num_samples": self.num_samples.tolist(),
            "debts": self.debts.tolist(),
            "weights": None if self.weights is None else self.weights.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            StateError: Keys are unknown or missing, the state is of another stream (seed, batch size or rows
            differ), or its
                numbers contradict each other.
        """
        if state.keys() != _STATE_KEYS:
            missing, unknown = sorted(_STATE_KEYS - state.keys()), sorted(state.keys() - _STATE_KEYS)
            raise StateError(f"stream state: missing keys {missing}, unknown keys {unknown}")
        if len(state["num_rows"]) != self.num_tasks:
            raise StateError(f"stream state has {len(state['num_rows'])} tasks, this stream {self.num_tasks}")
        own = self.state_dict()
        for key in ("seed", "batch_size", "num_rows"):
            if state[key] != own[key]:
                raise StateError(
                    f"stream state: {key} is {state[key]}, this stream has {own[key]}; "
                    "resume with the data and settings it was saved with"
                )
        step, served = state["step"], np.array(state["num_samples"], dtype=np.int64)
        debts = self._read_units(state, "debts", total=0)
        if served.shape != (self.num_tasks,) or (served < 0).any() or served.sum() != step * self._batch_size:
            raise StateError(f"stream state: num_samples do not add up to {step} steps of {self._batch_size} samples")
        self._weights = None if state["weights"] is None else self._read_units(state, "weights", total=ONE)
        self._restart(step=step, served=served, debts=debts)

    def _read_units(self, state: Mapping[str, Any], key: str, *, total: int) -> np.ndarray:
        scaled = np.array(state[key], dtype=np.float64) * ONE
        if scaled.shape != (self.num_tasks,) or not np.isfinite(scaled).all() or (scaled != np.rint(scaled)).any():
            raise StateError(f"stream state: {key} are not {self.num_tasks} multiples of 2**-44")
        units = scaled.astype(np.int64)
        if units.sum() != total:
            raise StateError(f"stream state: {key} sum to {units.sum() / ONE}, expected {total / ONE}")
        return units

    def _restart(self, *, step: int, served: np.ndarray, debts: np.ndarray) -> None:
        """Stand at `step` with nothing planned ahead."""
        self._block_step, self._served, self._block_debts = step, served, debts
        self._schedule = np.empty((0, self._batch_size), dtype=np.int32)
        self._drawn: tuple[np.ndarray, np.ndarray] | None = None
        self._position = 0
        self._lookahead_steps = _FIRST_LOOKAHEAD_STEPS

    def _block_counts(self) -> np.ndarray:
        """int64 [K]: samples served in the current block so far."""
        return np.bincount(self._schedule[: self._position].ravel(), minlength=self.num_tasks)

    def _debt_units(self) -> np.ndarray:
        if self._weights is None or self._position == 0:
            return self._block_debts
        target = self._position * self._batch_size * self._weights
        return self._block_debts + target - self._block_counts() * ONE

    def _fold(self) -> None:
        """Make the current step the start of an empty block; whatever was planned beyond it is dropped."""
        self._restart(step=self.step, served=self.num_samples, debts=self._debt_units())

    def _plan_block(self) -> None:
        """Plan a few steps after a change of plan, then twice as many each time, until remainders are in the way."""
        if self._weights is None:
            raise ConfigError("the mixture stream has no weights yet; call set_weights before the first batch")
        longest = max(1, MAX_BLOCK_SAMPLES // self._batch_size)
        lookahead_steps = min(self._lookahead_steps, longest)
        self._fold()
        self._schedule = apportion_block(self._block_debts, self._weights * self._batch_size, num_steps=lookahead_steps)
        if len(self._schedule) == lookahead_steps:
            self._lookahead_steps = 2 * lookahead_steps


def _shuffle_slots(schedule: np.ndarray, *, first_step: int, seed: int) -> np.ndarray:
    """Put each step's tasks [S, B] into a slot order that depends on (seed, step) alone."""
    num_steps, batch_size = schedule.shape
    slot_bits = (1 << (batch_size - 1).bit_length()) - 1
    steps, slots = np.arange(first_step, first_step + num_steps)[:, None], np.arange(batch_size, dtype=np.uint64)
    keys = hash_fields(seed, _SLOT_STREAM, steps, slots) & np.uint64(~slot_bits & (1 << 64) - 1) | slots
    order = (np.sort(keys, axis=1) & np.uint64(slot_bits)).astype(np.int64)
    return np.take_along_axis(np.sort(schedule, axis=1), order, axis=1)


def _assign_rows(tasks: np.ndarray, *, served: np.ndarray, num_rows: np.ndarray, seed: int) -> np.ndarray:
    """Rows int64 [S, B]: each task continues its walk through its shuffles after `served` [K] samples."""
    flat = tasks.ravel().astype(np.int64)
    place_bits = max(1, (flat.size - 1).bit_length())
    by_task = np.sort(flat << place_bits | np.arange(flat.size)) & (1 << place_bits) - 1
    counts = np.bincount(flat, minlength=len(served))
    starts = np.cumsum(counts) - counts
    occurrence = np.empty_like(flat)
    occurrence[by_task] = np.arange(flat.size) - starts[flat[by_task]]
    epochs, positions = np.divmod(served[flat] + occurrence, num_rows[flat])
    keys = hash_fields(seed, _ROW_STREAM, flat, epochs)
    return permute(positions, num_rows[flat], keys).reshape(tasks.shape)
