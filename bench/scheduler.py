"""Time of a decision and size of what the engine remembers, from 10 to 10,000 tasks; signals a second into its actor.

    python -m bench.scheduler [--quick] [--check]

A run of the heat policy with every guard on is driven through random evaluations, and each decision is timed in parts:

    numeric    `HeatEngine.weigh`, on a twin of the engine: from statistics in hand to bounded weights (trend, heat,
               learnability, stage, difficulty levels, policy, guards). This is "a decision" in the aims
    record     what `HeatEngine.decide` takes beyond that: the plan, one `TaskDecision` a task, the sentences
    ledger     `LedgerWriter.append`: JSON, write, fsync

CPU milliseconds, median over the decisions after the first and their middle half; the fsync also waits, so the ledger's
wall-clock is given too. `+ levels` is a run with a difficulty curriculum of three levels.

The state is `HeatEngine.state_dict()` as JSON, as a checkpoint stores it, where everything that can be known is known:
training losses, gradients, human verdicts, levels. It is given for every policy.

Signals go into the Ray actor on two CPUs, each a call of its own as an evaluation sends them, and in calls of fifty; a
signal counts when it stands in the ledger, and the aim is that of single calls.

`--check` exits 1 and names every figure that misses its aim.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench.ending import conclude
from bench.scheduler_actor import SignalRates, measure_signals
from scheduler.curriculum_config import CurriculumConfig
from scheduler.engine import HeatEngine
from scheduler.ledger import LedgerWriter
from scheduler.policy_config import (
    AdoPolicy,
    AioliPolicy,
    Exp3Policy,
    GradientPolicy,
    GroupDroPolicy,
    OdmPolicy,
    Policy,
    ProgressPolicy,
    SkillItPolicy,
    StaticPolicy,
    TargetGapPolicy,
)
from scheduler.setup import EngineSetup, GuardConfig, HeatPolicy, MixtureConfig
from scheduler.signals import IntervalReport, TaskGradient, TaskSignal
from scheduler.task import TaskSpec

SIZES = (10, 100, 1_000, 10_000)
POLICIES: tuple[Policy, ...] = (
    StaticPolicy(),
    HeatPolicy(),
    TargetGapPolicy(),
    GroupDroPolicy(),
    ProgressPolicy(),
    Exp3Policy(),
    OdmPolicy(),
    AdoPolicy(),
    GradientPolicy(),
    SkillItPolicy(),
    AioliPolicy(max_tasks=64),
)
NUM_LEVELS = 3
MAX_DECISION_MS = {1_000: 1.0, 10_000: 10.0}
MAX_STATE_BYTES = 1024.0
MIN_SIGNALS_PER_S = 1_000.0
INTERVAL_STEPS = 25
BATCH_SIZE = 64


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
    state_bytes_per_task: float


def make_setup(
    num_tasks: int, *, num_decisions: int, policy: Policy | None = None, with_levels: bool = False
) -> EngineSetup:
    """Tasks of every tier, pools of every size, all guards on."""
    rng = np.random.default_rng(num_tasks)
    tiers = rng.choice(["core", "standard", "long_tail"], num_tasks)
    policy = policy or HeatPolicy()
    rows = rng.integers(100, 100_000, num_tasks).tolist()
    return EngineSetup(
        tasks=tuple(TaskSpec.model_validate({"name": f"task {i}", "tier": tier}) for i, tier in enumerate(tiers)),
        num_rows=tuple(rows),
        seed=0,
        total_steps=INTERVAL_STEPS * (num_decisions + 1),
        global_batch_size=BATCH_SIZE,
        mixture=MixtureConfig(
            policy=policy,
            guards=GuardConfig(max_epochs=4.0),
            interval_steps=INTERVAL_STEPS,
            curriculum=CurriculumConfig() if with_levels else None,
        ),
        boundary=None,
        stage_policies=(policy, policy),
        level_sizes=tuple((n // 3, n // 3, n - 2 * (n // 3)) for n in rows) if with_levels else (),
    )


def observe_evaluation(engine: HeatEngine, step: int, rng: np.random.Generator) -> None:
    """One random signal a task with all that a signal can hold, and the interval the workers report."""
    num_tasks, with_levels = len(engine.setup.tasks), bool(engine.setup.level_sizes)
    scores, losses, variances, norms = rng.random((4, num_tasks))
    rejected = rng.integers(0, 17, num_tasks)
    for index, name in enumerate(engine.index_of):
        levels = (22, 21, 21) if with_levels else ()
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
                num_human_rejected=1,
                num_human_reviewed=2,
                level_probes=levels,
                level_successes=tuple(float(scores[index]) * count for count in levels),
            )
        )
    served = tuple(int(step * BATCH_SIZE * weight) for weight in engine.plan.weights)
    gradients = (
        TaskGradient(name, step, 8, norm=float(norm), variance=float(variance), cosine=float(score))
        for name, norm, variance, score in zip(engine.index_of, norms, variances, scores, strict=True)
    )
    engine.observe_interval(
        IntervalReport(
            attempt=0,
            step=step,
            plan_version=engine.plan.version,
            num_samples=served,
            num_tokens=served,
            train_loss=tuple((losses * 2).tolist()),
            sequence_hash=0,
            gradients=tuple(gradients),
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


def measure(num_tasks: int, *, num_decisions: int, with_levels: bool = False) -> Result:
    """Drive one engine through `num_decisions` evaluations."""
    engine = HeatEngine(make_setup(num_tasks, num_decisions=num_decisions, with_levels=with_levels))
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
    numeric_ms = quartiles(timings.numeric)
    return Result(
        numeric_ms=numeric_ms,
        record_ms=quartiles(timings.decide)[0] - numeric_ms[0],
        ledger_ms=quartiles(timings.ledger),
        ledger_wall_ms=quartiles(timings.ledger_wall),
        ledger_line_bytes=len(line.encode()) + 1,
        state_bytes_per_task=state_bytes(engine),
    )


def state_bytes(engine: HeatEngine) -> float:
    """Of the state as a checkpoint stores it, per task."""
    return len(json.dumps(engine.state_dict())) / len(engine.index_of)


def states_of_all_policies(num_tasks: int = 1_000, *, num_decisions: int = 4) -> dict[str, float]:
    """Bytes a task by policy, with a curriculum, between two decisions (Aioli at the most tasks it takes)."""
    found: dict[str, float] = {}
    for policy in POLICIES:
        count = min(num_tasks, policy.max_tasks) if isinstance(policy, AioliPolicy) else num_tasks
        setup = make_setup(count, num_decisions=num_decisions, policy=policy, with_levels=True)
        engine, rng = HeatEngine(setup), np.random.default_rng(0)
        for step in range(0, INTERVAL_STEPS * num_decisions, INTERVAL_STEPS):
            observe_evaluation(engine, step, rng)
            engine.decide(step)
        found[policy.type] = state_bytes(engine)
    return found


def quartiles(milliseconds: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile of all but the first."""
    low, middle, high = statistics.quantiles(milliseconds[1:], n=4)
    return middle, low, high


