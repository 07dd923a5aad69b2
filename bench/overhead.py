"""What Ray, scheduling and snapshots add to a step of the SmolLM2-135M LoRA run.

    python -m bench.overhead [--quick] [--check]

The project's own worker loop runs inside Ray Train as one worker: it asks the heat engine for plans, reports what it
trained, publishes a snapshot of the adapter at every boundary and takes a checkpoint every five, all without waiting
for each other. The engine is the real actor with its ledger. In the place of the evaluation stands an actor that takes
each snapshot and at once sends the engine a signal a task: how long an evaluation takes is no overhead of these parts,
and on two cores it would take turns with training. Measuring influence, which has a budget of its own, is off.

Every call that trains, `Stepper.train`, is timed, and so is the whole loop. What would be trained without all this is
the same calls of `Stepper.train`, so the rest is overhead, divided by the steps and held against their median:

    wall    time in which rank 0 did not train, its waiting for the engine included
    CPU     the training thread's CPU time outside of the steps, over that of the steps; and the share of a core that
            the worker's other threads take, those of Ray, of the snapshot and of the upload. These run by the clock:
            the share is taken of wall-clock time, as it would be where training has a core for itself

Intervals are those of `examples/smollm2`, 15 steps of 8 samples; one of the default 50 has less than a third of it.
`--check` exits 1 where either is more than 1 %. `make smollm2` fetches the model.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from bench.ending import conclude
from bench.product_step import write_store
from cluster.config import LaunchConfig
from cluster.coordinator import RayCoordinatorFactory
from cluster.driver import ray_cluster
from scheduler.actor import HeatEngineActor
from scheduler.engine import HeatEngine
from scheduler.ledger import write_setup
from scheduler.setup import EngineSetup, GuardConfig, HeatPolicy, MixtureConfig
from scheduler.signals import TaskSignal
from scheduler.task import TaskSpec
from train.config import LoraConfig, PretrainedModel, TrainConfig
from train.data.store import EncodedRow
from train.loop import Worker
from train.micro_batches import MicroBatchLimits
from train.schedule import StageTraining
from train.worker_job import WorkerJob

MODEL = Path(__file__).parents[1] / "models" / "smollm2-135m-instruct"
MAX_RATIO = 0.01
ENGINE, EVALUATION, NAMESPACE = "heat-overhead", "evaluation-overhead", "overhead"
_NUM_TASKS, _ROWS_PER_TASK, _ANSWER_TOKENS = 8, 200, 16
_BATCH_SIZE, _MICRO_BATCH_SIZE, _INTERVAL_STEPS = 8, 4, 15


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one loop: every step and boundary, and all of it; CPU time of the training thread and the others."""

    steps_s: list[float]
    boundaries_s: list[float]
    pulses_s: float
    loop_s: float
    steps_cpu_s: float
    loop_cpu_s: float
    others_cpu_s: float

    def shares(self) -> dict[str, float]:
        """Overhead a step over the median step, on the wall and of the CPU."""
        num_steps = len(self.steps_s)
        wall = (self.loop_s - sum(self.steps_s)) / num_steps / statistics.median(self.steps_s)
        cpu = (self.loop_cpu_s - self.steps_cpu_s) / self.steps_cpu_s + self.others_cpu_s / self.loop_s
        return {"wall": wall, "CPU": cpu}


