"""Samples per CPU-second of the mixture stream, beside the samplers people use instead.

    python -m bench.mixture [--quick]

Every contender draws batches of 16 from 10 to 10,000 tasks of 100 rows each under the same skewed weights. Drawn is
what a training loop needs to know, (task, row); nobody reads or collates a row. Contenders take turns, round after
round; the table shows the median over rounds and its spread. CPU-seconds, not wall-clock: the machine may be shared.

The contenders do not promise the same. `WeightedRandomSampler` draws at random with replacement, a thousand batches in
one call, and yields bare indices; the node and dataset mixers choose the task at random. The stream keeps every task
within one sample of its share, each row to once an epoch, and takes new weights between any two batches; `stream, new
plan every 25` does that all the time.

A peer that is not installed is reported as absent.
"""

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from train.stream.mixture import MixtureStream

BATCH_SIZE = 16
ROWS_PER_TASK = 100
RESULTS = Path(__file__).parent / "results" / "mixture.json"

Sampler = Iterator[Any]


def stream_batches(weights: np.ndarray) -> Sampler:
    """Ours: one batch an item, one plan throughout."""
    stream = MixtureStream(num_rows=[ROWS_PER_TASK] * len(weights), batch_size=BATCH_SIZE, seed=0)
    stream.set_weights(weights)
    while True:
        yield stream.next_batch()


def replanned_batches(weights: np.ndarray) -> Sampler:
    """Ours with other weights every 25 steps: the price of the steps planned ahead and thrown away."""
    rng = np.random.default_rng(1)
    stream = MixtureStream(num_rows=[ROWS_PER_TASK] * len(weights), batch_size=BATCH_SIZE, seed=0)
    while True:
        tilted = weights * np.exp(rng.normal(0.0, 0.2, len(weights)))
        stream.set_weights(tilted / tilted.sum())
        for _ in range(25):
            yield stream.next_batch()


def weighted_random_batches(weights: np.ndarray) -> Sampler:
    """torch: rows drawn with replacement, 1,000 batches a draw; an index stands for (task, row)."""
    from torch.utils.data import BatchSampler, WeightedRandomSampler

    row_weights = np.repeat(weights / ROWS_PER_TASK, ROWS_PER_TASK)
    sampler = WeightedRandomSampler(row_weights.tolist(), num_samples=1000 * BATCH_SIZE, replacement=True)
    while True:
        yield from BatchSampler(sampler, batch_size=BATCH_SIZE, drop_last=True)


def torchdata_batches(weights: np.ndarray) -> Sampler:
    """torchdata: one source node a task, a weighted choice of node a sample."""
    from torchdata.nodes import IterableWrapper, Loader, MultiNodeWeightedSampler  # pyright: ignore[reportMissingImports]

    nodes = {str(task): IterableWrapper(itertools.cycle(range(ROWS_PER_TASK))) for task in range(len(weights))}
    shares = {str(task): float(weight) for task, weight in enumerate(weights)}
    mixed = MultiNodeWeightedSampler(nodes, shares, seed=0)
    return _batched(iter(Loader(mixed)))


def datasets_batches(weights: np.ndarray) -> Sampler:
    """Hugging Face datasets: `interleave_datasets` over one iterable dataset a task."""
    from datasets import Dataset, interleave_datasets  # pyright: ignore[reportMissingImports]

    tasks = [Dataset.from_dict({"row": list(range(ROWS_PER_TASK))}).to_iterable_dataset() for _ in weights]
    while True:
        mixed = interleave_datasets(tasks, probabilities=weights.tolist(), seed=0, stopping_strategy="all_exhausted")
        yield from _batched(iter(mixed))


def _batched(samples: Iterator[Any]) -> Sampler:
    while len(batch := list(itertools.islice(samples, BATCH_SIZE))) == BATCH_SIZE:
        yield batch


CONTENDERS: dict[str, tuple[str, Callable[[np.ndarray], Sampler]]] = {
    "stream": ("numpy", stream_batches),
    "stream, new plan every 25": ("numpy", replanned_batches),
    "torch WeightedRandomSampler": ("torch", weighted_random_batches),
    "torchdata MultiNodeWeightedSampler": ("torchdata", torchdata_batches),
    "datasets interleave_datasets": ("datasets", datasets_batches),
}


def samples_per_cpu_second(batches: Sampler, *, min_cpu_s: float) -> float:
    """Draw batches, a hundred at a time, for at least `min_cpu_s`."""
    num_batches, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < min_cpu_s:
        for _ in range(100):
            next(batches)
        num_batches += 100
    return num_batches * BATCH_SIZE / elapsed


def measure(num_tasks: int, *, num_rounds: int, min_cpu_s: float) -> dict[str, list[float] | None]:
    """Rates of every contender, round by round; None for an absent one."""
    weights = np.random.default_rng(num_tasks).dirichlet(np.ones(num_tasks))
    present = {name: make for name, (module, make) in CONTENDERS.items() if importlib.util.find_spec(module)}
    samplers = {name: make(weights) for name, make in present.items()}
    rates: dict[str, list[float] | None] = {name: [] if name in samplers else None for name in CONTENDERS}
    for sampler in samplers.values():
        for _ in range(100):
            next(sampler)
    for _ in range(num_rounds):
        for name, sampler in samplers.items():
            own = rates[name]
            assert own is not None
            own.append(samples_per_cpu_second(sampler, min_cpu_s=min_cpu_s))
    return rates


def _cell(rates: list[float] | None) -> str:
    if rates is None:
        return "absent"
    return f"{statistics.median(rates):,.0f} ({min(rates) / 1000:,.0f}k-{max(rates) / 1000:,.0f}k)"


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description="samples per CPU-second of the mixture stream and its peers")
    parser.add_argument("--quick", action="store_true", help="3 short rounds instead of 9 longer ones")
    quick = parser.parse_args().quick
    sizes = (10, 100, 1_000, 10_000)
    num_rounds, min_cpu_s = (3, 0.2) if quick else (9, 0.5)
    table = {num_tasks: measure(num_tasks, num_rounds=num_rounds, min_cpu_s=min_cpu_s) for num_tasks in sizes}

    print(f"samples per CPU-second, batches of {BATCH_SIZE}: median of {num_rounds} rounds (lowest-highest)")
    print(f"{'':36}" + "".join(f"{f'{num_tasks:,} tasks':>28}" for num_tasks in sizes))
    for name in CONTENDERS:
        print(f"{name:36}" + "".join(f"{_cell(table[num_tasks][name]):>28}" for num_tasks in sizes))
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {"processor": platform.machine(), "num_cpus": os.cpu_count(), "numpy": np.__version__}
    result = {"unit": "samples per CPU-second", "batch_size": BATCH_SIZE, "machine": machine, "rates": table}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
