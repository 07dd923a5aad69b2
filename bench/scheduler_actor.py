"""Signals a second into the engine's Ray actor: counted when the decision on them has been made."""

import logging
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scheduler.ledger import read_ledger, write_setup
from scheduler.records import SignalRecord
from scheduler.setup import EngineSetup, HeatPolicy, MixtureConfig
from scheduler.signals import TaskSignal
from scheduler.task import TaskSpec

NUM_TASKS, INTERVAL_STEPS, BATCH_SIZE = 1_000, 25, 50


@dataclass(frozen=True, slots=True)
class SignalRates:
    """Medians over evaluations of a thousand signals, in signals a second of wall-clock, the decision included."""

    single: float
    batched: float
    batch_size: int
    num_sent: int
    num_lost: int


def measure_signals(*, num_evaluations: int, num_tasks: int = NUM_TASKS) -> SignalRates:
    """Send `num_evaluations` evaluations in single calls, then as many in calls of fifty, on a Ray of two CPUs."""
    import ray

    from scheduler.actor import HeatEngineActor

    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory(prefix="taskheat-signals-") as folder:
            ledger = Path(folder) / "ledger.jsonl"
            write_setup(ledger, _setup(num_tasks, num_evaluations=2 * num_evaluations))
            engine: Any = HeatEngineActor.remote(str(ledger))
            attempt = ray.get(engine.begin_attempt.remote("bench", 0, None, ()))
            rng, rates = np.random.default_rng(0), []
            for number in range(2 * num_evaluations):
                signals = random_signals(number * INTERVAL_STEPS, num_tasks, rng)
                size = 1 if number < num_evaluations else BATCH_SIZE
                started = time.perf_counter()
                calls = [engine.observe.remote(signals[at : at + size]) for at in range(0, num_tasks, size)]
                ray.get(calls)  # as the evaluation does: a call sent with them could overtake the last of them
                ray.get(engine.evaluation_done.remote(attempt, number * INTERVAL_STEPS))
                rates.append(num_tasks / (time.perf_counter() - started))
            written = sum(isinstance(record, SignalRecord) for record in read_ledger(ledger))
    finally:
        ray.shutdown()
    num_sent = 2 * num_evaluations * num_tasks
    single, batched = rates[:num_evaluations], rates[num_evaluations:]
    return SignalRates(statistics.median(single), statistics.median(batched), BATCH_SIZE, num_sent, num_sent - written)


def _setup(num_tasks: int, *, num_evaluations: int) -> EngineSetup:
    return EngineSetup(
        tasks=tuple(TaskSpec(name=f"task {index}") for index in range(num_tasks)),
        num_rows=(1_000,) * num_tasks,
        seed=0,
        total_steps=INTERVAL_STEPS * (num_evaluations + 1),
        global_batch_size=64,
        mixture=MixtureConfig(interval_steps=INTERVAL_STEPS),
        boundary=None,
        stage_policies=(HeatPolicy(), HeatPolicy()),
    )


def random_signals(step: int, num_tasks: int, rng: np.random.Generator) -> tuple[TaskSignal, ...]:
    """One signal a task, named `task 0` and so on, scores and losses drawn from [0, 1)."""
    scores, losses = rng.random((2, num_tasks)).tolist()
    return tuple(
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
        for index in range(num_tasks)
    )
