"""One optimiser step: this rank's micro-batches of the global batch, their gradients, one update.

    batch (task, row, arrangement) ─► micro-batches ─► this rank's ─► token losses ─► sum / batch tokens ─► backward …
    ─► sum over ranks ─► all finite? ─► clip ─► update

A step minimises the mean loss per supervised token of the *global* batch. Micro-batches are the same whatever the
number of workers; with two of them a step, 1 worker and 2 workers add the same two gradients and agree bit for bit.

A step whose loss or gradient is not finite changes nothing (`train.skipping`). A step that runs out of memory is made
again in micro-batches of half the size, on all ranks, once in a run (`train.memory`). Both are decided on numbers that
were summed over the ranks, so that all ranks do the same.

This module knows nothing of plans, evaluation or checkpoints; see `train.loop`.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from train.batch import collate
from train.compilation import compiled
from train.config import ModelConfig, TrainConfig
from train.data.arrangement import ARRANGEMENTS, CHAIN, SINGLE
from train.data.store import EncodedRow, TokenStore
from train.memory import ALLOCATION_ERRORS, is_out_of_memory, out_of_memory, release
from train.micro_batches import MicroBatchLimits, cut, longest_row
from train.model import SupervisedLoss, pad_id
from train.own_answers import Place
from train.packing import accepts_packed
from train.parallel import Layout
from train.precision import compute_context
from train.schedule import StageTraining
from train.skipping import SkippedSteps, skipped_step, summed_over_ranks
from train.stream.batch import HASH_MASK, Batch
from train.tally import Tally

logger = logging.getLogger(__name__)


class _Micro(NamedTuple):
    """A micro-batch after its backward: its slots, the row in it of every supervised token, the tokens' losses [N]."""

    slots: np.ndarray
    rows: torch.Tensor
    losses: torch.Tensor


