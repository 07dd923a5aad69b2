"""Time of one decision, and size of what it remembers, from 10 to 10,000 tasks.

    python -m bench.scheduler [--quick]

A run of the heat policy with every guard on is driven through random evaluations, and each decision is timed in parts:

    numeric    `HeatEngine.weigh`, on a twin of the engine: from signals in hand to bounded weights (trend, heat,
               learnability, stage, policy, guards)
    record     what `HeatEngine.decide` takes beyond that: the plan, one `TaskDecision` a task, the sentences
    ledger     `LedgerWriter.append`: JSON, write, fsync

CPU milliseconds, median over the decisions after the first and their middle half; the fsync also waits, so the ledger's
wall-clock is given too. The state is `HeatEngine.state_dict()` as JSON, as a checkpoint stores it, beside the float64
arrays it is made of.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from scheduler.engine import HeatEngine
from scheduler.heat import HeatState
from scheduler.ledger import LedgerWriter
from scheduler.setup import EngineSetup, GuardConfig, HeatPolicy, MixtureConfig
from scheduler.signals import IntervalReport, TaskSignal
from scheduler.task import TaskSpec
from scheduler.trend import Trend

SIZES = (10, 100, 1_000, 10_000)
INTERVAL_STEPS = 25
BATCH_SIZE = 64
RESULTS = Path(__file__).parent / "results" / "scheduler.json"


@dataclass(slots=True)
class Timings:
    """Milliseconds of every decision, by part; `decide` is numeric part and record together."""

    numeric: list[float] = field(default_factory=list)
    decide: list[float] = field(default_factory=list)
    ledger: list[float] = field(default_factory=list)
    ledger_wall: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What `main` prints and writes, for one number of tasks. Milliseconds are (median, lower, upper quartile)."""

    numeric_ms: tuple[float, float, float]
    record_ms: float
    ledger_ms: tuple[float, float, float]
    ledger_wall_ms: tuple[float, float, float]
    ledger_line_bytes: int
    state_json_bytes_per_task: float
    state_float64_bytes_per_task: float


def make_setup(num_tasks: int, *, num_decisions: int) -> EngineSetup:
    """Tasks of every tier, pools of every size, all guards on."""
    rng = np.random.default_rng(num_tasks)
    tiers = rng.choice(["core", "standard", "long_tail"], num_tasks)
    policy = HeatPolicy()
    return EngineSetup(
        tasks=tuple(TaskSpec.model_validate({"name": f"task {i}", "tier": tier}) for i, tier in enumerate(tiers)),
        num_rows=tuple(rng.integers(100, 100_000, num_tasks).tolist()),
        seed=0,
        total_steps=INTERVAL_STEPS * (num_decisions + 1),
        global_batch_size=BATCH_SIZE,
        mixture=MixtureConfig(policy=policy, guards=GuardConfig(max_epochs=4.0), interval_steps=INTERVAL_STEPS),
        boundary=None,
        stage_policies=(policy, policy),
    )


def observe_evaluation(engine: HeatEngine, step: int, rng: np.random.Generator) -> None:
    """One random signal a task, and the interval the workers report."""
    num_tasks = len(engine.setup.tasks)
    scores, losses, variances = rng.random((3, num_tasks))
    rejected = rng.integers(0, 17, num_tasks)
    for index, name in enumerate(engine.index_of):
        engine.observe(
            TaskSignal(
                task=name,
                attempt=0,
                step=step,
                plan_version=engine.plan.version,
                num_probes=64,
                score=float(scores[index]),
                loss=float(losses[index]) * 3,
                sampled_score=float(scores[index]),
                score_variance=float(variances[index]) / 4,
                num_rejected=int(rejected[index]),
                num_reviewed=16,
                format_compliance=float(scores[index]),
            )
        )
    served = tuple(int(step * BATCH_SIZE * weight) for weight in engine.plan.weights)
    engine.observe_interval(
        IntervalReport(
            attempt=0,
            step=step,
            plan_version=engine.plan.version,
            num_samples=served,
            num_tokens=served,
            train_loss=(None,) * num_tasks,
            sequence_hash=0,
        )
    )