class MeasuredWorker(Worker):
    """The worker, with a clock."""

    def __init__(self, job: WorkerJob) -> None:
        super().__init__(job)
        self.steps_s: list[float] = []
        self.boundaries_s: list[float] = []
        self.pulses_s = self.steps_cpu_s = 0.0
        self._train_untimed = self.stepper.train
        self.stepper.train = self._timed_train  # pyright: ignore[reportAttributeAccessIssue]

    def _timed_train(self, *arguments: Any, **settings: Any) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        self._train_untimed(*arguments, **settings)
        self.steps_s.append(time.perf_counter() - wall)
        self.steps_cpu_s += time.thread_time() - cpu

    def _boundary(self) -> str:
        started = time.perf_counter()
        stop = super()._boundary()
        self.boundaries_s.append(time.perf_counter() - started)
        return stop

    def _pulse(self) -> None:
        started = time.perf_counter()
        super()._pulse()
        self.pulses_s += time.perf_counter() - started

    def measure(self) -> Measured:
        """Train as `Worker.run` does, up to the last step: what comes after it happens once in a run."""
        self.last_pulse_s, self.last_pulse_step = time.perf_counter(), self.step
        wall, cpu, all_cpu = time.perf_counter(), time.thread_time(), time.process_time()
        while self.step < self.job.train.last_step:
            if self.step % self.job.setup.interval_steps == 0:
                if self._boundary():
                    raise RuntimeError("the run was told to stop")
                self.stepper.contexts = self._own_contexts()
            self._train_step()
            self._pulse()
        loop_s, loop_cpu_s = time.perf_counter() - wall, time.thread_time() - cpu
        others_cpu_s = time.process_time() - all_cpu - loop_cpu_s
        assert self.coordinator is not None
        self.keeping.finish(storage_is_lost=False)
        return Measured(
            steps_s=self.steps_s,
            boundaries_s=self.boundaries_s,
            pulses_s=self.pulses_s,
            loop_s=loop_s,
            steps_cpu_s=self.steps_cpu_s,
            loop_cpu_s=loop_cpu_s,
            others_cpu_s=others_cpu_s,
        )


def measured_loop(loop_config: dict[str, Any]) -> dict[str, Any]:
    """What the Ray Train worker runs."""
    torch.set_num_threads(1)
    return asdict(MeasuredWorker(loop_config["job"]).measure())


@ray.remote(num_cpus=0)
class InstantEvaluation:
    """Receives snapshots and answers each with made-up signals."""

    def __init__(self, namespace: str) -> None:
        self._engine: Any = ray.get_actor(ENGINE, namespace=namespace)
        self._rng = np.random.default_rng(0)

    def evaluate(
        self, step: int, attempt: int, plan_version: int, weights: Mapping[str, torch.Tensor], for_selection: bool
    ) -> None:
        """As `evalsvc.actor.EvaluationActor` is called."""
        assert weights
        assert not for_selection
        signals = tuple(
            TaskSignal(
                task=f"task {task}",
                attempt=attempt,
                step=step,
                plan_version=plan_version,
                num_probes=32,
                score=score,
                loss=2.0 - score,
                sampled_score=score,
                score_variance=0.1,
                num_rejected=2,
                num_reviewed=16,
                format_compliance=score,
            )
            for task, score in enumerate(self._rng.random(_NUM_TASKS).tolist())
        )
        for signal in signals:
            ray.get(self._engine.observe.remote((signal,)))
        ray.get(self._engine.evaluation_done.remote(attempt, step))


