"""The worker loop: one process of the training group.

    boundary ─► plan (rank 0 asks, all ranks receive) ─► checkpoint when due ─► snapshot out ─► interval of steps ─► …

A step draws the global batch from the mixture stream, takes this rank's micro-batches of it, and makes one optimiser
step on the mean loss per supervised token of the *global* batch. Micro-batches are the same whatever the number of
workers; with two of them a step, 1 worker and 2 workers add the same two gradients and agree bit for bit.

The loop knows nothing of evaluation or Ray actors: it talks through `train.coordination.Coordinator`.
"""

import math
import os
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from accelerate import Accelerator
from ray.train import Checkpoint

from scheduler.errors import RunFailedError
from scheduler.plan import MixturePlan
from scheduler.setup import Mode
from scheduler.signals import IntervalReport
from train.agreement import assert_agreement, broadcast_plan
from train.batch import collate
from train.checkpoint import Manifest, read_checkpoint, write_checkpoint
from train.config import ModelConfig, TinyModel, TrainConfig
from train.coordination import Coordinator, CoordinatorFactory
from train.data.store import TokenStore
from train.export import export_model
from train.model import (
    SupervisedLoss,
    build_model,
    load_snapshot,
    load_tokenizer,
    pad_id,
    snapshot,
    trainable_parameters,
    training_dtype,
)
from train.schedule import StageTraining, learning_rate
from train.stream.mixture import HASH_MASK, Batch, MixtureStream, add_hashes
from train.tally import Tally, Totals

_PULSE_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """All a worker needs; paths must be readable from every node.

    `initial_plan` is the plan in force before the first decision; `stages` has the settings of stage 1 and 2.
    """

    seed: int
    model: ModelConfig
    train: TrainConfig
    stages: tuple[StageTraining, StageTraining]
    initial_plan: MixturePlan
    interval_steps: int
    mode: Mode
    store: Path
    tokenizer: Path
    export_to: Path
    coordinator: CoordinatorFactory


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """How the loop ended, from rank 0: `finished` or `stopped` at `step`; seconds it trained and waited for plans."""

    step: int
    reason: str
    num_workers: int
    train_s: float
    plan_wait_s: float


def train_worker(loop_config: dict[str, Any]) -> WorkerResult:
    """Entry point of a Ray Train worker; `loop_config` is `{"job": WorkerJob}`."""
    return Worker(loop_config["job"]).run()


