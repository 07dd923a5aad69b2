"""Training loops under comparison in `bench.throughput`: ours, the limit of hand-written code, and what people use.

All train the same rows with the same optimiser and answer-only loss; each has its own copy of one model. A loop is
given the rows of its steps and says how much CPU time they took, its own setup left out.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from transformers import (
    DataCollatorWithFlattening,
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from bench.product_step import LEARNING_RATE, MAX_GRAD_NORM, ProductStep
from train.attention import PackedSequences
from train.config import PretrainedModel
from train.data.store import EncodedRow
from train.model import trainable_parameters
from train.packing import accepts_packed
from train.stream.mixture import MixtureStream

BATCH_SIZE = 16


class Setting(NamedTuple):
    """What is trained on what: a llama of these sizes, rows by task, all weights or adapters, autocast or not."""

    model: LlamaConfig
    rows: Sequence[Sequence[EncodedRow]]
    use_lora: bool
    use_bf16: bool

    def build(self) -> Any:
        """Equal weights at every call."""
        torch.manual_seed(0)
        model = LlamaForCausalLM(self.model).train()
        if not self.use_lora:
            return model
        return get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        )

    def autocast(self) -> Any:
        """The context of a forward."""
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.use_bf16 else nullcontext()

    def stream(self) -> MixtureStream:
        """The mixture every loop's rows come from, equal shares."""
        stream = MixtureStream(num_rows=[len(rows) for rows in self.rows], batch_size=BATCH_SIZE, seed=0)
        stream.set_weights(np.full(len(self.rows), 1 / len(self.rows)))
        return stream

    def steps(self) -> Iterator[list[EncodedRow]]:
        """The rows of every step."""
        stream = self.stream()
        while True:
            batch = stream.next_batch()
            yield [self.rows[task][row] for task, row in zip(batch.tasks, batch.rows, strict=True)]


class Loop(Protocol):
    """A training loop that goes on where it stopped."""

    def run(self, steps: Sequence[Sequence[EncodedRow]]) -> float:
        """Train the steps and return the CPU-seconds they took."""
        ...