def make_job(folder: Path, *, num_steps: int) -> WorkerJob:
    """The SmolLM2 LoRA run over made-up rows of 24 to 128 tokens, with the defaults of everything else."""
    rng = np.random.default_rng(0)

    def row() -> EncodedRow:
        length = int(rng.integers(24, 129))
        ids = rng.integers(100, 40_000, size=length, dtype=np.int32)
        return EncodedRow(ids, np.array([[length - _ANSWER_TOKENS, length]], dtype=np.int32))

    store = folder / "store"
    store.mkdir()
    write_store(store, [[row() for _ in range(_ROWS_PER_TASK)] for _ in range(_NUM_TASKS)])
    (folder / "checkpoints").mkdir()
    policy = HeatPolicy()
    setup = EngineSetup(
        tasks=tuple(TaskSpec.model_validate({"name": f"task {number}"}) for number in range(_NUM_TASKS)),
        num_rows=(_ROWS_PER_TASK,) * _NUM_TASKS,
        seed=0,
        total_steps=num_steps,
        global_batch_size=_BATCH_SIZE,
        mixture=MixtureConfig(policy=policy, guards=GuardConfig(), interval_steps=_INTERVAL_STEPS),
        boundary=None,
        stage_policies=(policy, policy),
    )
    train = TrainConfig(
        steps=num_steps, global_batch_size=_BATCH_SIZE, micro_batch_size=_MICRO_BATCH_SIZE, influence=None
    )
    stage = StageTraining(
        train.learning_rate, train.warmup_steps, train.max_grad_norm, MicroBatchLimits(_MICRO_BATCH_SIZE)
    )
    return WorkerJob(
        setup=setup,
        model=PretrainedModel(path=str(MODEL), dtype="float32", lora=LoraConfig()),
        train=train,
        stages=(stage, stage),
        initial_plan=HeatEngine(setup).plan,
        store=store,
        tokenizer=MODEL,
        export_to=folder / "result",
        checkpoints=str(folder / "checkpoints"),
        staging=folder / "staging",
        journal=folder / "checkpoints.jsonl",
        has_selection_rows=False,
        coordinator=RayCoordinatorFactory(ENGINE, EVALUATION, NAMESPACE, plan_timeout_s=120.0),
    )


def run(folder: Path, *, num_steps: int) -> Measured:
    """One run on a Ray of its own, started as the driver starts it."""
    job = make_job(folder, num_steps=num_steps)
    with ray_cluster(LaunchConfig(), NAMESPACE):
        write_setup(folder / "ledger.jsonl", job.setup)
        engine: Any = HeatEngineActor.options(name=ENGINE, namespace=NAMESPACE).remote(str(folder / "ledger.jsonl"))
        ray.get(engine.ready.remote())
        evaluation: Any = InstantEvaluation.options(name=EVALUATION, namespace=NAMESPACE).remote(NAMESPACE)
        trainer = TorchTrainer(
            measured_loop,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(name="ray", storage_path=str(folder)),
        )
        found: Any = trainer.fit().return_value
        del evaluation
        return Measured(**found)


def main() -> int:
    """Measure, print, write the results; 1 when an aim is missed under `--check`."""
    parser = argparse.ArgumentParser(description="what Ray, scheduling and snapshots add to a step")
    parser.add_argument("--quick", action="store_true", help="2 intervals instead of 6, and no checkpoint")
    parser.add_argument("--check", action="store_true", help="exit 1 when the overhead is more than 1 %%")
    arguments = parser.parse_args()
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} is not there: run make smollm2 first")
    with tempfile.TemporaryDirectory() as name:
        found = run(Path(name), num_steps=_INTERVAL_STEPS * (2 if arguments.quick else 6))
    shares, num_steps = found.shares(), len(found.steps_s)
    step_ms = [1e3 * value for value in found.steps_s]
    print(f"SmolLM2-135M LoRA, one Ray Train worker, {num_steps} steps in {len(found.boundaries_s)} intervals")
    print(f"  step: median {statistics.median(step_ms):.1f} ms ({min(step_ms):.1f}-{max(step_ms):.1f})")
    print("  boundaries: " + ", ".join(f"{1e3 * value:.1f}" for value in found.boundaries_s) + " ms")
    print(f"  pulses for the live view: {1e3 * found.pulses_s / num_steps:.3f} ms a step")
    print(f"  other threads of the worker: {100 * found.others_cpu_s / found.loop_s:.2f} % of a core")
    for clock, share in shares.items():
        print(f"  overhead a step, {clock}: {100 * share:.2f} % of a step")
    missed = [
        f"{clock}: {100 * share:.2f} % of a step, aim 1 %" for clock, share in shares.items() if share > MAX_RATIO
    ]
    return conclude("overhead", asdict(found) | {"shares": shares}, missed, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