class Clock:
    """CPU and wall-clock milliseconds of a `with` block."""

    def __enter__(self) -> "Clock":
        self._cpu_ns, self._wall_ns = time.process_time_ns(), time.perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_ms = (time.process_time_ns() - self._cpu_ns) / 1e6
        self.wall_ms = (time.perf_counter_ns() - self._wall_ns) / 1e6


def measure(num_tasks: int, *, num_decisions: int) -> Result:
    """Drive one engine through `num_decisions` evaluations."""
    engine = HeatEngine(make_setup(num_tasks, num_decisions=num_decisions))
    twin, rng, timings, line = HeatEngine(engine.setup), np.random.default_rng(0), Timings(), ""
    with tempfile.TemporaryDirectory() as folder:
        ledger = LedgerWriter(Path(folder) / "ledger.jsonl")
        for step in range(0, INTERVAL_STEPS * num_decisions, INTERVAL_STEPS):
            observe_evaluation(engine, step, rng)
            twin.load_state_dict(engine.state_dict())
            with Clock() as numeric:
                twin.weigh(step)
            with Clock() as decide:
                decision, _ = engine.decide(step)
            with Clock() as append:
                line = ledger.append(decision)
            timings.numeric.append(numeric.cpu_ms)
            timings.decide.append(decide.cpu_ms)
            timings.ledger.append(append.cpu_ms)
            timings.ledger_wall.append(append.wall_ms)
        ledger.close()
    return summary(timings, engine, num_line_bytes=len(line.encode()) + 1)


def summary(timings: Timings, engine: HeatEngine, *, num_line_bytes: int) -> Result:
    """Medians and quartiles, and the size of the state."""
    num_arrays = len(fields(HeatState)) + len(fields(Trend)) + 2
    numeric = quartiles(timings.numeric)
    return Result(
        numeric_ms=numeric,
        record_ms=quartiles(timings.decide)[0] - numeric[0],
        ledger_ms=quartiles(timings.ledger),
        ledger_wall_ms=quartiles(timings.ledger_wall),
        ledger_line_bytes=num_line_bytes,
        state_json_bytes_per_task=len(json.dumps(engine.state_dict())) / len(engine.index_of),
        state_float64_bytes_per_task=8.0 * num_arrays,
    )


def quartiles(milliseconds: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile of all but the first."""
    low, middle, high = statistics.quantiles(milliseconds[1:], n=4)
    return middle, low, high


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description="time of one decision and size of the engine's state")
    parser.add_argument("--quick", action="store_true", help="9 decisions instead of 41")
    num_decisions = 9 if parser.parse_args().quick else 41
    table = {num_tasks: measure(num_tasks, num_decisions=num_decisions) for num_tasks in SIZES}

    print(f"one decision, CPU ms: median of {num_decisions - 1} (quartiles)")
    columns = {
        "tasks": 7,
        "numeric": 26,
        "record": 10,
        "ledger": 26,
        "wall": 9,
        "line bytes": 12,
        "state bytes a task": 28,
    }
    print("".join(f"{name:>{width}}" for name, width in columns.items()))
    for num_tasks, result in table.items():
        state = f"{result.state_json_bytes_per_task:.0f} JSON, {result.state_float64_bytes_per_task:.0f} float64"
        print(
            f"{num_tasks:>7,}{_cell(result.numeric_ms):>26}{result.record_ms:>10.2f}{_cell(result.ledger_ms):>26}"
            f"{result.ledger_wall_ms[0]:>9.2f}{result.ledger_line_bytes:>12,}{state:>28}"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {"processor": platform.machine(), "num_cpus": os.cpu_count(), "numpy": np.__version__}
    sizes = {str(num_tasks): asdict(result) for num_tasks, result in table.items()}
    RESULTS.write_text(json.dumps({"unit": "CPU milliseconds", "machine": machine, "tasks": sizes}, indent=2) + "\n")
    print(f"written to {RESULTS}")


def _cell(quartiles_ms: tuple[float, float, float]) -> str:
    middle, low, high = quartiles_ms
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
