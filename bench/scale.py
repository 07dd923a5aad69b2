"""The control plane at scale: 256 worker processes and 1,000 tasks on one machine.

    python -m bench.scale [--quick] [--check]

Everything a boundary costs but the training itself, with the project's own parts: the heat engine is the real Ray
actor with its ledger; rank 0 talks to it through `cluster.coordinator`; the other ranks are processes of one gloo group
that share nothing with it but the collectives of `train.agreement` and `train.tally`. At every boundary

    signals   one signal a task goes into the engine, each a call of its own, and the engine decides on them
    plan      rank 0 asks for the plan of the step
    agree     the plan is broadcast; step, plan and samples served are compared; losses and tokens are summed
    report    rank 0 tells the engine what was trained, and waits for the acknowledgement

Wall-clock milliseconds at rank 0, median over the boundaries, for groups of growing size. On a machine with fewer cores
than ranks the processes take turns, so `agree` grows with the ranks' CPU time: CPU milliseconds a rank are given too,
and of both the same payload in bare collectives, the physical limit. Beside them: seconds from the first fork until
every rank has met every other in one group (every pair of ranks has a connection), kilobytes that a boundary adds to
the ledger, and milliseconds in which rank 0 puts a snapshot of 100 MB into the object store.

A second table has what every rank does alone at every step, in CPU time: it draws the whole global batch from the
stream. `docs/scaling.md` says what follows for large clusters.
"""

import argparse
import json
import logging
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from bench.ending import conclude
from bench.scheduler_actor import random_signals
from scheduler.ledger import write_setup
from scheduler.setup import EngineSetup, GuardConfig, HeatPolicy, MixtureConfig
from scheduler.signals import IntervalReport
from scheduler.task import TaskSpec
from train.agreement import assert_agreement, broadcast_plan
from train.stream.opening import open_stream
from train.tally import Tally

NUM_TASKS = 1_000
INTERVAL_STEPS, BATCH_SIZE = 100, 1_024
STREAM_BATCHES = (256, 1_024, 4_096, 10_000, 16_384)
SNAPSHOT_BYTES = 100_000_000
MIN_SIGNALS_PER_S = 1_000.0
MAX_RANK_CPU_MS = 20.0
_HEADER = 10
_TIMEOUT = timedelta(seconds=240)


@dataclass(frozen=True, slots=True)
class Boundaries:
    """What rank 0 measured, one entry a boundary: milliseconds; `engine_cpu_ms` is CPU time of the engine's process."""

    plan_ms: list[float]
    agree_ms: list[float]
    bare_ms: list[float]
    report_ms: list[float]
    signals_per_s: list[float]
    engine_cpu_ms: list[float]
    rank_cpu_ms: float
    bare_cpu_ms: float
    join_s: float
    ledger_kb: float
    snapshot_ms: list[float]


def make_setup(num_boundaries: int, *, batch_size: int = BATCH_SIZE) -> EngineSetup:
    """A thousand tasks of every tier, pools of every size."""
    rng = np.random.default_rng(0)
    tiers = rng.choice(["core", "standard", "long_tail"], NUM_TASKS)
    policy = HeatPolicy()
    return EngineSetup(
        tasks=tuple(TaskSpec.model_validate({"name": f"task {i}", "tier": tier}) for i, tier in enumerate(tiers)),
        num_rows=tuple(rng.integers(100, 100_000, NUM_TASKS).tolist()),
        seed=0,
        total_steps=INTERVAL_STEPS * (num_boundaries + 2),
        global_batch_size=batch_size,
        mixture=MixtureConfig(policy=policy, guards=GuardConfig(), interval_steps=INTERVAL_STEPS, plan_timeout_s=60.0),
        boundary=None,
        stage_policies=(policy, policy),
    )


