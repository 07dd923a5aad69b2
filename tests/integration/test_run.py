"""What a user does: train on own files in every mode, with own weights, and use the result with plain libraries."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cluster.audit import audit
from cluster.config import LaunchConfig, RunConfig
from cluster.run import start_run
from cluster.settings import load_config
from scheduler.ledger import read_ledger
from scheduler.records import IntervalRecord, SignalRecord
from tests.integration.tiny_run import start
from tests.tiny_tasks import write_tasks
from train.tokenizer import train_byte_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280), pytest.mark.usefixtures("local_ray")]


def test_sync_mode_trains_every_interval_under_the_plan_of_its_own_evaluation(tmp_path: Path) -> None:
    root = start(tmp_path, "sync", "mixture.mode=sync")
    intervals = [record for record in read_ledger(root) if isinstance(record, IntervalRecord)]
    assert [record.staleness_steps for record in intervals if record.report.step < 40] == [0, 0, 0, 0]
    assert audit(root).num_steps == 40


def test_async_mode_with_a_worker_to_spare_replays_and_counts_the_verdicts_of_people(tmp_path: Path) -> None:
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text('{"task": "copy", "verdict": "rejected"}\n{"task": "copy", "verdict": "accepted"}\n')
    overrides = ("mixture.mode=async", f"evaluation.human_verdicts={verdicts}")
    root = start(tmp_path, "async", *overrides, num_workers=3, cpus_per_worker=0.5)
    assert sum(audit(root).num_samples) == 40 * 8
    signals = [record.signal for record in read_ledger(root) if isinstance(record, SignalRecord)]
    assert {signal.num_human_rejected for signal in signals if signal.task == "copy"} == {1}


def test_four_lines_of_config_adapt_a_pretrained_model_that_plain_peft_loads(tmp_path: Path) -> None:
    paths = write_tasks(tmp_path / "data")
    save_pretrained_model(tmp_path / "base", paths)
    config_path = tmp_path / "run.yaml"
    config_path.write_text("model: {path: ./base}\ndata: [data/copy.jsonl, data/last.jsonl]\ntrain: {steps: 12}\n")
    config = load_config(RunConfig, files=[config_path], overrides=[f"output.dir={tmp_path}/runs", "output.name=lora"])
    start_run(config, LaunchConfig())
    root = tmp_path / "runs" / "lora"
    report = json.loads((root / "report.json").read_text())
    assert set(report["tasks"]) == {"copy", "last"}
    assert report["num_steps"] == 12
    assert "https://" not in (root / "report.html").read_text().split("<script")[0]
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(root / "adapter")
    prompt = tokenizer("copy\na b c", return_tensors="pt")
    adapted = PeftModel.from_pretrained(base, str(root / "adapter"))
    assert adapted.generate(**prompt, max_new_tokens=4, do_sample=False).shape[1] > prompt["input_ids"].shape[1]
    assert "copy" in (root / "adapter" / "README.md").read_text()


def save_pretrained_model(folder: Path, paths: list[Path]) -> None:
    """A small Hugging Face model folder, as a user would have it."""
    texts = [line for path in paths for line in path.read_text().splitlines()]
    tokenizer = train_byte_tokenizer(texts, vocab_size=300)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
