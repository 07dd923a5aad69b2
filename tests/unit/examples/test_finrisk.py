"""The demo corpus: reproducible, distinct, uneven, varied, and right wherever a rule can tell."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.finrisk.generate import RECIPES, task_rows, write_corpus
from examples.finrisk.rulebook import LICENCE
from examples.finrisk.verify import verify_row
from scheduler.errors import ConfigError, DataError
from scheduler.task import TaskSpec
from train.config import DataConfig, TinyModel, TrainConfig
from train.data.rules import check_output

FINRISK = Path(__file__).parents[3] / "examples" / "finrisk"
TASKS = [recipe.task for recipe in RECIPES]
RECIPE_OF = {recipe.task: recipe for recipe in RECIPES}

Row = dict[str, Any]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    paths = write_corpus(tmp_path_factory.mktemp("corpus"))
    return {task: [json.loads(line) for line in path.open(encoding="utf-8")] for task, path in paths.items()}


@pytest.fixture(scope="module")
def specs() -> dict[str, TaskSpec]:
    cards = yaml.safe_load((FINRISK / "tasks.yaml").read_text(encoding="utf-8"))["tasks"]
    return {name: TaskSpec(name=name, **card) for name, card in cards.items()}


def test_equal_seeds_write_equal_bytes_and_other_seeds_other_rows(tmp_path: Path) -> None:
    first, second, third = (
        {task: path.read_bytes() for task, path in write_corpus(tmp_path / name, seed=seed, scale=0.1).items()}
        for name, seed in [("first", 3), ("second", 3), ("third", 4)]
    )
    assert first == second
    assert all(first[task] != third[task] for task in TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_follows_from_instruction_and_input_alone(task: str, corpus: dict[str, list[Row]]) -> None:
    assert [fault for row in corpus[task] if (fault := verify_row(task, row))] == []


@pytest.mark.parametrize("task", TASKS)
def test_another_rows_answer_is_found_wrong(task: str, corpus: dict[str, list[Row]]) -> None:
    row = corpus[task][0]
    other = next(other["output"] for other in corpus[task] if other["output"] != row["output"])
    assert verify_row(task, {**row, "output": other}) is not None


def test_the_verifier_knows_worked_examples() -> None:
    def fault(task: str, instruction: str, text: str, output: str) -> str | None:
        return verify_row(task, {"instruction": instruction, "input": text, "output": output})

    assert fault("credit_spread", "Spread?", "tech 1y A: yield 6.1%, base 2.5%", "3.6%") is None
    assert fault("expected_loss", "Expected loss?", "tech 1y A: PD 4%, LGD 55%, EAD 46", "1.01") is None
    assert fault("expected_loss", "Expected loss?", "tech 1y A: PD 1%, LGD 10%, EAD 15", "0.02") is None
    assert fault("expected_loss", "Expected loss?", "tech 1y A: PD 1%, LGD 10%, EAD 15", "0.01") is not None
    assert fault("liquidity_coverage", "LCR?", "bank 1y A: HQLA 27, outflow 25", "108%") is None
    assert fault("lcr_chain", "Step 2: risk?", "bank 1y A: HQLA 24, outflow 20; LCR 120%", "low") is None
    assert fault("lcr_chain", "Step 2: risk?", "bank 1y A: HQLA 20, outflow 20; LCR 120%", "low") is not None
    assert fault("compliance", "Rule?", "swap; energy 5y BBB", "not allowed, FR-13 s.2") is None
    assert fault("risk_attribution", "Main loss?", "bank 5y A: 2 oil, 8 FX, 4 rates", "8 FX") is None
    assert fault("look_back", "变化?", "银行 5年 A: Q4 7%, Q1 2%, Q2 3%", "下降 4%") is None
    assert fault("look_back", "Peak?", "bank 5y A: Q4 7%, Q1 2%, Q2 3%", "Q4 at 7%") is None
    assert fault("redaction", "Make it safe.", "client Ann Lee, account 1234, bank 1y A", "client [NAME]") is not None


def test_text_that_cannot_be_read_is_a_fault_and_an_unknown_task_an_error() -> None:
    row = {"instruction": "Spread?", "input": "no numbers here", "output": "1.0%"}
    assert "does not match" in (verify_row("credit_spread", row) or "")
    with pytest.raises(ConfigError, match="no task 'horoscope'"):
        verify_row("horoscope", row)


def test_rows_are_distinct_and_ids_unique(corpus: dict[str, list[Row]]) -> None:
    rows = [row for task in TASKS for row in corpus[task]]
    assert len({(row["instruction"], row["input"], row["output"]) for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)


def test_no_prompt_has_two_answers(corpus: dict[str, list[Row]]) -> None:
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for task in TASKS:
        for row in corpus[task]:
            answers[row["instruction"], row["input"]].add(row["output"])
    assert all(len(outputs) == 1 for outputs in answers.values())


def test_pool_sizes_are_one_to_thirty(corpus: dict[str, list[Row]]) -> None:
    sizes = [len(rows) for rows in corpus.values()]
    assert max(sizes) == 30 * min(sizes)


@pytest.mark.parametrize("task", TASKS)
def test_each_language_has_three_phrasings_and_three_contexts_of_each_kind(
    task: str, corpus: dict[str, list[Row]]
) -> None:
    for language in ("en", "zh"):
        rows = [row for row in corpus[task] if row["language"] == language]
        assert len(rows) > 0.3 * len(corpus[task])
        assert len({row["instruction"] for row in rows}) >= 3
        for aspect in ("industry", "tenor_years", "rating"):
            assert len({row["context"][aspect] for row in rows}) >= 3
        assert all(row["context"]["industry"] in row["input"] for row in rows)
        assert all((row["context"]["industry"][0] >= "\u4e00") == (language == "zh") for row in rows)


@pytest.mark.parametrize("task", TASKS)
def test_rows_carry_licence_and_difficulty_factors_that_vary(task: str, corpus: dict[str, list[Row]]) -> None:
    names = {"knowledge_breadth", "reasoning_steps", "constraints", "ambiguity"}
    for row in corpus[task]:
        assert row["licence"] == LICENCE
        assert set(row["difficulty_factors"]) == names
        assert all(1 <= factor <= 5 for factor in row["difficulty_factors"].values())
    assert len({sum(row["difficulty_factors"].values()) for row in corpus[task]}) >= 3


def test_chain_steps_follow_their_parent_and_repeat_its_answer(corpus: dict[str, list[Row]]) -> None:
    rows = corpus["lcr_chain"]
    for first, second, third in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert (first["parent_id"], second["parent_id"], third["parent_id"]) == (None, first["id"], second["id"])
        assert second["input"] == f"{first['input']}; LCR {first['output']}"
        assert third["input"].startswith(second["input"])
        assert third["input"].endswith(f" {second['output']}")
    assert all(row["parent_id"] is None for task in TASKS if task != "lcr_chain" for row in corpus[task])


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_keeps_its_tasks_output_rules(
    task: str, corpus: dict[str, list[Row]], specs: dict[str, TaskSpec]
) -> None:
    rules = specs[task].output_rules
    assert rules
    assert [row["output"] for row in corpus[task] if check_output(rules, row["output"])] == []


def test_output_rules_catch_answers_that_break_them(specs: dict[str, TaskSpec]) -> None:
    broken = {
        "definition": "a loss when credit fails",
        "credit_spread": "3.60%",
        "expected_loss": "1.0",
        "liquidity_coverage": "90.5%",
        "lcr_chain": "hold, it is certain to last",
        "risk_attribution": "4 weather",
        "compliance": "allowed, FR-99 s.1",
        "look_back": "Q5 at 3%",
        "memo": "To CRO: bank LCR is 90%, it may fall, we guarantee it",
        "redaction": "client [NAME], account 4821, bank 1y A",
    }
    assert set(broken) == set(specs)
    assert all(check_output(specs[task].output_rules, answer) for task, answer in broken.items())


def test_the_run_file_names_every_task_once_and_is_valid(specs: dict[str, TaskSpec]) -> None:
    run = yaml.safe_load((FINRISK / "run.yaml").read_text(encoding="utf-8"))
    data = DataConfig(**run["data"])
    assert [source.path.stem for source in data.sources] == TASKS
    assert set(specs) == set(TASKS)
    TinyModel(**run["model"])
    TrainConfig(**run["train"])


def test_an_impossible_scale_is_refused_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--scale 0 is not positive"):
        write_corpus(tmp_path, scale=0)
    with pytest.raises(DataError, match="lower --scale"):
        task_rows(RECIPE_OF["definition"], seed=0, scale=60)
