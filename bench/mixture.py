"""The mixture stream beside the samplers people use: speed, change of weights, resume, memory, overlap of ranks.

    python -m bench.mixture [--quick] [--check]

Every contender draws batches of 16 from 10 to 10,000 tasks of 100 rows each under the same skewed weights. Drawn is
what a training loop needs to know, (task, row); nobody reads or collates a row. Contenders take turns, round after
round; a table shows the median over rounds and its spread. CPU-seconds, not wall-clock: the machine may be shared.

The contenders do not promise the same. `WeightedRandomSampler` draws at random with replacement, a thousand batches in
one call, and yields bare indices; the node and dataset mixers choose the task at random. The stream keeps every task
within one sample of its share, each row to once an epoch, and takes new weights between any two batches; `stream, new
plan every 25` does that all the time.

`--check` exits 1 and names every figure that misses its aim (`AIMS`). A peer that is not installed is reported as
absent, one too slow for a size as not run; neither counts as beaten.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
import tracemalloc
from typing import Any

import numpy as np

from bench.ending import conclude
from bench.mixture_contenders import (
    BATCH_SIZE,
    CONTENDERS,
    ROWS_PER_TASK,
    SIZES,
    STEPS_PER_PLAN,
    TORCHDATA,
    Sampler,
    is_present,
    new_stream,
    skewed,
    torchdata_batches,
    torchdata_loader,
)

NUM_RANKS = 8
AIMS = {
    "least_ratio_to_torchdata": 1.0,
    "slowdown_10_to_10000_tasks": 3.0,
    "weight_change_ms": 1.0,
    "lag_samples": 0,
    "resume_ms": 10.0,
    "peak_growth_bytes": 65_536,
    "overlap_rows": 0,
}


def samples_per_cpu_second(batches: Sampler, *, min_cpu_s: float) -> float:
    """Draw batches, a few at a time, for at least `min_cpu_s`."""
    num_batches, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < min_cpu_s:
        for _ in range(20):
            next(batches)
        num_batches += 20
    return num_batches * BATCH_SIZE / elapsed


def measure_speed(num_tasks: int, *, num_rounds: int, min_cpu_s: float, quick: bool) -> dict[str, list[float] | str]:
    """Samples per CPU-second of every contender, round by round; else why there are none."""
    weights = skewed(num_tasks)
    rates: dict[str, list[float] | str] = {}
    samplers: dict[str, Sampler] = {}
    for contender in CONTENDERS:
        if not is_present(contender.module):
            rates[contender.name] = "absent"
        elif num_tasks > contender.most_tasks[quick]:
            rates[contender.name] = "not run"
        else:
            samplers[contender.name] = contender.batches(weights)
    measured: dict[str, list[float]] = {name: [] for name in samplers}
    for sampler in samplers.values():
        samples_per_cpu_second(sampler, min_cpu_s=min_cpu_s / 2)
    for _ in range(num_rounds):
        for name, sampler in samplers.items():
            measured[name].append(samples_per_cpu_second(sampler, min_cpu_s=min_cpu_s))
    return rates | measured


def measure_change(num_tasks: int, *, num_changes: int) -> dict[str, float]:
    """Ours: what a change of weights every `STEPS_PER_PLAN` steps costs, and how many samples of an older plan follow.

    `weight_change_ms` is what a training loop waits for: from the call of `set_weights` to the first batch under the
    new weights. `replanning_ms` is everything: those steps, less what as many cost under one plan. For the lag every
    change turns to a single task, so that a sample of an older plan cannot hide.
    """
    stream, steady, weights = new_stream(num_tasks), new_stream(num_tasks), skewed(num_tasks)
    steady.set_weights(weights)
    steady.skip(1)
    costs: dict[str, list[float]] = {"set": [], "first": [], "rest": []}
    steady_s = 0.0
    for change in range(num_changes):
        tilted = weights * np.exp(np.random.default_rng(change).normal(0.0, 0.2, num_tasks))
        tilted /= tilted.sum()
        times = [time.process_time()]
        stream.set_weights(tilted)
        times.append(time.process_time())
        stream.next_batch()
        times.append(time.process_time())
        for _ in range(STEPS_PER_PLAN - 1):
            stream.next_batch()
        times.append(time.process_time())
        for name, cost in zip(costs, np.diff(times), strict=True):
            costs[name].append(float(cost))
        start = time.process_time()
        for _ in range(STEPS_PER_PLAN):
            steady.next_batch()
        steady_s += time.process_time() - start
    late = 0
    for change in range(num_changes):
        stream.set_weights(np.eye(1, num_tasks, change % num_tasks)[0])
        late += int(np.count_nonzero(stream.next_batch().tasks != change % num_tasks))
    typical = {name: statistics.median(values) * 1e3 for name, values in costs.items()}
    return {
        "set_weights_ms": typical["set"],
        "weight_change_ms": typical["set"] + typical["first"],
        "replanning_ms": sum(typical.values()) - steady_s / num_changes * 1e3,
        "lag_samples": late,
    }


def measure_rebuild_ms(num_tasks: int) -> float | str:
    """torchdata cannot change weights: the cost of building it again, tasks started afresh, and drawing a batch."""
    if not is_present("torchdata"):
        return "absent"
    times = []
    for _ in range(3):
        start = time.process_time()
        next(torchdata_batches(skewed(num_tasks)))
        times.append((time.process_time() - start) * 1e3)
    return statistics.median(times)


def measure_resume(num_tasks: int, *, num_rounds: int) -> dict[str, float | bool]:
    """Ours: save, restore into another stream and draw; and whether 100 batches after it are equal to the bit."""
    stream, other = new_stream(num_tasks), new_stream(num_tasks)
    stream.set_weights(skewed(num_tasks))
    times, exact = [], True
    for turn in range(num_rounds):
        stream.skip(37 + turn)
        start = time.process_time()
        other.load_state_dict(stream.state_dict())
        first = other.next_batch()
        times.append((time.process_time() - start) * 1e3)
        pairs = [(first, stream.next_batch())] + [(other.next_batch(), stream.next_batch()) for _ in range(99)]
        exact &= all((a.tasks == b.tasks).all() and (a.rows == b.rows).all() for a, b in pairs)
    return {
        "resume_ms": statistics.median(times),
        "exact": exact,
        "state_bytes": len(json.dumps(stream.state_dict())),
    }


def measure_torchdata_resume(num_tasks: int) -> dict[str, float | bool | str]:
    """torchdata: the same after 1,000 samples, by `Loader.state_dict`; wrapped iterables are run through again."""
    if not is_present("torchdata"):
        return {"torchdata": "absent"}
    from torchdata.nodes import IterableWrapper, Loader, MultiNodeWeightedSampler  # pyright: ignore[reportMissingImports]

    def new_loader() -> Any:
        nodes = {str(task): IterableWrapper([(task, row) for row in range(ROWS_PER_TASK)]) for task in range(num_tasks)}
        shares = {str(task): float(weight) for task, weight in enumerate(skewed(num_tasks))}
        return Loader(MultiNodeWeightedSampler(nodes, shares, stop_criteria="CYCLE_FOREVER", seed=0))

    loader, other = new_loader(), new_loader()
    samples = iter(loader)
    for _ in range(1000):
        next(samples)
    start = time.process_time()
    other.load_state_dict(loader.state_dict())
    continued = iter(other)
    first = next(continued)
    resume_ms = (time.process_time() - start) * 1e3
    exact = [next(samples) for _ in range(500)] == [first, *itertools.islice(continued, 499)]
    return {"resume_ms": resume_ms, "exact": exact}


def measure_memory(num_tasks: int, *, num_steps: int) -> int:
    """Ours: bytes by which the peak of allocated memory grows after the first 2,500 steps, when blocks are longest."""
    stream = new_stream(num_tasks)
    stream.set_weights(skewed(num_tasks))
    peaks = []
    tracemalloc.start()
    for stretch in (2_500, num_steps):
        tracemalloc.reset_peak()
        for _ in range(stretch):
            stream.next_batch()
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    return max(0, peaks[1] - peaks[0])


def measure_overlap() -> dict[str, float | str]:
    """Share of draws that another of `NUM_RANKS` ranks drew too, within one pass over 100 tasks of equal weight."""
    num_tasks = 100
    weights = np.full(num_tasks, 1 / num_tasks)
    num_batches = num_tasks * ROWS_PER_TASK // BATCH_SIZE
    stream = new_stream(num_tasks)
    stream.set_weights(weights)
    ours: list[list[Any]] = [[] for _ in range(NUM_RANKS)]
    for _ in range(num_batches):
        batch = stream.next_batch()
        pairs = list(zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True))
        for rank in range(NUM_RANKS):
            ours[rank] += pairs[rank::NUM_RANKS]
    shares: dict[str, float | str] = {"stream": _overlap(ours)}
    per_rank = num_tasks * ROWS_PER_TASK // NUM_RANKS
    shares[TORCHDATA] = "absent"
    if is_present("torchdata"):
        loaders = [torchdata_loader(weights, rank=rank, world_size=NUM_RANKS) for rank in range(NUM_RANKS)]
        shares[TORCHDATA] = _overlap([list(itertools.islice(loader, per_rank)) for loader in loaders])
    shares["torch WeightedRandomSampler"] = "absent"
    if is_present("torch"):
        import torch
        from torch.utils.data import WeightedRandomSampler

        row_weights = [1.0] * (num_tasks * ROWS_PER_TASK)
        drawn = [
            list(WeightedRandomSampler(row_weights, per_rank, generator=torch.Generator().manual_seed(rank)))
            for rank in range(NUM_RANKS)
        ]
        shares["torch WeightedRandomSampler"] = _overlap(drawn)
    return shares


def _overlap(drawn: list[list[Any]]) -> float:
    ranks_of: dict[Any, set[int]] = {}
    for rank, samples in enumerate(drawn):
        for sample in samples:
            ranks_of.setdefault(sample, set()).add(rank)
    shared = sum(len(ranks_of[sample]) > 1 for samples in drawn for sample in samples)
    return shared / sum(map(len, drawn))


def missed_aims(result: dict[str, Any]) -> list[str]:
    """Every figure that misses its aim, in words."""
    missed = []
    medians = result["median_rates"]
    for num_tasks in SIZES:
        ours, peer = medians[num_tasks]["stream"], medians[num_tasks][TORCHDATA]
        if not isinstance(peer, str) and ours < AIMS["least_ratio_to_torchdata"] * peer:
            missed.append(f"{num_tasks} tasks: {ours:,.0f} samples per CPU-second, torchdata {peer:,.0f}")
    slowdown = medians[SIZES[0]]["stream"] / medians[SIZES[-1]]["stream"]
    if slowdown > AIMS["slowdown_10_to_10000_tasks"]:
        missed.append(f"slowdown from 10 to 10,000 tasks is {slowdown:.2f}")
    for num_tasks in SIZES:
        figures = {**result["change"][num_tasks], **result["resume"][num_tasks]}
        figures["peak_growth_bytes"] = result["peak_growth_bytes"][num_tasks]
        for name in ("weight_change_ms", "lag_samples", "resume_ms", "peak_growth_bytes"):
            if figures[name] > AIMS[name]:
                missed.append(f"{num_tasks} tasks: {name} is {figures[name]:.3f}, aim {AIMS[name]}")
        if not figures["exact"]:
            missed.append(f"{num_tasks} tasks: a restored stream does not continue identically")
    if result["overlap"]["stream"] > AIMS["overlap_rows"]:
        missed.append(f"ranks share {result['overlap']['stream']:.2%} of their rows")
    return missed


def measure(*, quick: bool) -> dict[str, Any]:
    """All figures, as they are written to the results."""
    num_rounds, min_cpu_s = (3, 0.1) if quick else (9, 0.4)
    speed = {size: measure_speed(size, num_rounds=num_rounds, min_cpu_s=min_cpu_s, quick=quick) for size in SIZES}
    return {
        "batch_size": BATCH_SIZE,
        "rates": speed,
        "median_rates": {
            size: {name: found if isinstance(found, str) else statistics.median(found) for name, found in own.items()}
            for size, own in speed.items()
        },
        "change": {size: measure_change(size, num_changes=40 if quick else 200) for size in SIZES},
        "torchdata_rebuild_ms": {size: measure_rebuild_ms(size) for size in SIZES},
        "resume": {size: measure_resume(size, num_rounds=9 if quick else 25) for size in SIZES},
        "torchdata_resume": {size: measure_torchdata_resume(size) for size in SIZES[:3]},
        "peak_growth_bytes": {size: measure_memory(size, num_steps=2_500 if quick else 20_000) for size in SIZES},
        "overlap": measure_overlap(),
    }


def _cell(found: list[float] | str) -> str:
    if isinstance(found, str):
        return found
    return f"{statistics.median(found):,.0f} ({min(found) / 1000:,.0f}k-{max(found) / 1000:,.0f}k)"


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"samples per CPU-second, batches of {BATCH_SIZE}: median over rounds (lowest-highest)")
    print(f"{'':36}" + "".join(f"{f'{size:,} tasks':>28}" for size in SIZES))
    for contender in CONTENDERS:
        print(f"{contender.name:36}" + "".join(f"{_cell(result['rates'][size][contender.name]):>28}" for size in SIZES))
    for contender in CONTENDERS[4:]:
        ratios = []
        for size in SIZES:
            ours, peer = (result["median_rates"][size][name] for name in ("stream", contender.name))
            ratios.append(peer if isinstance(peer, str) else f"{ours / peer:.2f}")
        print(f"{'stream / ' + contender.name:44}" + "".join(f"{ratio:>14}" for ratio in ratios))
    for size in SIZES:
        change, resume = result["change"][size], result["resume"][size]
        print(
            f"{size:>6} tasks: {change['weight_change_ms']:.3f} ms from new weights to the first batch under them "
            f"({change['set_weights_ms']:.3f} to set them; {change['replanning_ms']:.3f} in all over "
            f"{STEPS_PER_PLAN} steps), lag {change['lag_samples']} samples "
            f"[torchdata, built again: {result['torchdata_rebuild_ms'][size]:.4} ms]; "
            f"resume {resume['resume_ms']:.2f} ms, {'exact' if resume['exact'] else 'NOT EXACT'}, "
            f"{resume['state_bytes']:,} bytes [torchdata: {result['torchdata_resume'].get(size, 'not run')}]; "
            f"peak memory grows by {result['peak_growth_bytes'][size]:,} bytes"
        )
    shown = ", ".join(
        f"{name} {share if isinstance(share, str) else f'{share:.1%}'}" for name, share in result["overlap"].items()
    )
    print(f"draws that another of {NUM_RANKS} ranks drew too, within one pass: {shown}")


def main() -> int:
    """Measure, print, write the results, check."""
    parser = argparse.ArgumentParser(description="the mixture stream beside its peers")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: about a minute")
    parser.add_argument("--check", action="store_true", help="exit 1 and name every figure that misses its aim")
    args = parser.parse_args()
    result = measure(quick=args.quick)
    show(result)
    return conclude("mixture", {**result, "aims": AIMS}, missed_aims(result), check=args.check)


if __name__ == "__main__":
    sys.exit(main())