class Stepper:
    """Model, optimiser and this rank's share of every step.

    Attributes:
        max_length: Tokens of the longest training row, in any arrangement.
        tally: Losses and samples since the last boundary.
        last_loss: Mean loss per supervised token of the latest step's global batch, nats.
        skipped: Steps that changed nothing.
        num_halvings: How often micro-batches were halved because memory ran out, 0 or 1.
        num_arranged: int64 [3], samples of all ranks trained alone, as chain and as contrast since step 0.
        num_own_answers: Of the chains, those after the model's own earlier answer.
        layout: How the workers share the model.
        device: Where this rank computes.
        contexts: Rows whose chain is trained in the model's own words; the loop sets it anew every interval.
    """

    def __init__(
        self,
        *,
        rank: int,
        world_size: int,
        device: torch.device,
        model: Any,
        layout: Layout,
        optimizer: torch.optim.Optimizer,
        tokenizer: PreTrainedTokenizerBase,
        store: TokenStore,
        model_config: ModelConfig,
        train_config: TrainConfig,
        seed: int,
    ) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device
        self.layout, self._optimizer, self._store, self._seed = layout, optimizer, store, seed
        self._model_config = model_config
        self._pad_id = pad_id(tokenizer)
        self.max_length = longest_row(store)
        with compute_context(model_config, device):
            self._packed = accepts_packed(model, setting=train_config.packing, max_length=self.max_length)
            self._loss = SupervisedLoss(model).train()
            if train_config.compile:
                self._loss = compiled(self._loss, packed=self._packed, device=device, in_lockstep=layout.in_lockstep)
        num_tasks = len(store.task_names)
        self.lengths = [store.supervised_lengths(task) for task in range(num_tasks)]
        self.tally = Tally(num_tasks, device)
        self.last_loss = 0.0
        self.skipped = SkippedSteps(max_count=train_config.max_skipped_steps)
        self.num_halvings = 0
        self.num_arranged = np.zeros(len(ARRANGEMENTS), dtype=np.int64)
        self.num_own_answers = 0
        self.contexts: Mapping[Place, EncodedRow] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a later step depends on, or the run reports, beside weights and optimiser state."""
        return {"num_skipped": self.skipped.count, "num_halvings": self.num_halvings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`. Raises KeyError for what is none."""
        self.skipped.count, self.num_halvings = int(state["num_skipped"]), int(state["num_halvings"])

    def train(self, batch: Batch, *, stage: StageTraining, learning_rate: float) -> None:
        """Make the step.

        Raises:
            RunFailedError: Too many steps were skipped, or memory ran out although micro-batches were halved.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        done = self._gradients(batch, stage)
        while done is None:
            self._halve(batch.step, stage)
            done = self._gradients(batch, stage)
        norm = self.layout.clip(stage.max_grad_norm)
        is_finite = math.isfinite(norm) and math.isfinite(self.last_loss)
        if is_finite:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._note(batch, done, learnt=is_finite)
        self.num_arranged += self._realised(batch, stage)
        if not is_finite:
            self._skip(batch, done)

    def _gradients(self, batch: Batch, stage: StageTraining) -> list[_Micro] | None:
        """Gradients of the global batch, on every rank, and this rank's micro-batches; None if memory ran out.

        On every rank alike: the ranks that had memory enough have done it in vain.
        """
        batch_tokens = sum(int(self.lengths[task][row]) for task, row in _places(batch))
        parts = self._parts(batch, stage)
        mine = range(self.rank, len(parts), self.world_size)
        num_rounds = -(-len(parts) // self.world_size) if self.layout.in_lockstep else len(mine)
        done: list[_Micro] = []
        was_out_of_memory = False
        try:
            for turn in range(num_rounds):
                self.layout.before_backward(is_last=turn == num_rounds - 1)
                if turn < len(mine):
                    done.append(self._micro_batch(batch, parts[mine[turn]], stage, weight=1.0 / batch_tokens))
                else:  # to join in
                    self._micro_batch(batch, parts[0][:1], stage, weight=0.0)
        except ALLOCATION_ERRORS as error:
            if self.layout.in_lockstep or not is_out_of_memory(error):
                raise
            was_out_of_memory = True
        sums = [micro.losses.sum() for micro in done] or [torch.zeros((), device=self.device)]
        loss = sum(sums[1:], sums[0])
        numbers = torch.stack([loss, torch.full_like(loss, float(was_out_of_memory))])
        total_loss, num_out_of_memory = self.layout.sum_over_workers(numbers).tolist()
        if num_out_of_memory:
            self._optimizer.zero_grad(set_to_none=True)
            done.clear()
            release(self.device)
            return None
        self.last_loss = total_loss / batch_tokens
        return done

    def _parts(self, batch: Batch, stage: StageTraining) -> list[np.ndarray]:
        """The slots of every micro-batch of the step, the same on every rank."""
        limits = self._limits(stage)
        lengths = np.zeros(len(batch.tasks), dtype=np.int64)
        if limits.max_tokens is not None:
            encoded = self._encoded(batch, np.arange(len(batch.tasks)), stage)
            lengths = np.array([len(row.input_ids) for row in encoded])
        return cut(lengths, limits, packed=self._packed)

    def _limits(self, stage: StageTraining) -> MicroBatchLimits:
        halved = stage.micro_batches.halved(longest=self.max_length) if self.num_halvings else None
        return halved or stage.micro_batches

    def _halve(self, step: int, stage: StageTraining) -> None:
        before = self._limits(stage)
        after = None if self.num_halvings else before.halved(longest=self.max_length)
        if after is None:
            raise out_of_memory(step=step, limits=before, longest=self.max_length, was_halved=bool(self.num_halvings))
        self.num_halvings += 1
        logger.warning(
            "out of memory at step %d with micro-batches of %s: from here on they hold %s, the global batch stays as "
            "it is; lower train.micro_batch_size or train.micro_batch_tokens to begin like that",
            *(step, before, after),
        )

    def _micro_batch(self, batch: Batch, slots: np.ndarray, stage: StageTraining, *, weight: float) -> _Micro:
        """Forward and backward of some slots."""
        encoded = self._encoded(batch, slots, stage)
        tokens = collate(encoded, pad_id=self._pad_id, device=self.device, packed=self._packed)
        self._seed_dropout(hash((self._seed, batch.step, int(slots[0]))) & HASH_MASK)
        with compute_context(self._model_config, self.device):
            losses = self._loss(tokens)
        losses.backward(torch.full_like(losses, weight * self.layout.gradient_scale))
        return _Micro(slots, tokens.rows, losses.detach())

    def gradient(self, task: int, rows: Sequence[int], *, step: int) -> list[torch.Tensor]:
        """Gradient of the mean loss per supervised token over some rows of a task, shared out as the parameters are.

        For looking only, between two steps: every `.grad` is unset before and after. In lockstep all workers call it
        with the same rows; else any may, alone.
        """
        tokens = collate(
            [self._store.encoded(task, row) for row in rows],
            pad_id=self._pad_id,
            device=self.device,
            packed=self._packed,
        )
        self._seed_dropout(hash((self._seed, step, task, *rows)) & HASH_MASK)
        with compute_context(self._model_config, self.device):
            loss = self._loss(tokens).mean()
        parameters = self.layout.parameters
        if not self.layout.in_lockstep:
            return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
        self.layout.before_backward(is_last=True)
        loss.backward()
        found = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        self._optimizer.zero_grad(set_to_none=True)
        return found

    def most_tokens(self, stage: StageTraining) -> int:
        """Tokens that a row of the stage may have: of the longest training row, and within a micro-batch's limit."""
        limits = self._limits(stage)
        return self.max_length if limits.max_tokens is None else min(self.max_length, limits.max_tokens)

    def rows_at_once(self, stage: StageTraining) -> int:
        """Rows of any length that are within a micro-batch's limits."""
        limits = self._limits(stage)
        return limits.num_samples if limits.max_tokens is None else max(1, limits.max_tokens // self.max_length)

    def _note(self, batch: Batch, done: list[_Micro], *, learnt: bool) -> None:
        """Enter into the books what this rank has trained."""
        for slots, rows, losses in done:
            tasks = batch.tasks[slots]
            self.tally.add_losses(tasks=tasks, rows=rows, losses=losses, learnt=learnt)
            self.tally.add_slots(
                step=batch.step,
                slots=slots,
                tasks=tasks,
                rows=batch.rows[slots],
                arrangements=batch.arrangements[slots],
            )

    def _skip(self, batch: Batch, done: list[_Micro]) -> None:
        broken = np.zeros(len(batch.tasks), dtype=bool)
        for slots, rows, losses in done:
            broken[slots[rows[~losses.isfinite()].unique().cpu().numpy()]] = True
        self.skipped.add(skipped_step(self._store, batch, broken_slots=summed_over_ranks(broken)))

    def _encoded(self, batch: Batch, slots: np.ndarray, stage: StageTraining) -> list[EncodedRow]:
        """The rows of some slots, in the arrangement they are trained in."""
        found = []
        columns = (batch.tasks, batch.rows, batch.arrangements)
        for task, number, code in zip(*(column[slots].tolist() for column in columns), strict=True):
            row = self.contexts.get((task, number)) if code == CHAIN else None
            row = row or self._store.encoded(task, number, arrangement=code)
            if code != SINGLE and stage.max_length is not None and len(row.input_ids) > stage.max_length:
                row = self._store.encoded(task, number)
            found.append(row)
        return found

    def _seed_dropout(self, seed: int) -> None:
        """Dropout depends on (seed, step, micro-batch) alone, so that no random state has to be kept."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _realised(self, batch: Batch, stage: StageTraining) -> np.ndarray:
        """int64 [3]: slots by the arrangement they were trained in; what a row does not have falls back to single."""
        counts = np.zeros(len(ARRANGEMENTS), dtype=np.int64)
        slots = np.flatnonzero(batch.arrangements)
        for slot, row in zip(slots.tolist(), self._encoded(batch, slots, stage), strict=True):
            task, number, code = int(batch.tasks[slot]), int(batch.rows[slot]), int(batch.arrangements[slot])
            is_arranged = len(row.input_ids) > len(self._store.encoded(task, number).input_ids)
            counts[code] += is_arranged
            self.num_own_answers += is_arranged and code == CHAIN and (task, number) in self.contexts
        counts[SINGLE] = len(batch.tasks) - counts.sum()
        return counts


def _places(batch: Batch) -> list[Place]:
    return list(zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True))
