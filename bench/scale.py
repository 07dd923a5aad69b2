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
and the time of the same payload in bare collectives, the physical limit. `docs/scaling.md` says what follows for large
clusters.
"""

import argparse
import json
import logging
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from scheduler.ledger import write_setup
from scheduler.setup import EngineSetup, GuardConfig, HeatPolicy, MixtureConfig
from scheduler.signals import IntervalReport, TaskSignal
from scheduler.task import TaskSpec
from train.agreement import assert_agreement, broadcast_plan
from train.tally import Tally

RESULTS = Path(__file__).parent / "results" / "scale.json"
NUM_TASKS = 1_000
INTERVAL_STEPS, BATCH_SIZE = 100, 1_024
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


def make_setup(num_boundaries: int) -> EngineSetup:
    """A thousand tasks of every tier, pools of every size."""
    rng = np.random.default_rng(0)
    tiers = rng.choice(["core", "standard", "long_tail"], NUM_TASKS)
    policy = HeatPolicy()
    return EngineSetup(
        tasks=tuple(TaskSpec.model_validate({"name": f"task {i}", "tier": tier}) for i, tier in enumerate(tiers)),
        num_rows=tuple(rng.integers(100, 100_000, NUM_TASKS).tolist()),
        seed=0,
        total_steps=INTERVAL_STEPS * (num_boundaries + 2),
        global_batch_size=BATCH_SIZE,
        mixture=MixtureConfig(policy=policy, guards=GuardConfig(), interval_steps=INTERVAL_STEPS, plan_timeout_s=60.0),
        boundary=None,
        stage_policies=(policy, policy),
    )


def _signals(step: int, rng: np.random.Generator) -> list[TaskSignal]:
    scores, losses = rng.random((2, NUM_TASKS)).tolist()
    return [
        TaskSignal(
            task=f"task {index}",
            attempt=0,
            step=step,
            plan_version=0,
            num_probes=64,
            score=scores[index],
            loss=losses[index],
            sampled_score=scores[index],
            score_variance=0.1,
            num_rejected=2,
            num_reviewed=16,
            format_compliance=scores[index],
        )
        for index in range(NUM_TASKS)
    ]


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
    columns: dict[str, list[float]] = {
        name: [] for name in ("plan_ms", "agree_ms", "bare_ms", "report_ms", "signals_per_s", "engine_cpu_ms")
    }
    try:
        for number in range(num_boundaries):
            step, cpu_s = number * INTERVAL_STEPS, _cpu_s(process)
            signals, started = _signals(step, rng), time.perf_counter()
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
    """What every rank does at a boundary; `cpu_s` is the CPU time it took."""

    def __init__(self) -> None:
        self._tally = Tally(NUM_TASKS, torch.device("cpu"))
        self._header = torch.zeros(_HEADER + 4 * NUM_TASKS, dtype=torch.float64)
        self._sums = torch.zeros(2 * NUM_TASKS + 2, dtype=torch.float64)
        self.cpu_s = 0.0

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
        started = time.perf_counter()
        dist.broadcast(self._header, src=0)
        dist.all_reduce(torch.zeros(6, dtype=torch.int64), op=dist.ReduceOp.MAX)
        dist.all_reduce(self._sums)
        return agree_ms, 1e3 * (time.perf_counter() - started)


def _work(rank: int, size: int, folder: str, port: int, num_boundaries: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, world_size=size, is_master=rank == 0, timeout=_TIMEOUT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    member = _Rank()
    if rank == 0:
        columns = _leader(folder, num_boundaries, member.boundary)
    else:
        columns = {}
        for number in range(num_boundaries):
            member.boundary(number)
    cpu_ms = torch.tensor([1e3 * member.cpu_s / num_boundaries], dtype=torch.float64)
    dist.all_reduce(cpu_ms)
    if rank == 0:
        found = Boundaries(**columns, rank_cpu_ms=float(cpu_ms) / size)
        Path(folder, "found.json").write_text(json.dumps(asdict(found)))
    dist.barrier()


def measure(size: int, *, num_boundaries: int) -> Boundaries:
    """Fork `size` ranks, let them pass `num_boundaries` boundaries.

    Raises:
        RuntimeError: A rank failed; its traceback is on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="taskheat-scale-") as folder:
        port, children = _free_port(), []
        for rank in range(size):  # forked, so that torch is in memory once; nothing here has threads yet
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    _work(rank, size, folder, port, num_boundaries)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        failed = [rank for rank, child in enumerate(children) if os.waitpid(child, 0)[1]]
        if failed:
            raise RuntimeError(f"{size} ranks: the ranks {failed[:8]} failed")
        return Boundaries(**json.loads(Path(folder, "found.json").read_text()))


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


def main() -> int:
    """Measure, print the table, write the results; 1 when an aim is missed under `--check`."""
    parser = argparse.ArgumentParser(description="the control plane with many workers and tasks")
    parser.add_argument("--quick", action="store_true", help="up to 64 ranks and 5 boundaries, instead of 256 and 12")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure misses its aim")
    arguments = parser.parse_args()
    sizes, num_boundaries = ((2, 16, 64), 5) if arguments.quick else ((2, 16, 64, 128, 256), 12)
    print(f"{NUM_TASKS:,} tasks; a boundary, median of {num_boundaries}; milliseconds of wall-clock at rank 0")
    print("  ranks  signals/s      plan     agree  (bare)    report  engine CPU  CPU a rank")
    table = {}
    for size in sizes:
        table[size] = found = measure(size, num_boundaries=num_boundaries)
        middle = {name: statistics.median(value) for name, value in asdict(found).items() if isinstance(value, list)}
        print(
            f"{size:>7}{middle['signals_per_s']:>11,.0f}{middle['plan_ms']:>10.2f}{middle['agree_ms']:>10.2f}"
            f"{middle['bare_ms']:>8.2f}{middle['report_ms']:>10.2f}{middle['engine_cpu_ms']:>12.1f}"
            f"{found.rank_cpu_ms:>12.2f}",
            flush=True,
        )
    machine = {"processor": platform.machine(), "num_cpus": os.cpu_count(), "torch": torch.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    sizes_found = {str(size): asdict(found) for size, found in table.items()}
    RESULTS.write_text(json.dumps({"machine": machine, "ranks": sizes_found}, indent=2) + "\n")
    print(f"written to {RESULTS}")
    missed = missed_aims(table)
    print("\n".join(missed) if missed else "every aim is met")
    return 1 if missed and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