class Worker:
    """One rank's state and its steps."""

    def __init__(self, job: WorkerJob) -> None:
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        self.job = job
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        self.store = TokenStore.open(job.store)
        self.num_tasks = len(self.store.task_names)
        self.tokenizer = load_tokenizer(job.tokenizer)
        self.model = build_model(job.model, self.tokenizer, device=self.device, seed=job.seed)
        self.stream = MixtureStream(
            num_rows=[self.store.num_rows(task) for task in range(self.num_tasks)],
            batch_size=job.train.global_batch_size,
            seed=job.seed,
        )
        self.lengths = [self.store.supervised_lengths(task) for task in range(self.num_tasks)]
        self.plan = job.initial_plan
        self.tokens = np.zeros(self.num_tasks, dtype=np.int64)
        self.sequence_hash = 0
        self.tally = Tally(self.num_tasks, self.device)
        self.step = 0
        self.resumed_step = -1
        self.plan_wait_s = 0.0
        self.last_loss = torch.zeros(())
        self.largest_norm = torch.zeros((), device=self.device)
        self.coordinator: Coordinator | None = None
        optimizer = self._make_optimizer()
        engine_state = self._restore(optimizer)
        prepared = self.accelerator.prepare(SupervisedLoss(self.model), optimizer)
        self.loss_module, self.optimizer = prepared
        if self.rank == 0:
            self.coordinator = job.coordinator.open()
            self.attempt = self.coordinator.begin(self.step, engine_state)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.job.train
        return torch.optim.AdamW(
            trainable_parameters(self.model).values(),
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def _restore(self, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as directory:
            manifest, weights, optimizer_state = read_checkpoint(Path(directory))
        load_snapshot(self.model, weights)
        optimizer.load_state_dict(optimizer_state)
        self.stream.load_state_dict(manifest.stream)
        self.plan, self.step, self.resumed_step = manifest.plan, manifest.step, manifest.step
        self.tokens = np.array(manifest.num_tokens, dtype=np.int64)
        self.sequence_hash = manifest.sequence_hash
        return manifest.engine

    def run(self) -> WorkerResult:
        """Train to the end, or to the boundary at which the driver asked to stop."""
        total, stopping = self.job.train.steps, False
        started = time.perf_counter()
        self.last_pulse_s, self.last_pulse_step = started, self.step
        self.loss_module.train()
        while self.step < total:
            if self.step % self.job.interval_steps == 0:
                stopping = self._boundary()
                if stopping:
                    break
            self._train_step()
            self._pulse()
        if not stopping:
            self._report_interval()
            self._publish()
            if self.rank == 0:
                export_model(self.model, self.tokenizer, self.job.export_to)
        train_s = time.perf_counter() - started
        reason = "stopped" if stopping else "finished"
        if self.coordinator is not None:
            self.coordinator.finish(step=self.step, reason=reason)
        self.accelerator.wait_for_everyone()
        return WorkerResult(
            step=self.step,
            reason=reason,
            num_workers=self.world_size,
            train_s=round(train_s, 3),
            plan_wait_s=round(self.plan_wait_s, 3),
        )

    def _boundary(self) -> bool:
        """Everything that happens between two intervals; returns whether to stop here."""
        stop = False
        if self.step != self.resumed_step:
            if self.job.mode == "sync":
                self._publish()
            stop = self._receive_plan()
            self._report_interval()
            every = self.job.train.checkpoint_every_intervals * self.job.interval_steps
            if self.step > 0 and (stop or self.step % every == 0):
                self._checkpoint()
        else:
            self.stream.set_weights(np.array(self.plan.weights))
        if self.job.mode != "sync" and not stop:
            self._publish()
        return stop

    def _receive_plan(self) -> bool:
        plan, stop = self.plan, False
        if self.coordinator is not None:
            waited = time.perf_counter()
            answer = self.coordinator.plan_for(self.step)
            self.plan_wait_s += time.perf_counter() - waited
            if answer is not None:
                plan, stop = answer.plan, answer.stop
        self.plan, stop = broadcast_plan(plan, stop=stop, num_tasks=self.num_tasks)
        assert_agreement(self.step, self.plan.digest(), int(self.stream.num_samples.sum()))
        self.stream.set_weights(np.array(self.plan.weights))
        return stop

    def _report_interval(self) -> None:
        totals = self.tally.gather()
        self._refuse_divergence(totals)
        self.tokens += np.array(totals.tokens, dtype=np.int64)
        self.sequence_hash = add_hashes(self.sequence_hash, totals.sequence_hash)
        if self.coordinator is not None:
            losses = (loss / count if count else None for loss, count in zip(totals.loss, totals.tokens, strict=True))
            self.coordinator.report(
                IntervalReport(
                    attempt=self.attempt,
                    step=self.step,
                    plan_version=self.plan.version,
                    num_samples=tuple(self.stream.num_samples.tolist()),
                    num_tokens=tuple(self.tokens.tolist()),
                    train_loss=tuple(losses),
                    sequence_hash=self.sequence_hash,
                )
            )

    def _refuse_divergence(self, totals: Totals) -> None:
        """Fail, on every rank, before weights that are not numbers reach a checkpoint, the evaluation or the result."""
        norm = float(self.largest_norm)
        broken = [
            name for name, loss in zip(self.store.task_names, totals.loss, strict=True) if not math.isfinite(loss)
        ]
        if broken or not math.isfinite(norm):
            raise RunFailedError(
                f"training diverged before step {self.step}: the interval's largest gradient norm is {norm:g}, "
                f"the loss is not a finite number for the tasks {broken}; lower the learning rate or look at their rows"
            )
        self.largest_norm.zero_()

    def _publish(self) -> None:
        if self.coordinator is not None:
            self.coordinator.publish(
                step=self.step, attempt=self.attempt, plan_version=self.plan.version, weights=snapshot(self.model)
            )

    def _checkpoint(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if self.coordinator is not None:
                manifest = Manifest(
                    step=self.step,
                    plan=self.plan,
                    stream=self.stream.state_dict(),
                    engine=self.coordinator.checkpoint(self.step),
                    num_tokens=tuple(self.tokens.tolist()),
                    sequence_hash=self.sequence_hash,
                )
                write_checkpoint(Path(folder), manifest, weights=snapshot(self.model), optimizer=self.optimizer)
                checkpoint = Checkpoint.from_directory(folder)
            ray.train.report({"step": self.step}, checkpoint=checkpoint)

    def _train_step(self) -> None:
        batch = self.stream.next_batch()
        stage = self.job.stages[self.plan.stage - 1]
        rate = learning_rate(
            stage,
            step=self.step,
            stage_start_step=self.plan.stage_start_step,
            total_steps=self.job.train.steps,
            final_lr_ratio=self.job.train.final_lr_ratio,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch_tokens = sum(int(self.lengths[task][row]) for task, row in zip(batch.tasks, batch.rows, strict=True))
        size = self.job.train.micro_batch_size
        num_micro = len(batch.tasks) // size
        rounds = -(-num_micro // self.world_size)
        for turn in range(rounds):
            index = turn * self.world_size + self.rank
            counted = index < num_micro
            slots = np.arange(size) + (index if counted else 0) * size
            sync = nullcontext() if turn == rounds - 1 else self.accelerator.no_sync(self.loss_module)
            with sync:
                self._micro_batch(batch, slots, counted=counted, batch_tokens=batch_tokens)
        norm = self.accelerator.clip_grad_norm_(trainable_parameters(self.model).values(), stage.max_grad_norm)
        self.largest_norm = torch.maximum(self.largest_norm, torch.as_tensor(norm))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _micro_batch(self, batch: Batch, slots: np.ndarray, *, counted: bool, batch_tokens: int) -> None:
        """Forward and backward of some slots. A rank without work repeats slots at weight zero, to join in."""
        tasks, rows = batch.tasks[slots], batch.rows[slots]
        encoded = [self.store.encoded(int(task), int(row)) for task, row in zip(tasks, rows, strict=True)]
        tokens = collate(encoded, pad_id=pad_id(self.tokenizer), device=self.device)
        torch.manual_seed(hash((self.job.seed, self.step, int(slots[0]))) & HASH_MASK)
        with self._autocast():
            losses = self.loss_module(tokens)
        self.last_loss = losses.detach().mean()
        weight = self.world_size / batch_tokens if counted else 0.0
        self.accelerator.backward(losses.sum() * weight)
        if counted:
            self.tally.add_losses(tasks=tasks, rows=tokens.rows, losses=losses)
            self.tally.add_slots(step=self.step, slots=slots.tolist(), tasks=tasks, rows=rows)

    def _autocast(self) -> Any:
        model = self.job.model
        if isinstance(model, TinyModel) or model.lora is not None:
            return nullcontext()
        dtype = training_dtype(model, self.device)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _pulse(self) -> None:
        now = time.perf_counter()
        if self.coordinator is not None and now - self.last_pulse_s >= _PULSE_EVERY_S:
            samples = (self.step - self.last_pulse_step) * self.job.train.global_batch_size
            self.coordinator.pulse(
                step=self.step, loss=float(self.last_loss), samples_per_s=samples / (now - self.last_pulse_s)
            )
            self.last_pulse_s, self.last_pulse_step = now, self.step
