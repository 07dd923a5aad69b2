"""The project's own optimiser step, `train.step.Stepper`, over rows made up by a benchmark.

Rows lie in a token store as a preparation would have written it, so that reading them is part of the step. One process;
what several do together, and everything between two intervals, is left out.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from train.config import SPLITS, ModelConfig, TrainConfig
from train.data.store import STORE_SCHEMA, EncodedRow, SplitWriter, TokenStore
from train.micro_batches import MicroBatchLimits
from train.parallel import lay_out
from train.schedule import StageTraining
from train.step import Stepper
from train.stream.batch import Batch

CPU = torch.device("cpu")
LEARNING_RATE = 1e-4
MAX_GRAD_NORM = 1.0


class ProductStep:
    """Model, optimiser and stepper as a worker has them.

    Attributes:
        model: What is trained.
        stepper: Makes the steps.
    """

    def __init__(
        self, model: Any, rows: Sequence[Sequence[EncodedRow]], *, config: ModelConfig, batch_size: int, packing: bool
    ) -> None:
        self.model, layout = lay_out(lambda _: model, parallelism="ddp", device=CPU)
        self.stepper = Stepper(
            rank=0,
            world_size=1,
            device=CPU,
            model=model,
            layout=layout,
            optimizer=torch.optim.AdamW(layout.parameters, lr=LEARNING_RATE, fused=True),
            tokenizer=word_tokenizer(),
            store=stored(rows),
            model_config=config,
            train_config=TrainConfig(
                global_batch_size=batch_size, micro_batch_size=batch_size, packing="on" if packing else "off"
            ),
            seed=0,
        )
        self._stage = StageTraining(
            learning_rate=LEARNING_RATE,
            warmup_steps=0,
            max_grad_norm=MAX_GRAD_NORM,
            micro_batches=MicroBatchLimits(batch_size),
        )

    def train(self, batch: Batch) -> None:
        """Make the step of a batch, in one micro-batch."""
        self.stepper.train(batch, stage=self._stage, learning_rate=LEARNING_RATE)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the token that fills up, and the one that ends an answer."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="</s>",
    )


def stored(rows: Sequence[Sequence[EncodedRow]]) -> TokenStore:
    """Training rows by task as a token store; its files live as long as it does."""
    with tempfile.TemporaryDirectory() as name:
        write_store(Path(name), rows)
        return TokenStore.open(Path(name))


def write_store(folder: Path, rows: Sequence[Sequence[EncodedRow]]) -> None:
    """Write training rows by task as a token store whose other sets are empty; tasks are `task 0`, `task 1`, …"""
    for split in SPLITS:
        own = rows if split == "train" else [[] for _ in rows]
        flat = [row for task in own for row in task]
        sizes = {f"task {number}": len(task) for number, task in enumerate(own)}
        with SplitWriter(folder / f"{split}.arrow", sizes, batch_starts=[0, len(flat)]) as writer:
            writer.write(_columns(flat))


def _columns(rows: Sequence[EncodedRow]) -> dict[str, pa.Array]:
    lists = {
        "spans": [row.spans.reshape(-1) for row in rows],
        "input_ids": [row.input_ids for row in rows],
        **{name: [np.empty(0, np.int32)] * len(rows) for name in ("chain_ids", "contrast_ids", "chain_answer")},
    }
    numbers = {
        "line": [0] * len(rows),
        "difficulty": [None] * len(rows),
        "num_supervised": [int((row.spans[:, 1] - row.spans[:, 0]).sum()) for row in rows],
        "chain_task": [-1] * len(rows),
    }
    texts = {item.name: [""] * len(rows) for item in STORE_SCHEMA if item.type == pa.string()}
    return {name: pa.array(values, STORE_SCHEMA.field(name).type) for name, values in (lists | numbers | texts).items()}
