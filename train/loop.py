"""The worker loop: one process of the training group.

    boundary ─► plan (rank 0 asks, all ranks receive) ─► checkpoint when due ─► snapshot out ─► interval of steps ─► …

A step draws the global batch from the mixture stream and trains this rank's part of it (`train.step`). The run ends
after its last step, at a boundary where it is asked to stop, or where the rows of a task that may end it are used up.

The loop knows nothing of evaluation or Ray actors: it talks through `train.coordination.Coordinator`.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from scheduler.errors import RunFailedError
from scheduler.plan import MixturePlan
from scheduler.signals import IntervalReport
from train.agreement import Ending, assert_agreement, broadcast_plan, broadcast_step, counts_digest
from train.checkpoint import Manifest, Saved
from train.checkpoint_store import CheckpointStore
from train.coordination import Coordinator
from train.data.store import EncodedRow, TokenStore
from train.influence import InfluenceProbe
from train.model import build_model, load_snapshot, pad_id
from train.model_path import load_tokenizer
from train.own_answers import Place, wanted_places, write_contexts
from train.parallel import lay_out
from train.precision import log_precision
from train.safekeeping import Safekeeping, num_kept
from train.schedule import learning_rate
from train.step import Stepper
from train.stream.batch import Batch, add_hashes
from train.stream.opening import open_stream
from train.tokenizer import stop_id
from train.worker_job import WorkerJob, WorkerResult

_PULSE_EVERY_S = 1.0
_NO_CHECKPOINT = -1


def train_worker(job: WorkerJob) -> WorkerResult:
    """Entry point of a Ray Train worker."""
    worker = Worker(job)
    try:
        return worker.run()
    except RunFailedError as error:  # on every rank; raised, it would be tried again
        return WorkerResult(worker.step, "failed", worker.world_size, 0.0, 0.0, diagnosis=str(error))


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
        self.tokenizer = load_tokenizer(job.tokenizer, trust_remote_code=job.model.trust_remote_code)
        self.model, self.layout = lay_out(self._build_model, parallelism=job.parallelism, device=self.device)
        log_precision(job.model, self.device)
        self.optimizer = self._make_optimizer()
        self.stepper = Stepper(
            rank=self.rank,
            world_size=self.world_size,
            device=self.device,
            model=self.model,
            layout=self.layout,
            optimizer=self.optimizer,
            tokenizer=self.tokenizer,
            store=self.store,
            model_config=job.model,
            train_config=job.train,
            seed=job.setup.seed,
        )
        self.influence = InfluenceProbe(job.train, job.setup, stepper=self.stepper, store=self.store)
        self.stream = open_stream(job.setup, supervised_lengths=self.stepper.lengths)
        self.plan = job.initial_plan
        self.tokens = np.zeros(self.num_tasks, dtype=np.int64)
        self.sequence_hash = 0
        self.step = 0
        self.resumed_step = -1
        self.plan_wait_s = 0.0
        self.coordinator: Coordinator | None = job.coordinator.open() if self.rank == 0 else None
        self.checkpoints = CheckpointStore(
            job.checkpoints,
            keep=num_kept(job.train, job.setup),
            pinned=job.train.checkpoint_at,
            staging=Path(tempfile.gettempdir()) / job.staging,  # an absolute one stays as it is
            journal=job.journal,
            patience_s=job.train.storage_patience_s,
        )
        self.keeping = Safekeeping(
            self.checkpoints,
            self.coordinator,
            job.train,
            interval_steps=job.setup.interval_steps,
            has_selection_rows=job.has_selection_rows,
        )
        self._restore()

    def _build_model(self, at: torch.device) -> Any:
        """What is trained, as the run begins with it, for computing on this rank's device, with its weights at `at`."""
        return build_model(self.job.model, self.tokenizer, device=self.device, seed=self.job.setup.seed, at=at)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self.job.train
        return torch.optim.AdamW(
            self.layout.parameters,
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def _restore(self) -> None:
        """Rank 0 chooses the checkpoint and begins the attempt; every rank loads that checkpoint."""
        saved, step = None, 0
        if self.coordinator is not None:
            self.attempt, saved = self.checkpoints.choose(self.coordinator)
            step = saved.manifest.step if saved is not None else _NO_CHECKPOINT
        step = broadcast_step(step)
        if step != _NO_CHECKPOINT:
            self._load(saved or self.checkpoints.read(step, may_be_staged=False))

    def _load(self, saved: Saved) -> None:
        manifest = saved.manifest
        self.layout.load_weights(saved.weights)
        self.layout.load_optimizer_state(self.optimizer, saved.optimizer)
        self.stepper.load_state_dict(manifest.stepper)
        for group in self.optimizer.param_groups:  # a fork's may differ from those it was saved with
            group.update(betas=self.job.train.adam_betas, weight_decay=self.job.train.weight_decay)
        self.stream.load_state_dict(manifest.stream)
        self.plan, self.step, self.resumed_step = manifest.plan, manifest.step, manifest.step
        self.tokens = np.array(manifest.num_tokens, dtype=np.int64)
        self.sequence_hash = manifest.sequence_hash
        self.stepper.num_arranged[:] = manifest.num_arranged
        self.stepper.num_own_answers = manifest.num_own_answers

    def run(self) -> WorkerResult:
        """Train to the end, or to the boundary at which the driver asked to stop."""
        total, stopping = self.job.train.last_step, ""
        started = time.perf_counter()
        self.last_pulse_s, self.last_pulse_step = started, self.step
        while self.step < total and not self.stream.ended:
            if self.step % self.job.setup.interval_steps == 0:
                stopping = self._boundary()
                if stopping:
                    break
                self.stepper.contexts = self._own_contexts()
            self._train_step()
            self._pulse()
        if not stopping and self.step == total < self.job.train.steps:
            stopping = self._boundary()
        elif not stopping:
            if self.coordinator is not None and self.job.setup.mode != "async":
                self.coordinator.settle()  # the last evaluation stands before the last report, as every other does
            self._report_interval(self._interval_report())
            self._publish(for_selection=self.keeping.selects)
        if not stopping:
            self._export()
        train_s = time.perf_counter() - started
        reason = self._finish(stopping or "finished")
        return WorkerResult(
            step=self.step,
            reason=reason,
            num_workers=self.world_size,
            train_s=round(train_s, 3),
            plan_wait_s=round(self.plan_wait_s, 3),
            stage=self.plan.stage,
            storage_problem=self.keeping.problem,
        )

    def _finish(self, reason: str) -> str:
        """Let what was begun come to its end; returns the reason, which on rank 0 may have become another."""
        if self.coordinator is not None:
            is_durable = self.keeping.finish(storage_is_lost=reason == "storage_lost")
            if reason == "handed_over" and not is_durable:
                reason = "storage_lost"  # the next group would look for the checkpoint in vain
            if reason in ("handed_over", "rolled_back"):
                self.coordinator.settle()
            else:
                self.coordinator.finish(step=self.step, reason=reason)
        self.accelerator.wait_for_everyone()
        return reason

    def _boundary(self) -> str:
        """Everything that happens between two intervals; returns why to stop here, or nothing."""
        stop = ""
        if self.step != self.resumed_step:
            report = self._interval_report()
            if self.job.setup.mode == "sync":
                if self.coordinator is not None and report is not None:
                    self.coordinator.report_served(report)
                self._publish(for_selection=self.keeping.selects and self._checkpoint_is_due)
            stop = self._receive_plan()
            self._report_interval(report)
            notices = self.keeping.hear()
            stop = "storage_lost" if notices.storage_is_lost else stop or self._hands_over()
            asked = stop or self.keeping.asks_for_checkpoint(notices)
            if stop != "rolled_back" and (self._checkpoint_is_due or (self.step > 0 and asked)):
                self._checkpoint()
            self.keeping.heed(notices, self.step)
        else:
            self.stream.follow(self.plan)
            stop = self._hands_over()
        if self.job.setup.mode != "sync" and not stop:
            self._publish(for_selection=self.keeping.selects and self._checkpoint_is_due)
        return stop

    def _goes_back(self, to_step: int | None) -> bool:
        """Whether the run is to go back and can; rank 0 only."""
        return to_step is not None and self.keeping.go_back(to_step, self.step)

    def _hands_over(self) -> str:
        """Why to end here where the plan in force is of a stage that other workers train, or nothing."""
        return "" if self.plan.stage in self.job.trains else "handed_over"

    def _own_contexts(self) -> Mapping[Place, EncodedRow]:
        """The chains of the coming interval that are trained after the model's own earlier answers."""
        if not self.plan.own_answers:
            return {}
        places = wanted_places(self._coming_batches(), self.store, self.plan.own_answers)
        return write_contexts(
            self.model,
            self.store,
            places,
            stop_id=stop_id(self.tokenizer),
            pad_id=pad_id(self.tokenizer),
            max_length=self.stepper.most_tokens(self.job.stages[self.plan.stage - 1]),
            rank=0 if self.layout.in_lockstep else self.rank,
            world_size=1 if self.layout.in_lockstep else self.world_size,
        )

    def _coming_batches(self) -> Iterator[Batch]:
        """What the stream will give until the next boundary; the stream itself does not move."""
        ahead = open_stream(self.job.setup, supervised_lengths=self.stepper.lengths)
        ahead.load_state_dict(self.stream.state_dict())
        end = min(self.step + self.job.setup.interval_steps, self.job.train.steps)
        while ahead.step < end and not ahead.ended:
            yield ahead.next_batch()

    def _receive_plan(self) -> Ending:
        plan: MixturePlan = self.plan
        ending: Ending = ""
        if self.coordinator is not None:
            waited = time.perf_counter()
            answer = self.coordinator.plan_for(self.step)
            self.plan_wait_s += time.perf_counter() - waited
            if answer is not None:
                plan = answer.plan
                ending = "stopped" if answer.stop else "rolled_back" if self._goes_back(answer.roll_back_to) else ""
        num_levels = tuple(map(len, self.job.setup.level_sizes))
        self.plan, ending = broadcast_plan(plan, ending=ending, num_tasks=self.num_tasks, num_levels=num_levels)
        assert_agreement(self.step, self.plan.digest(), counts_digest(self.stream.num_samples))
        self.stream.follow(self.plan)
        return ending

    def _interval_report(self) -> IntervalReport | None:
        """What all ranks have trained since the last boundary, on rank 0; every rank takes part."""
        totals, gradients = self.stepper.tally.gather(), self.influence.gather()
        self.tokens += np.array(totals.tokens, dtype=np.int64)
        self.sequence_hash = add_hashes(self.sequence_hash, totals.sequence_hash)
        if self.coordinator is None:
            return None
        learnt = zip(totals.loss, totals.learnt_tokens, strict=True)
        return IntervalReport(
            attempt=self.attempt,
            step=self.step,
            plan_version=self.plan.version,
            num_samples=tuple(self.stream.num_samples.tolist()),
            num_tokens=tuple(self.tokens.tolist()),
            train_loss=tuple(loss / count if count else None for loss, count in learnt),
            sequence_hash=self.sequence_hash,
            num_arranged=self._num_arranged(),
            num_own_answers=self.stepper.num_own_answers,
            skipped_steps=self.stepper.skipped.take(),
            num_halvings=self.stepper.num_halvings,
            gradients=gradients,
        )

    def _report_interval(self, report: IntervalReport | None) -> None:
        """Rank 0 hands in the report, under the plan that is in force from here on."""
        if self.coordinator is not None and report is not None:
            self.coordinator.report(replace(report, plan_version=self.plan.version))

    def _num_arranged(self) -> tuple[int, int, int]:
        single, chain, contrast = self.stepper.num_arranged.tolist()
        return single, chain, contrast

    def _publish(self, *, for_selection: bool = False) -> None:
        weights = self.layout.weights()
        if self.coordinator is not None:
            self.coordinator.publish(
                step=self.step,
                attempt=self.attempt,
                plan_version=self.plan.version,
                weights=weights,
                for_selection=for_selection,
            )

    def _export(self) -> None:
        """Write the result; from whole weights, where no process holds them whole."""
        weights, model = self.layout.weights(), self.model
        if self.rank == 0:
            if self.layout.in_lockstep:
                model = self._build_model(torch.device("cpu"))
                load_snapshot(model, weights)
            self.keeping.export(model, self.tokenizer, self.job.export_to, step=self.step)

    @property
    def _checkpoint_is_due(self) -> bool:
        """The weights after a skipped step may be beyond mending."""
        return self.keeping.is_due(self.step) and self.step - 1 != self.stepper.skipped.last

    def _checkpoint(self) -> None:
        """Take it on rank 0."""
        weights, state = self.layout.weights(), self.layout.optimizer_state(self.optimizer)
        if self.coordinator is None:
            return
        manifest = Manifest(
            step=self.step,
            plan=self.plan,
            stream=self.stream.state_dict(),
            engine=self.coordinator.checkpoint(self.step),
            num_tokens=tuple(self.tokens.tolist()),
            sequence_hash=self.sequence_hash,
            num_arranged=self._num_arranged(),
            num_own_answers=self.stepper.num_own_answers,
            stepper=self.stepper.state_dict(),
        )
        self.keeping.take(manifest, weights=weights, optimizer=state)

    def _train_step(self) -> None:
        stage = self.job.stages[self.plan.stage - 1]
        rate = learning_rate(
            stage,
            step=self.step,
            stage_start_step=self.plan.stage_start_step,
            total_steps=self.job.train.steps,
            final_lr_ratio=self.job.train.final_lr_ratio,
        )
        with self.influence.around(self.step, stage):
            self.stepper.train(self.stream.next_batch(), stage=stage, learning_rate=rate)
        self.step += 1

    def _pulse(self) -> None:
        now = time.perf_counter()
        if self.coordinator is not None and now - self.last_pulse_s >= _PULSE_EVERY_S:
            samples = (self.step - self.last_pulse_step) * self.job.train.global_batch_size
            self.coordinator.pulse(
                step=self.step, loss=self.stepper.last_loss, samples_per_s=samples / (now - self.last_pulse_s)
            )
            self.last_pulse_s, self.last_pulse_step = now, self.step
