"""How near decisions come to those of exact scores, with adaptive and with equal probes, at the same budget.

    python -m bench.allocation [--quick] [--check]

A simulated run decides on measured scores; a second engine sees the same run with the true scores, all else equal. The
error of a decision is the distance between the weights the two policies ask for, before any guard: total variation, and
KL divergence from the exact ones. It is averaged over the decisions after the fourth. Both allocations read 8, 16 or 32
of 64 probes a task on average. Ratios are adaptive over uniform, paired by seed; ± is half of a 95 % interval (t).

    mixed      10 saturated tasks, 3 of random labels, 11 that are learnt
    learning   24 tasks that are learnt, at paces from 50 to 3,000 samples

`--check` exits 1 and names every ratio whose interval is not below one.
"""

import argparse
import dataclasses
import sys
from typing import Any

import numpy as np
from scipy.stats import t as student

from bench.ending import conclude
from scheduler.allocation import AdaptiveAllocation, AllocationConfig, UniformAllocation
from scheduler.engine import HeatEngine
from scheduler.policy_config import HeatPolicy, Policy, TargetGapPolicy
from scheduler.records import DecisionRecord, IntervalRecord, Record, SignalRecord
from scheduler.setup import EngineSetup, MixtureConfig
from scheduler.signals import TaskSignal
from scheduler.simulator import LearnerConfig, MeasurementConfig, TaskLearner, simulate
from scheduler.simulator.config import Curve, NoiseCurve, PowerLawCurve, SaturatedCurve
from scheduler.task import TaskSpec

NUM_TASKS, NUM_PROBES, SKIPPED_DECISIONS = 24, 64, 4
BUDGETS = (8, 16, 32)


def learner(kind: str) -> LearnerConfig:
    """The tasks of a suite, the same for every seed but for the learner's own spread."""
    rng = np.random.default_rng(0)
    curves: list[Curve] = []
    if kind == "mixed":
        curves += [SaturatedCurve()] * 10
        curves += [NoiseCurve()] * 3
    paces = np.exp(rng.uniform(np.log(50.0), np.log(3000.0), NUM_TASKS - len(curves)))
    curves += [PowerLawCurve(scale_samples=float(pace)) for pace in paces]
    return LearnerConfig(tasks={f"task {place}": TaskLearner(curve=curve) for place, curve in enumerate(curves)})


def setup(tasks: LearnerConfig, policy: Policy, allocation: AllocationConfig) -> EngineSetup:
    """A run of 40 evaluations."""
    return EngineSetup(
        tasks=tuple(TaskSpec(name=name) for name in tasks.tasks),
        num_rows=tuple(task.rows for task in tasks.tasks.values()),
        seed=0,
        total_steps=1000,
        global_batch_size=32,
        mixture=MixtureConfig(interval_steps=25, policy=policy, allocation=allocation),
        boundary=None,
        stage_policies=(policy, policy),
        num_probes=(NUM_PROBES,) * len(tasks.tasks),
    )


def decision_error(
    tasks: LearnerConfig, policy: Policy, allocation: AllocationConfig, *, seed: int
) -> tuple[float, float]:
    """Mean total variation and mean KL divergence from the weights that exact scores would have asked for."""
    written: list[Record] = []
    measurement = MeasurementConfig(num_probes=NUM_PROBES)
    own = setup(tasks, policy, allocation)
    run = simulate(own, tasks, seed=seed, measurement=measurement, on_record=written.append)
    truth = dict(zip(run.steps.tolist(), run.scores.tolist(), strict=True))
    exact = HeatEngine(setup(tasks, policy, UniformAllocation()))
    last: dict[str, TaskSignal] = {}
    errors: list[tuple[float, float]] = []
    for record in written:
        match record:
            case IntervalRecord(report=report):
                exact.observe_interval(report)
            case SignalRecord(signal=signal):
                last[signal.task] = signal
            case DecisionRecord(plan=plan, tasks=decided):
                step = plan.source_step
                for name, score in zip(run.task_names, truth[step], strict=True):
                    exact.observe(dataclasses.replace(last[name], step=step, score=score, num_probes=10**6))
                ideal = np.array([task.target_weight for task in exact.decide(step)[0].tasks])
                asked = np.array([task.target_weight for task in decided])
                divergence = float((ideal * np.log(ideal / asked)).sum())
                errors.append((0.5 * float(np.abs(ideal - asked).sum()), divergence))
            case _:
                pass
    variation, divergence = np.mean(errors[SKIPPED_DECISIONS:], axis=0).tolist()
    return variation, divergence


def compare(kind: str, policy: Policy, budget: int, *, num_seeds: int) -> dict[str, Any]:
    """One row of the table."""
    tasks = learner(kind)
    rivals = (UniformAllocation(probes_per_task=budget), AdaptiveAllocation(probes_per_task=budget))
    errors = np.array(
        [[decision_error(tasks, policy, rival, seed=seed) for rival in rivals] for seed in range(num_seeds)]
    )
    ratios = errors[:, 1] / errors[:, 0]
    half = student.ppf(0.975, num_seeds - 1) * ratios.std(axis=0, ddof=1) / np.sqrt(num_seeds)
    return {
        "policy": policy.type,
        "tasks": kind,
        "budget": budget,
        "uniform": errors[:, 0].mean(axis=0).tolist(),
        "adaptive": errors[:, 1].mean(axis=0).tolist(),
        "ratio": ratios.mean(axis=0).tolist(),
        "half_interval": half.tolist(),
    }


def main() -> int:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description="error of decisions under two allocations of probes")
    parser.add_argument("--quick", action="store_true", help="4 seeds and heat only, instead of 20 and target gap too")
    parser.add_argument("--check", action="store_true", help="exit 1 where adaptive is not surely better")
    arguments = parser.parse_args()
    policies: tuple[Policy, ...] = (HeatPolicy(),) if arguments.quick else (HeatPolicy(), TargetGapPolicy())
    num_seeds = 4 if arguments.quick else 20
    print(f"{'policy':>12}{'tasks':>10}{'probes':>8}{'TV uniform':>12}{'adaptive':>10}{'ratio':>15}{'ratio of KL':>15}")
    rows = []
    for policy in policies:
        for kind in ("mixed", "learning"):
            for budget in BUDGETS:
                row = compare(kind, policy, budget, num_seeds=num_seeds)
                rows.append(row)
                (variation, divergence), half = row["ratio"], row["half_interval"]
                print(
                    f"{policy.type:>12}{kind:>10}{budget:>8}{row['uniform'][0]:>12.4f}{row['adaptive'][0]:>10.4f}"
                    f"{f'{variation:.2f} ± {half[0]:.2f}':>15}{f'{divergence:.2f} ± {half[1]:.2f}':>15}",
                    flush=True,
                )
    missed = [
        f"{row['policy']}, {row['tasks']}, {row['budget']} probes: total variation not surely lower"
        for row in rows
        if row["ratio"][0] + row["half_interval"][0] >= 1.0
    ]
    return conclude("allocation", {"num_seeds": num_seeds, "rows": rows}, missed, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
