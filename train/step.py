"""One optimiser step: this rank's micro-batches of the global batch, their gradients, one update.

    batch (task, row, arrangement) ─► rows of this rank's slots ─► micro-batch ─► token losses ─► sum / batch tokens ─►
    backward … ─► clip ─► update

A step minimises the mean loss per supervised token of the *global* batch. Micro-batches are the same whatever the
number of workers; with two of them a step, 1 worker and 2 workers add the same two gradients and agree bit for bit.

This module knows nothing of plans, evaluation or checkpoints; see `train.loop`.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.utils import clip_grad_norm_
from transformers import PreTrainedTokenizerBase

from train.batch import collate
from train.config import ModelConfig, TrainConfig
from train.data.arrangement import ARRANGEMENTS, CHAIN, SINGLE
from train.data.store import EncodedRow, TokenStore
from train.model import SupervisedLoss, compute_context, pad_id, trainable_parameters
from train.own_answers import Place
from train.packing import accepts_packed
from train.stream.batch import HASH_MASK, Batch
from train.tally import Tally


class Stepper:
    """Model, optimiser and this rank's share of every step.

    Attributes:
        max_length: Tokens of the longest training row, in any arrangement.
        tally: Losses and samples since the last boundary.
        last_loss: Mean token loss of the latest micro-batch, nats.
        largest_norm: Largest gradient norm since it was set to zero.
        num_arranged: int64 [3], samples of all ranks trained alone, as chain and as contrast since step 0.
        num_own_answers: Of the chains, those after the model's own earlier answer.
        contexts: Rows whose chain is trained in the model's own words; the loop sets it anew every interval.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        model: Any,
        optimizer: torch.optim.Optimizer,
        tokenizer: PreTrainedTokenizerBase,
        store: TokenStore,
        model_config: ModelConfig,
        train_config: TrainConfig,
        seed: int,
    ) -> None:
        self._accelerator, self._store, self._seed = accelerator, store, seed
        self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        self._device = accelerator.device
        self._model_config = model_config
        self._micro_batch_size = train_config.micro_batch_size
        self._pad_id = pad_id(tokenizer)
        self._optimizer = optimizer
        self._parameters = list(trainable_parameters(model).values())
        self.max_length = _longest_row(store)
        with compute_context(self._model_config, self._device):
            self._packed = accepts_packed(model, setting=train_config.packing, max_length=self.max_length)
        self._loss: Any = accelerator.prepare(SupervisedLoss(model))
        self._loss.train()
        num_tasks = len(store.task_names)
        self.lengths = [store.supervised_lengths(task) for task in range(num_tasks)]
        self.tally = Tally(num_tasks, self._device)
        self.last_loss = torch.zeros(())
        self.largest_norm = torch.zeros((), device=self._device)
        self.num_arranged = np.zeros(len(ARRANGEMENTS), dtype=np.int64)
        self.num_own_answers = 0
        self.contexts: Mapping[Place, EncodedRow] = {}

    def train(self, batch: Batch, *, learning_rate: float, max_grad_norm: float) -> None:
        """Make the step."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        places = list(zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True))
        batch_tokens = sum(int(self.lengths[task][row]) for task, row in places)
        num_micro = len(places) // self._micro_batch_size
        rounds = -(-num_micro // self._world_size)
        for turn in range(rounds):
            index = turn * self._world_size + self._rank
            counted = index < num_micro
            slots = np.arange(self._micro_batch_size) + (index if counted else 0) * self._micro_batch_size
            sync = nullcontext() if turn == rounds - 1 else self._accelerator.no_sync(self._loss)
            with sync:
                self._micro_batch(batch, slots, counted=counted, batch_tokens=batch_tokens)
        norm = clip_grad_norm_(self._parameters, max_grad_norm)
        self.largest_norm = torch.maximum(self.largest_norm, norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.num_arranged += self._realised(batch)

    def _micro_batch(self, batch: Batch, slots: np.ndarray, *, counted: bool, batch_tokens: int) -> None:
        """Forward and backward of some slots. A rank without work repeats slots at weight zero, to join in."""
        tasks, rows, arrangements = batch.tasks[slots], batch.rows[slots], batch.arrangements[slots]
        encoded = self._encoded(tasks, rows, arrangements)
        tokens = collate(encoded, pad_id=self._pad_id, device=self._device, packed=self._packed)
        self._seed_dropout(hash((self._seed, batch.step, int(slots[0]))) & HASH_MASK)
        with compute_context(self._model_config, self._device):
            losses = self._loss(tokens)
        self.last_loss = losses.detach().mean()
        weight = self._world_size / batch_tokens if counted else 0.0
        (losses.sum() * weight).backward()
        if counted:
            self.tally.add_losses(tasks=tasks, rows=tokens.rows, losses=losses)
            self.tally.add_slots(step=batch.step, slots=slots, tasks=tasks, rows=rows, arrangements=arrangements)

    def _encoded(self, tasks: np.ndarray, rows: np.ndarray, arrangements: np.ndarray) -> list[EncodedRow]:
        wanted = zip(tasks.tolist(), rows.tolist(), arrangements.tolist(), strict=True)
        own = self.contexts
        return [
            own[task, row] if code == CHAIN and (task, row) in own else self._store.encoded(task, row, arrangement=code)
            for task, row, code in wanted
        ]

    def _seed_dropout(self, seed: int) -> None:
        """Dropout depends on (seed, step, micro-batch) alone, so that no random state has to be kept."""
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _realised(self, batch: Batch) -> np.ndarray:
        """int64 [3]: slots by the arrangement they were trained in; what a row does not have falls back to single."""
        counts = np.zeros(len(ARRANGEMENTS), dtype=np.int64)
        for slot in np.flatnonzero(batch.arrangements).tolist():
            task, row, code = int(batch.tasks[slot]), int(batch.rows[slot]), int(batch.arrangements[slot])
            counts[code] += self._store.is_arranged(task, row, code)
            self.num_own_answers += code == CHAIN and (task, row) in self.contexts
        counts[SINGLE] = len(batch.tasks) - counts.sum()
        return counts


def _longest_row(store: TokenStore) -> int:
    """Tokens of the longest training row, in any arrangement."""
    return max(
        int(store.lengths(task, arrangement=code).max())
        for task in range(len(store.task_names))
        for code in range(len(ARRANGEMENTS))
    )
