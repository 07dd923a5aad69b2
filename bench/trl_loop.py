"""TRL's SFTTrainer as a contender in `bench.throughput`; importing this needs the `bench` extra.

The rows are given tokenised and with labels, so that only training is timed. Under `packing` TRL lays rows end to end
into sequences of at most 512 tokens (best fit decreasing) and a step has as many of those as hold the tokens of a
step; every row is trained once either way, so the useful tokens of a turn are the same.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from datasets import Dataset, disable_progress_bars  # pyright: ignore[reportMissingImports]
from transformers import PrinterCallback
from trl.trainer.sft_config import SFTConfig  # pyright: ignore[reportMissingImports]
from trl.trainer.sft_trainer import SFTTrainer  # pyright: ignore[reportMissingImports]

from bench.product_step import word_tokenizer
from bench.training_loops import BATCH_SIZE, Clock, Setting, make_optimizer, trainer_feature
from train.data.store import EncodedRow

Layout = Literal["padded", "packing", "padding_free"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class TrlTrainer:
    """SFTTrainer over the same rows, in its own order."""

    def __init__(self, setting: Setting, *, layout: Layout) -> None:
        self._model = setting.build()
        self._optimizer = make_optimizer(self._model)
        self._layout: Layout = layout
        self._longest = setting.model.max_position_embeddings
        self._use_bf16 = setting.use_bf16
        self._tokenizer = word_tokenizer()

    def run(self, steps: Sequence[Sequence[EncodedRow]]) -> float:
        """Train the steps and return the CPU-seconds they took."""
        rows = [row for step in steps for row in step]
        clock = Clock()
        disable_progress_bars()
        trainer = SFTTrainer(
            model=self._model,
            args=self._arguments(rows),
            train_dataset=Dataset.from_list([trainer_feature(row) for row in rows]),
            processing_class=self._tokenizer,
            optimizers=(self._optimizer, torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda _: 1.0)),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.end_s - clock.begin_s

    def _arguments(self, rows: Sequence[EncodedRow]) -> Any:
        num_tokens = sum(len(row.input_ids) for row in rows)
        packed_rows = max(1, round(BATCH_SIZE * num_tokens / len(rows) / self._longest))
        return SFTConfig(
            output_dir="unused",
            per_device_train_batch_size=packed_rows if self._layout == "packing" else BATCH_SIZE,
            num_train_epochs=1,
            max_length=self._longest if self._layout == "packing" else None,  # no row is longer
            packing=self._layout == "packing",
            padding_free=self._layout == "padding_free",
            completion_only_loss=False,  # the labels leave the prompt out already
            activation_checkpointing=False,
            bf16=self._use_bf16,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_grad_norm=1.0,
        )