def _leader(folder: str, num_boundaries: int, boundary: Callable[..., tuple[float, float]]) -> dict[str, list[float]]:
    """Rank 0: the real engine on a local Ray, and `boundary` with everybody else."""
    import ray

    from cluster.coordinator import RayCoordinator
    from scheduler.actor import HeatEngineActor

    setup = make_setup(num_boundaries)
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    write_setup(Path(folder, "ledger.jsonl"), setup)
    engine: Any = HeatEngineActor.options(name="heat-scale").remote(f"{folder}/ledger.jsonl")
    process = psutil.Process(ray.get(engine.ready.remote()))
    coordinator = RayCoordinator(engine=engine, evaluator=None, plan_timeout_s=60.0)
    attempt, rng = coordinator.begin(0, None, ()), np.random.default_rng(0)
    names = ("plan_ms", "agree_ms", "bare_ms", "report_ms", "signals_per_s", "engine_cpu_ms", "snapshot_ms")
    columns: dict[str, list[float]] = {name: [] for name in names}
    snapshot = {f"tensor {index}": torch.ones(SNAPSHOT_BYTES // 64 // 4) for index in range(64)}
    try:
        for _ in range(3):
            started = time.perf_counter()
            ray.put(snapshot)
            columns["snapshot_ms"].append(1e3 * (time.perf_counter() - started))
        for number in range(num_boundaries):
            step, cpu_s = number * INTERVAL_STEPS, _cpu_s(process)
            signals, started = random_signals(step, NUM_TASKS, rng), time.perf_counter()
            calls = [engine.observe.remote((signal,)) for signal in signals]
            ray.get([*calls, engine.evaluation_done.remote(attempt, step)])
            columns["signals_per_s"].append(NUM_TASKS / (time.perf_counter() - started))
            started = time.perf_counter()
            answer = coordinator.plan_for(step + INTERVAL_STEPS)
            columns["plan_ms"].append(1e3 * (time.perf_counter() - started))
            assert answer is not None
            agree_ms, bare_ms = boundary(number, answer.plan)
            columns["agree_ms"].append(agree_ms)
            columns["bare_ms"].append(bare_ms)
            served = tuple(int((step + INTERVAL_STEPS) * BATCH_SIZE * weight) for weight in answer.plan.weights)
            started = time.perf_counter()
            coordinator.report(
                IntervalReport(
                    attempt=attempt,
                    step=step + INTERVAL_STEPS,
                    plan_version=answer.plan.version,
                    num_samples=served,
                    num_tokens=served,
                    train_loss=(1.0,) * NUM_TASKS,
                    sequence_hash=0,
                )
            )
            columns["report_ms"].append(1e3 * (time.perf_counter() - started))
            columns["engine_cpu_ms"].append(1e3 * (_cpu_s(process) - cpu_s))
    finally:
        ray.shutdown()
    return columns


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


class _Rank:
    """What every rank does at a boundary; `cpu_s` is the CPU time of it, `bare_cpu_s` of the collectives alone."""

    def __init__(self) -> None:
        self._tally = Tally(NUM_TASKS, torch.device("cpu"))
        self._header = torch.zeros(_HEADER + 4 * NUM_TASKS, dtype=torch.float64)
        self._sums = torch.zeros(3 * NUM_TASKS + 2, dtype=torch.float64)
        self.cpu_s = self.bare_cpu_s = 0.0

    def boundary(self, number: int, plan: Any = None) -> tuple[float, float]:
        """Agree on a plan and sum what was trained; wall-clock milliseconds of that and of the bare collectives."""
        dist.barrier()
        started, cpu_started = time.perf_counter(), time.process_time()
        agreed, _ = broadcast_plan(plan, ending="", num_tasks=NUM_TASKS)
        assert_agreement(number, agreed.digest(), number * BATCH_SIZE)
        self._tally.gather()
        self.cpu_s += time.process_time() - cpu_started
        agree_ms = 1e3 * (time.perf_counter() - started)
        dist.barrier()
        started, cpu_started = time.perf_counter(), time.process_time()
        dist.broadcast(self._header, src=0)
        dist.all_reduce(torch.zeros(6, dtype=torch.int64), op=dist.ReduceOp.MAX)
        dist.all_reduce(self._sums)
        self.bare_cpu_s += time.process_time() - cpu_started
        return agree_ms, 1e3 * (time.perf_counter() - started)


def _work(rank: int, size: int, folder: str, port: int, num_boundaries: int, started: float) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, world_size=size, is_master=rank == 0, timeout=_TIMEOUT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    dist.barrier()
    join_s = time.perf_counter() - started
    member = _Rank()
    if rank == 0:
        columns = _leader(folder, num_boundaries, member.boundary)
    else:
        columns = {}
        for number in range(num_boundaries):
            member.boundary(number)
    cpu_ms = torch.tensor([member.cpu_s, member.bare_cpu_s], dtype=torch.float64) * 1e3 / num_boundaries / size
    dist.all_reduce(cpu_ms)
    if rank == 0:
        ledger_kb = Path(folder, "ledger.jsonl").stat().st_size / 1e3 / num_boundaries
        ours, bare = cpu_ms.tolist()
        found = Boundaries(**columns, rank_cpu_ms=ours, bare_cpu_ms=bare, join_s=join_s, ledger_kb=ledger_kb)
        Path(folder, "found.json").write_text(json.dumps(asdict(found)))
    dist.barrier()


def measure(size: int, *, num_boundaries: int) -> Boundaries:
    """Fork `size` ranks, let them pass `num_boundaries` boundaries.

    Raises:
        RuntimeError: A rank failed; its traceback is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="taskheat-scale-") as folder:
        port, children, started = _free_port(), [], time.perf_counter()
        for rank in range(size):  # forked, so that torch is in memory once; nothing here has threads yet
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    _work(rank, size, folder, port, num_boundaries, started)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        failed = [rank for rank, child in enumerate(children) if os.waitpid(child, 0)[1]]
        if failed:
            raise RuntimeError(f"{size} ranks: the ranks {failed[:8]} failed")
        return Boundaries(**json.loads(Path(folder, "found.json").read_text()))


def stream_cpu_ms(batch_size: int, *, num_steps: int = 100) -> float:
    """CPU milliseconds a step in which a rank draws the global batch; the stream draws in blocks, so it is a mean."""
    stream = open_stream(make_setup(num_steps, batch_size=batch_size))
    stream.set_weights(np.full(NUM_TASKS, 1 / NUM_TASKS))
    started = time.process_time()
    for _ in range(num_steps):
        stream.next_batch()
    return 1e3 * (time.process_time() - started) / num_steps


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def missed_aims(table: dict[int, Boundaries]) -> list[str]:
    """One sentence for every figure that misses its aim."""
    missed = []
    for size, found in table.items():
        rate = statistics.median(found.signals_per_s)
        if rate < MIN_SIGNALS_PER_S:
            missed.append(f"{size} ranks: {rate:,.0f} signals a second, aim {MIN_SIGNALS_PER_S:,.0f}")
        if found.rank_cpu_ms > MAX_RANK_CPU_MS:
            missed.append(f"{size} ranks: {found.rank_cpu_ms:.1f} CPU ms a rank and boundary, aim {MAX_RANK_CPU_MS:g}")
    return missed


def _boundaries_table(sizes: Sequence[int], num_boundaries: int) -> dict[int, Boundaries]:
    print(f"{NUM_TASKS:,} tasks; a boundary, median of {num_boundaries}; milliseconds of wall-clock at rank 0")
    print(
        "  ranks  signals/s      plan     agree    (bare)    report  engine CPU"
        "  CPU a rank  (bare)  join, s  ledger kB  snapshot"
    )
    table = {}
    for size in sizes:
        table[size] = found = measure(size, num_boundaries=num_boundaries)
        middle = {name: statistics.median(value) for name, value in asdict(found).items() if isinstance(value, list)}
        print(
            f"{size:>7}{middle['signals_per_s']:>11,.0f}{middle['plan_ms']:>10.2f}{middle['agree_ms']:>10.2f}"
            f"{middle['bare_ms']:>10.2f}{middle['report_ms']:>10.2f}{middle['engine_cpu_ms']:>12.1f}"
            f"{found.rank_cpu_ms:>12.2f}{found.bare_cpu_ms:>8.2f}{found.join_s:>9.1f}{found.ledger_kb:>11.0f}{middle['snapshot_ms']:>10.0f}",
            flush=True,
        )
    return table


def main() -> int:
    """Measure, print the table, write the results; 1 when an aim is missed under `--check`."""
    parser = argparse.ArgumentParser(description="the control plane with many workers and tasks")
    parser.add_argument("--quick", action="store_true", help="up to 64 ranks and 5 boundaries, instead of 256 and 12")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure misses its aim")
    arguments = parser.parse_args()
    sizes, num_boundaries = ((2, 16, 64), 5) if arguments.quick else ((2, 16, 64, 128, 256), 12)
    table = _boundaries_table(sizes, num_boundaries)
    print("samples a step  CPU ms in which every rank draws them")
    streams = {batch_size: stream_cpu_ms(batch_size) for batch_size in STREAM_BATCHES}
    for batch_size, cpu_ms in streams.items():
        print(f"{batch_size:>14,}{cpu_ms:>8.2f}")
    sizes_found = {str(size): asdict(found) for size, found in table.items()}
    figures = {"ranks": sizes_found, "stream_cpu_ms": streams}
    return conclude("scale", figures, missed_aims(table), check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