def missed_aims(table: dict[str, Result], states: dict[str, float], signals: SignalRates) -> list[str]:
    """One sentence for every figure that misses its aim."""
    missed: list[str] = []
    for size, limit in MAX_DECISION_MS.items():
        for name in (str(size), f"{size} + levels"):
            if name in table and table[name].numeric_ms[0] > limit:
                missed.append(f"{name} tasks: a decision takes {table[name].numeric_ms[0]:.2f} CPU ms, aim {limit:g}")
    sizes = states | {f"heat, {name} tasks": result.state_bytes_per_task for name, result in table.items()}
    missed += [
        f"{name}: {size:.0f} bytes of state a task, aim {MAX_STATE_BYTES:.0f}"
        for name, size in sizes.items()
        if size > MAX_STATE_BYTES and not name.startswith("heat, 10 ")
    ]
    if signals.single < MIN_SIGNALS_PER_S:
        missed.append(f"{signals.single:,.0f} signals a second in single calls, aim {MIN_SIGNALS_PER_S:,.0f}")
    if signals.num_lost:
        missed.append(f"{signals.num_lost} signals were lost")
    return missed


def main() -> int:
    """Measure, print the tables, write the results; 1 when an aim is missed under `--check`."""
    parser = argparse.ArgumentParser(description="time of one decision, size of the engine's state, signals a second")
    parser.add_argument("--quick", action="store_true", help="9 decisions instead of 41, fewer signals")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure misses its aim")
    options = parser.parse_args()
    num_decisions = 9 if options.quick else 41
    table = {str(size): measure(size, num_decisions=num_decisions) for size in SIZES}
    for size in (1_000, 10_000):
        table[f"{size} + levels"] = measure(size, num_decisions=num_decisions, with_levels=True)
    states = states_of_all_policies()
    signals = measure_signals(num_evaluations=3 if options.quick else 10)
    show(table, states, signals, num_decisions=num_decisions)
    figures = {
        "unit": "CPU milliseconds",
        "tasks": {name: asdict(result) for name, result in table.items()},
        "state_bytes_per_task": states,
        "signals_per_s": asdict(signals),
    }
    return conclude("scheduler", figures, missed_aims(table, states, signals), check=options.check)


def show(table: dict[str, Result], states: dict[str, float], signals: SignalRates, *, num_decisions: int) -> None:
    """Print all that was measured."""
    print(f"one decision, CPU ms: median of {num_decisions - 1} (quartiles)")
    columns = {"tasks": 15, "numeric": 20, "record": 9, "ledger": 24, "wall": 9, "line bytes": 12, "state a task": 14}
    print("".join(f"{name:>{width}}" for name, width in columns.items()))
    for name, result in table.items():
        print(
            f"{name:>15}{_cell(result.numeric_ms):>20}{result.record_ms:>9.2f}{_cell(result.ledger_ms):>24}"
            f"{result.ledger_wall_ms[0]:>9.2f}{result.ledger_line_bytes:>12,}{result.state_bytes_per_task:>14.0f}"
        )
    print("bytes of state a task, 1,000 tasks with levels, everything known:")
    print("  " + ", ".join(f"{name} {size:.0f}" for name, size in states.items()))
    print(
        f"signals a second into the actor: {signals.single:,.0f} in single calls, {signals.batched:,.0f} in calls of "
        f"{signals.batch_size}; {signals.num_sent:,} sent, {signals.num_lost} lost"
    )


def _cell(quartiles_ms: tuple[float, float, float]) -> str:
    middle, low, high = quartiles_ms
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
