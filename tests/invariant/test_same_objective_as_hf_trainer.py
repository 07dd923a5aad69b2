"""Speed is not bought with another objective: on the same batches our loss curve is the Hugging Face Trainer's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments

from tests.invariant.small_job import BATCH_SIZE, LEARNING_RATE, MAX_NORM, NUM_STEPS, Curve, Job
from train.config import TrainConfig
from train.data.store import EncodedRow

IGNORED = -100


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.make(tmp_path_factory.mktemp("same"))


class Rows(Dataset[EncodedRow]):
    def __init__(self, rows: list[EncodedRow]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> EncodedRow:
        return self.rows[index]


class InOrder(Trainer):
    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


def padded(rows: list[EncodedRow]) -> dict[str, torch.Tensor]:
    """As everybody pads: labels of -100 wherever nothing is to be learnt."""
    width = max(len(row.input_ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for index, row in enumerate(rows):
        tokens = torch.from_numpy(row.input_ids.astype(np.int64))
        ids[index, : len(tokens)], mask[index, : len(tokens)] = tokens, 1
        labels[index, row.answer_start : len(tokens)] = tokens[row.answer_start :]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train_with_hf(folder: Path, job: Job) -> Curve:
    model = job.model()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=NUM_STEPS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=MAX_NORM,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        optim="adamw_torch_fused",
    )
    rows = [row for batch in job.batches for row in job.rows(batch)]
    trainer = InOrder(model=model, args=arguments, train_dataset=Rows(rows), data_collator=padded)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return Curve([entry["loss"] for entry in trainer.state.log_history if "loss" in entry], model.state_dict())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, job: Job) -> Curve:
    return train_with_hf(tmp_path_factory.mktemp("hf"), job)


@pytest.mark.parametrize("packing", ["off", "on"])
@pytest.mark.parametrize("micro_batch_size", [BATCH_SIZE, 2], ids=["one micro-batch", "accumulated"])
def test_the_loss_curve_and_the_weights_are_those_of_the_hugging_face_trainer(
    packing: Any, micro_batch_size: int, job: Job, reference: Curve
) -> None:
    config = TrainConfig(global_batch_size=BATCH_SIZE, micro_batch_size=micro_batch_size, packing=packing)
    found = job.train(config)
    assert len(found.losses) == len(reference.losses) == NUM_STEPS
    assert found.losses[-1] < 0.75 * found.losses[0]
    np.testing.assert_allclose(found.losses, reference.losses, rtol=0, atol=2e-4)  # the trainer logs four decimals
    assert abs((np.array(found.losses) - np.array(reference.losses)).mean()) < 5e-5  # no shift that goes one way
    for name, value in found.weights.items():
        torch.testing.assert_close(value, reference.weights[name], rtol=2e-3, atol=2e-4)
