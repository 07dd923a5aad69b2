"""Who takes part in `bench.mixture`: ours in four forms, and the samplers people use instead.

Every contender is an endless iterator of batches of 16 over tasks of 100 rows each under given weights. Its package is
imported only when it is built.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from scheduler.plan import MixturePlan
from train.stream.mixture import MixtureStream

BATCH_SIZE = 16
ROWS_PER_TASK = 100
STEPS_PER_PLAN = 25
NUM_PLANS = 40
SIZES = (10, 100, 1_000, 10_000)
TORCHDATA = "torchdata MultiNodeWeightedSampler"

Sampler = Iterator[Any]


def skewed(num_tasks: int) -> np.ndarray:
    """float64 [K] weights every contender follows."""
    return np.random.default_rng(num_tasks).dirichlet(np.ones(num_tasks))


def new_stream(num_tasks: int, **settings: Any) -> MixtureStream:
    """Ours over `num_tasks` tasks of `ROWS_PER_TASK` rows."""
    return MixtureStream(num_rows=[ROWS_PER_TASK] * num_tasks, batch_size=BATCH_SIZE, seed=0, **settings)


def stream_batches(weights: np.ndarray) -> Sampler:
    """Ours: one batch an item, one plan throughout."""
    stream = new_stream(len(weights))
    stream.set_weights(weights)
    while True:
        yield stream.next_batch()


def replanned_batches(weights: np.ndarray) -> Sampler:
    """Ours with other weights every 25 steps; the weights are worked out beforehand."""
    rng = np.random.default_rng(1)
    tilted = weights * np.exp(rng.normal(0.0, 0.2, (NUM_PLANS, len(weights))))
    stream = new_stream(len(weights))
    for plan in itertools.cycle(tilted / tilted.sum(axis=1, keepdims=True)):
        stream.set_weights(plan)
        for _ in range(STEPS_PER_PLAN):
            yield stream.next_batch()


def token_batches(weights: np.ndarray) -> Sampler:
    """Ours with weights that are shares of supervised tokens, 1 to 200 a row."""
    rng = np.random.default_rng(2)
    lengths = list(rng.integers(1, 201, size=(len(weights), ROWS_PER_TASK)))
    stream = new_stream(len(weights), supervised_lengths=lengths)
    stream.set_weights(weights)
    while True:
        yield stream.next_batch()


def levelled_batches(weights: np.ndarray) -> Sampler:
    """Ours with three difficulty levels, a window with replay, and all three arrangements."""
    stream = new_stream(len(weights), level_sizes=[(50, 30, 20)] * len(weights))
    stream.follow(
        MixturePlan(
            version=0,
            source_step=-1,
            effective_from_step=0,
            stage=1,
            stage_start_step=0,
            weights=tuple(weights.tolist()),
            arrangement=(0.5, 0.3, 0.2),
            windows=((1, 2),) * len(weights),
            replay_ratio=0.1,
        )
    )
    while True:
        yield stream.next_batch()


def weighted_random_batches(weights: np.ndarray) -> Sampler:
    """torch: rows drawn with replacement, 1,000 batches a draw; an index stands for (task, row)."""
    from torch.utils.data import BatchSampler, WeightedRandomSampler

    row_weights = np.repeat(weights / ROWS_PER_TASK, ROWS_PER_TASK)
    sampler = WeightedRandomSampler(row_weights.tolist(), num_samples=1000 * BATCH_SIZE, replacement=True)
    while True:
        yield from BatchSampler(sampler, batch_size=BATCH_SIZE, drop_last=True)


def torchdata_loader(weights: np.ndarray, *, rank: int = 0, world_size: int = 1) -> Any:
    """torchdata: one source node a task, a weighted choice of node a sample; yields (task, row)."""
    from torchdata.nodes import IterableWrapper, Loader, MultiNodeWeightedSampler  # pyright: ignore[reportMissingImports]

    nodes = {
        str(task): IterableWrapper(itertools.cycle([(task, row) for row in range(ROWS_PER_TASK)]))
        for task in range(len(weights))
    }
    shares = {str(task): float(weight) for task, weight in enumerate(weights)}
    return Loader(MultiNodeWeightedSampler(nodes, shares, seed=0, rank=rank, world_size=world_size))


def torchdata_batches(weights: np.ndarray) -> Sampler:
    """torchdata, batched."""
    return _batched(iter(torchdata_loader(weights)))


def datasets_batches(weights: np.ndarray) -> Sampler:
    """Hugging Face datasets: `interleave_datasets` over one iterable dataset a task."""
    from datasets import Dataset, interleave_datasets  # pyright: ignore[reportMissingImports]

    tasks = [Dataset.from_dict({"row": list(range(ROWS_PER_TASK))}).to_iterable_dataset() for _ in weights]
    while True:
        mixed = interleave_datasets(tasks, probabilities=weights.tolist(), seed=0, stopping_strategy="all_exhausted")
        yield from _batched(iter(mixed))


def datasets_map_batches(weights: np.ndarray) -> Sampler:
    """Hugging Face datasets, map style: the whole order is drawn first, then sliced; afresh when a task runs out."""
    from datasets import Dataset, interleave_datasets  # pyright: ignore[reportMissingImports]

    tasks = [Dataset.from_dict({"row": list(range(ROWS_PER_TASK))}) for _ in weights]
    for seed in itertools.count():
        mixed = interleave_datasets(tasks, probabilities=weights.tolist(), seed=seed)
        for start in range(0, len(mixed) - BATCH_SIZE + 1, BATCH_SIZE):
            yield mixed[start : start + BATCH_SIZE]


def _batched(samples: Iterator[Any]) -> Sampler:
    while len(batch := list(itertools.islice(samples, BATCH_SIZE))) == BATCH_SIZE:
        yield batch


class Contender(NamedTuple):
    """A sampler, the module it needs, and the most tasks it is run with, in a full and in a quick run."""

    name: str
    module: str
    batches: Callable[[np.ndarray], Sampler]
    most_tasks: tuple[int, int] = (SIZES[-1], SIZES[-1])


CONTENDERS = (
    Contender("stream", "numpy", stream_batches),
    Contender(f"stream, new plan every {STEPS_PER_PLAN}", "numpy", replanned_batches),
    Contender("stream, shares of tokens", "numpy", token_batches),
    Contender("stream, levels and arrangements", "numpy", levelled_batches),
    Contender("torch WeightedRandomSampler", "torch", weighted_random_batches),
    Contender(TORCHDATA, "torchdata", torchdata_batches),
    Contender("datasets interleave (iterable)", "datasets", datasets_batches, (1_000, 100)),
    Contender("datasets interleave (map)", "datasets", datasets_map_batches, (1_000, 100)),
)


def is_present(module: str) -> bool:
    """Whether the peer is installed."""
    return importlib.util.find_spec(module) is not None
