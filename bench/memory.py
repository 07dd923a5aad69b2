"""Peak memory of a worker that trains SmolLM2-135M: ours beside the Hugging Face Trainer, on the same rows.

    python -m bench.memory [--quick] [--check]

Each contender runs in a process of its own, one after the other and round after round, and reports by how much its peak
resident memory lies above what it had before the model was loaded; the table shows the median. LoRA, and under all but
`--quick` all weights; float32, one thread, a batch of 8 rows of 24 to 128 tokens with an answer of 16, in one piece. So
what is compared is the loop: model, optimiser and rows are the same. `--check` exits 1 where ours takes more than the
Trainer. `make smollm2` fetches the model.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from bench.ending import conclude
from bench.product_step import ProductStep
from train.config import LoraConfig, PretrainedModel
from train.data.store import EncodedRow
from train.model import build_model
from train.model_path import load_tokenizer
from train.stream.batch import Batch

MODEL = Path(__file__).parents[1] / "models" / "smollm2-135m-instruct"
OURS, TRAINER = "ours", "HF Trainer"
_CPU = torch.device("cpu")
_BATCH_SIZE, _ANSWER_TOKENS = 8, 16


def main() -> int:
    """Run the contenders, or be one of them."""
    parser = argparse.ArgumentParser(description="peak memory of a training worker")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--contender", choices=(OURS, TRAINER), help=argparse.SUPPRESS)
    parser.add_argument("--lora", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender is not None:
        print(json.dumps({"peak_mib": peak_mib(arguments.contender, use_lora=arguments.lora)}))
        return 0
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} is not there: run make smollm2 first")
    kinds, num_rounds = ([True], 1) if arguments.quick else ([True, False], 3)
    found = {"LoRA" if use_lora else "all weights": _rounds(use_lora, num_rounds) for use_lora in kinds}
    missed: list[str] = []
    for kind, peaks in found.items():
        ours, trainer = (statistics.median(peaks[name]) for name in (OURS, TRAINER))
        print(f"{kind:12} ours {ours:7.0f} MiB   HF Trainer {trainer:7.0f} MiB   ratio {ours / trainer:.2f}")
        if ours > trainer:
            missed.append(f"{kind}: {ours:.0f} MiB, more than the Trainer's {trainer:.0f}")
    return conclude("memory", found, missed, check=arguments.check)


def _rounds(use_lora: bool, num_rounds: int) -> dict[str, list[float]]:
    peaks: dict[str, list[float]] = {OURS: [], TRAINER: []}
    for number in range(num_rounds):
        for name in (OURS, TRAINER) if number % 2 == 0 else (TRAINER, OURS):
            command = [sys.executable, "-W", "ignore", "-m", "bench.memory", "--contender", name]
            done = subprocess.run([*command, *["--lora"] * use_lora], check=True, capture_output=True, text=True)
            peaks[name].append(json.loads(done.stdout.splitlines()[-1])["peak_mib"])
    return peaks


def peak_mib(contender: str, *, use_lora: bool, num_steps: int = 4) -> float:
    """Train in this process; what its peak lies above the memory it begins with, MiB."""
    torch.set_num_threads(1)
    rows = _rows(num_steps)
    before = _peak_kib()
    config = PretrainedModel(path=str(MODEL), dtype="float32", lora=LoraConfig() if use_lora else None)
    if contender == OURS:
        _train_ours(config, rows)
    else:
        _train_with_trainer(config, rows)
    return (_peak_kib() - before) / 1024


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _rows(num_steps: int) -> list[list[EncodedRow]]:
    rng = np.random.default_rng(0)

    def row() -> EncodedRow:
        length = int(rng.integers(24, 129))
        ids = rng.integers(100, 40_000, size=length, dtype=np.int32)
        return EncodedRow(ids, np.array([[length - _ANSWER_TOKENS, length]], dtype=np.int32))

    return [[row() for _ in range(_BATCH_SIZE)] for _ in range(num_steps)]


def _train_ours(config: PretrainedModel, steps: list[list[EncodedRow]]) -> None:
    model: Any = build_model(config, load_tokenizer(MODEL), device=_CPU, seed=0)
    step = ProductStep(
        model, [[row for rows in steps for row in rows]], config=config, batch_size=_BATCH_SIZE, packing=True
    )
    for number in range(len(steps)):
        rows = np.arange(number * _BATCH_SIZE, (number + 1) * _BATCH_SIZE)
        zeros = np.zeros(_BATCH_SIZE, dtype=np.int32)
        step.train(Batch(number, zeros, rows, zeros.astype(np.int8)))


def _train_with_trainer(config: PretrainedModel, steps: list[list[EncodedRow]]) -> None:
    model = build_model(config, load_tokenizer(MODEL), device=_CPU, seed=0).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4, fused=True)
    arguments = TrainingArguments(
        output_dir="unused",
        per_device_train_batch_size=_BATCH_SIZE,
        num_train_epochs=1,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_grad_norm=1.0,
    )
    rows: Any = [_feature(row) for step in steps for row in step]
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=_pad,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _feature(row: EncodedRow) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(row.input_ids.astype(np.int64))
    labels = torch.where(torch.arange(len(ids)) >= row.answer_start, ids, -100)
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def _pad(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    fills = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    return {
        name: torch.nn.utils.rnn.pad_sequence([one[name] for one in features], batch_first=True, padding_value=fill)
        for name, fill in fills.items()
    }


if __name__ == "__main__":
    sys.exit(main())
