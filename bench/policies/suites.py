"""The suites of real runs: which example they train, how it is cut to size, and what is absent here.

Every suite is an example's own configuration with the same changes for all arms: one stage, probe, selection and test
rows held apart, and every task worth the same, so that arms differ in nothing but the mixture. Tiers and targets of the
cards stay: they are what a user tells the engine.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from bench.policies.arms import PROBES_READ, Arm, nested, reading
from cluster.config import RunConfig
from cluster.data import task_cards
from cluster.settings import load_config
from examples.finrisk.generate import write_corpus as write_finrisk
from examples.symbols.generate import write_corpus as write_symbols

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "bench" / "results" / "policies" / "corpus"
_DATA_VARIABLE = "TASKHEAT_DATA"
_SHUFFLE_OF = "unit_identification"
_FEW_PROBES = {
    "mixture.allocation": reading(PROBES_READ),
    "evaluation.sampled_probes": 2,
    "evaluation.samples_per_probe": 2,
}
_FEWEST_SAMPLES = {"evaluation.sampled_probes": 1, "evaluation.samples_per_probe": 2}


@dataclass(frozen=True, slots=True)
class RealSuite:
    """One suite.

    Attributes:
        name: As on the command line.
        words: What it is.
        files: Configuration files, later ones over earlier ones.
        settings: Changes by path, the same for all arms.
        random_tasks: Tasks with random labels.
        seeds: Seeds in a full run.
        make: Writes the data that the files name, or says why it cannot.
    """

    name: str
    words: str
    files: tuple[Path, ...]
    settings: Mapping[str, Any]
    random_tasks: tuple[str, ...]
    seeds: int
    make: Callable[[], str | None]
    quick: Mapping[str, Any] = field(default_factory=dict)

    def config(self, arm: Arm, *, seed: int, folder: Path, quick: bool) -> RunConfig:
        """The run of an arm, before its steps are cut to what its probes leave."""
        written, cards = _written(self.files)
        changes = {
            "stages": [{"name": "tasks"}],
            "data.tasks_file": None,
            "tasks": cards,
            "seed": seed,
            "output.dir": folder,
            **self.settings,
            **(self.quick if quick else {}),
            **({} if arm.samples_answers else _FEWEST_SAMPLES),
            **{f"mixture.{path}": value for path, value in arm.settings.items()},
        }
        return RunConfig.model_validate(nested(changes, over=written))


@cache
def _written(files: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the files write, and their cards by task, all of equal worth."""
    with _variable(_DATA_VARIABLE):
        config = load_config(RunConfig, files=files)
    cards = {name: card.model_dump(exclude={"name"}) for name, card in task_cards(config).items()}
    equal = {name: {**card, "business_value": 1.0, "base_weight": None} for name, card in cards.items()}
    return config.model_dump(exclude_unset=True), equal


@contextmanager
def _variable(name: str) -> Iterator[None]:
    """The variable set to something, so that a file that names it can be read where the data are absent."""
    absent = name not in os.environ
    os.environ.setdefault(name, "absent")
    try:
        yield
    finally:
        if absent:
            del os.environ[name]


def _make_symbols() -> str | None:
    corpus = ROOT / "examples" / "symbols" / "corpus"
    if not (corpus / "sort_duplicate.jsonl").exists():
        write_symbols(corpus, seed=0, variant="noise_saturated_duplicate")
    return None


def _make_finrisk() -> str | None:
    corpus = ROOT / "examples" / "finrisk" / "corpus"
    if not (corpus / "memo.jsonl").exists():
        write_finrisk(corpus)
    return None


_SHUFFLED = "shuffled"
_SMOLLM2_PROBES = 6
_SMOLLM2_ROWS = {
    "question_formation": 3000,
    "unit_addition": 2500,
    "question_typing": 2000,
    "past_tense": 1500,
    "colored_objects": 1100,
    "reverse_list": 800,
    "intent_recognition": 600,
    "object_counting": 400,
    "add_2digit": 300,
    "sub_2digit": 200,
}