def make_optimizer(model: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(trainable_parameters(model).values(), lr=LEARNING_RATE, fused=True)


class HandWritten:
    """The limit: one line of tokens through the layers' own weights, one causal SDPA a row, head at answers only."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._model = setting, setting.build()
        self._base = self._model.get_base_model() if setting.use_lora else self._model
        self._parameters = list(trainable_parameters(self._model).values())
        self._optimizer = make_optimizer(self._model)

    def run(self, steps: Sequence[Sequence[EncodedRow]]) -> float:
        start = time.process_time()
        for rows in steps:
            lengths = [len(row.input_ids) for row in rows]
            ids = torch.from_numpy(np.concatenate([row.input_ids for row in rows])).long()
            positions = torch.cat([torch.arange(length) for length in lengths])
            starts = np.cumsum([0, *lengths[:-1]])
            targets = np.concatenate([np.arange(*(row.spans[0] + at)) for row, at in zip(rows, starts, strict=True)])
            targets = torch.from_numpy(targets)
            with self._setting.autocast():
                logits = self._logits(ids, positions, lengths, targets - 1)
            loss = functional.cross_entropy(logits.float(), ids[targets])
            loss.backward()
            clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        return time.process_time() - start

    def _logits(
        self, ids: torch.Tensor, positions: torch.Tensor, lengths: list[int], predicts: torch.Tensor
    ) -> torch.Tensor:
        core, num_heads = self._base.model, self._base.config.num_attention_heads
        hidden = core.embed_tokens(ids)
        cos, sin = core.rotary_emb(hidden[None], positions[None])
        for layer in core.layers:
            normed, attention = layer.input_layernorm(hidden), layer.self_attn
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            query, key, value = (
                projection(normed).view(1, len(ids), num_heads, -1).transpose(1, 2) for projection in projections
            )
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
            mixed = [functional.scaled_dot_product_attention(*part, is_causal=True).transpose(1, 2) for part in parts]
            hidden = hidden + attention.o_proj(torch.cat(mixed, 1).view(len(ids), -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self._base.lm_head(core.norm(hidden)[predicts])


class RawCalls:
    """The model as transformers has it, called by the fewest lines a packed loop can have, without bookkeeping."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._model = setting, setting.build()
        assert accepts_packed(self._model, setting="on", max_length=setting.model.max_position_embeddings)
        self._parameters = list(trainable_parameters(self._model).values())
        self._optimizer = make_optimizer(self._model)

    def run(self, steps: Sequence[Sequence[EncodedRow]]) -> float:
        start = time.process_time()
        for rows in steps:
            lengths = tuple(len(row.input_ids) for row in rows)
            ids = torch.from_numpy(np.concatenate([row.input_ids for row in rows])).long()
            starts = np.cumsum([0, *lengths[:-1]])
            targets = np.concatenate([np.arange(*(row.spans[0] + at)) for row, at in zip(rows, starts, strict=True)])
            targets = torch.from_numpy(targets)
            with self._setting.autocast():
                logits = self._model(
                    input_ids=ids[None],
                    position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
                    packed_sequences=PackedSequences(lengths, torch.tensor([*starts, len(ids)], dtype=torch.int32)),
                    logits_to_keep=targets - 1,
                    use_cache=False,
                ).logits[0]
            functional.cross_entropy(logits.float(), ids[targets]).backward()
            clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        return time.process_time() - start


class Ours:
    """The step of the product, `train.step.Stepper`, with stream, token store and bookkeeping."""

    def __init__(self, setting: Setting, *, packing: bool) -> None:
        config = PretrainedModel(path="made", dtype="bfloat16" if setting.use_bf16 else "float32")
        self._stream = setting.stream()
        self._step = ProductStep(setting.build(), setting.rows, config=config, batch_size=BATCH_SIZE, packing=packing)

    def run(self, steps: Sequence[Sequence[EncodedRow]]) -> float:
        start = time.process_time()
        for _ in steps:
            self._step.train(self._stream.next_batch())
        return time.process_time() - start


class Clock(TrainerCallback):
    """CPU time from the first step's beginning to the last one's end."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if state.global_step == 0:
            self.begin_s = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self.end_s = time.process_time()


class HuggingFaceTrainer:
    """transformers.Trainer over the same rows, in its own order; `flatten` uses DataCollatorWithFlattening."""

    def __init__(self, setting: Setting, *, sampling: str = "random", flatten: bool = False) -> None:
        self._model = setting.build()
        self._optimizer = make_optimizer(self._model)
        self._collator: Any = DataCollatorWithFlattening() if flatten else _pad
        self._arguments: dict[str, Any] = {
            "output_dir": "unused",
            "per_device_train_batch_size": BATCH_SIZE,
            "num_train_epochs": 1,
            "train_sampling_strategy": sampling,
            "bf16": setting.use_bf16,
            "use_cpu": True,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "max_grad_norm": MAX_GRAD_NORM,
        }

    def run(self, steps: Sequence[Sequence[EncodedRow]]) -> float:
        clock = Clock()
        constant = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda _: 1.0)
        trainer = Trainer(
            model=self._model,
            args=TrainingArguments(**self._arguments),
            train_dataset=[trainer_feature(row) for rows in steps for row in rows],  # pyright: ignore[reportArgumentType]
            data_collator=self._collator,
            optimizers=(self._optimizer, constant),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.end_s - clock.begin_s


def trainer_feature(row: EncodedRow) -> dict[str, Any]:
    labels = np.where(np.arange(len(row.input_ids)) >= row.spans[0, 0], row.input_ids, -100)
    return {"input_ids": row.input_ids.tolist(), "labels": labels.tolist()}


def _pad(features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    def padded(name: str, fill: int) -> torch.Tensor:
        rows = [torch.tensor(feature[name]) for feature in features]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)

    lengths = torch.tensor([len(feature["input_ids"]) for feature in features])
    ids = padded("input_ids", 0)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": padded("labels", -100)}