def _make_smollm2() -> str | None:
    if not (ROOT / "models" / "smollm2-135m-instruct" / "config.json").is_file():
        return "the model is not at models/smollm2-135m-instruct; `make smollm2` fetches it"
    data = os.environ.get(_DATA_VARIABLE, "")
    missing = [
        name for name in (*_SMOLLM2_ROWS, _SHUFFLE_OF) if not (Path(data) / "bigbench" / f"{name}.jsonl").is_file()
    ]
    if missing:
        return f"{_DATA_VARIABLE} names no folder with bigbench/{missing[0]}.jsonl"
    write_shuffled(Path(data) / "bigbench" / f"{_SHUFFLE_OF}.jsonl", CORPUS / f"{_SHUFFLED}.jsonl", num_rows=800)
    return None


def write_shuffled(source: Path, out: Path, *, num_rows: int) -> None:
    """Write the first rows of `source` with their targets dealt out at random: a task with nothing to learn."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()[:num_rows]]
    targets = [row["target"] for row in rows]
    Random(0).shuffle(targets)
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({**row, "target": target}) for row, target in zip(rows, targets, strict=True))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _smollm2_sources() -> list[dict[str, Any]]:
    folder = Path(os.environ.get(_DATA_VARIABLE, "")) / "bigbench"
    files = {name: (folder / f"{name}.jsonl", rows) for name, rows in _SMOLLM2_ROWS.items()}
    files[_SHUFFLED] = (CORPUS / f"{_SHUFFLED}.jsonl", 800)
    return [
        {"path": path, "task": name, "columns": {"output": "target"}, "max_rows": rows}
        for name, (path, rows) in files.items()
    ]


SYMBOLS = RealSuite(
    name="symbols",
    words="fourteen symbol tasks with pools from 700 to 12,000 rows, among them one of random labels, one that repeats "
    "another and one that is saturated; a llama of half a million parameters trained from scratch",
    files=(ROOT / "examples/symbols/run.yaml", ROOT / "examples/symbols/distractors.yaml"),
    settings={
        "train.steps": 1200,
        "mixture.interval_steps": 60,
        "data.probes_per_task": 32,
        "data.selection_per_task": 32,
        "data.test_per_task": 150,
        **_FEW_PROBES,
    },
    random_tasks=("noise",),
    seeds=10,
    make=_make_symbols,
    quick={"train.steps": 60, "mixture.interval_steps": 20, "data.test_per_task": 32},
)
FINRISK = RealSuite(
    name="finrisk",
    words="ten financial-risk tasks with pools from 120 to 3,600 rows; a llama of half a million parameters trained "
    "from scratch",
    files=(ROOT / "examples/finrisk/run.yaml",),
    settings={
        "train.steps": 1200,
        "mixture.interval_steps": 60,
        "data.probes_per_task": 24,
        "data.selection_per_task": 32,
        "data.test_per_task": 150,
        **_FEW_PROBES,
    },
    random_tasks=(),
    seeds=10,
    make=_make_finrisk,
    quick={"train.steps": 60, "mixture.interval_steps": 20, "data.test_per_task": 32},
)
SMOLLM2 = RealSuite(
    name="smollm2",
    words="SmolLM2-135M-Instruct with LoRA on ten BIG-bench tasks cut to 200-3,000 rows and one whose answers were "
    f"dealt out at random; {_SMOLLM2_PROBES} probes of a task are read",
    files=(ROOT / "examples/smollm2/run.yaml",),
    settings={
        "model.dtype": "float32",
        "data.sources": _smollm2_sources(),
        "data.probes_per_task": 24,
        "data.selection_per_task": 12,
        "data.test_per_task": 64,
        "train.steps": 200,
        "train.warmup_steps": 10,
        "train.micro_batch_size": 8,
        "mixture.interval_steps": 40,
        "mixture.allocation": reading(_SMOLLM2_PROBES),
        **_FEWEST_SAMPLES,
    },
    random_tasks=(_SHUFFLED,),
    seeds=2,
    make=_make_smollm2,
    quick={"train.steps": 6, "mixture.interval_steps": 3, "data.test_per_task": 4, "data.probes_per_task": 4},
)
REAL_SUITES: Mapping[str, RealSuite] = {suite.name: suite for suite in (SYMBOLS, FINRISK, SMOLLM2)}
