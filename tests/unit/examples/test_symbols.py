"""The symbol corpus: right answers, distinct rows, same bytes for the same seed, configuration that names its tasks."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import RunConfig
from cluster.data import task_cards
from cluster.settings import load_config
from examples.symbols.generate import write_corpus
from examples.symbols.tasks import BASE_TASKS, EXTRA_TASKS, SymbolTask, generate_rows, tasks_of, verify_row
from scheduler.errors import DataError
from scheduler.task import TaskSpec
from train.data.rules import check_output
from train.tokenizer import encode_example, train_byte_tokenizer

EXAMPLE = Path(__file__).parents[3] / "examples" / "symbols"
ALL_TASKS = BASE_TASKS + EXTRA_TASKS


@pytest.fixture(scope="module")
def rows_by_task() -> dict[str, list[dict[str, str]]]:
    return {task.name: generate_rows(task, seed=0) for task in ALL_TASKS}


def _files(tasks: tuple[SymbolTask, ...]) -> list[Path]:
    return [EXAMPLE / "corpus" / f"{task.name}.jsonl" for task in tasks]


def _cards() -> dict[str, TaskSpec]:
    return task_cards(load_config(RunConfig, files=[EXAMPLE / "run.yaml"]))


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_every_generated_row_is_verified_and_distinct(
    task: SymbolTask, rows_by_task: dict[str, list[dict[str, str]]]
) -> None:
    rows = rows_by_task[task.name]
    assert len(rows) == task.num_rows
    assert len({row["input"] for row in rows}) == task.num_rows
    assert [complaint for row in rows if (complaint := verify_row(task.name, row))] == []


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_a_row_with_a_wrong_answer_is_named(task: SymbolTask, rows_by_task: dict[str, list[dict[str, str]]]) -> None:
    wrong = {**rows_by_task[task.name][0], "output": "zz"}
    assert "'zz'" in str(verify_row(task.name, wrong))


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        ("first", "c a b", "c"),
        ("last", "c a b", "b"),
        ("max", "1930", "9"),
        ("count", "a b a c", "2"),
        ("copy", "c a b", "c a b"),
        ("shift", "a i j", "b j a"),
        ("reverse", "c a b", "b a c"),
        ("sort", "c a b a", "a a b c"),
        ("dedup", "c a c b a", "c a b"),
        ("add", "12 + 29", "41"),
        ("recall", "a3 c7 d1 ? c", "7"),
        ("saturated", "c a b", "a"),
        ("sort_duplicate", "b a", "a b"),
    ],
)
def test_the_right_answer_is_accepted_and_is_the_one_worked_out_by_hand(task: str, text: str, expected: str) -> None:
    instruction = next(known.instruction for known in ALL_TASKS if known.name == task)
    assert verify_row(task, {"instruction": instruction, "input": text, "output": expected}) is None


def test_a_malformed_input_a_wrong_instruction_and_an_unknown_task_are_refused() -> None:
    row = {"instruction": "Recall", "input": "a3 c7 d1 ? e", "output": "7"}
    assert "expected ''" in str(verify_row("recall", row))
    assert "does not match" in str(verify_row("recall", {**row, "input": "a3"}))
    assert "instruction" in str(verify_row("recall", {**row, "instruction": "Sort"}))
    with pytest.raises(DataError, match="no symbol task is named 'spell'"):
        verify_row("spell", row)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**31))
def test_rows_are_right_and_repeatable_for_any_seed(seed: int) -> None:
    for task in (task for task in ALL_TASKS if task.num_rows <= 2_000):
        rows = generate_rows(task, seed=seed)
        assert rows == generate_rows(task, seed=seed)
        assert all(verify_row(task.name, row) is None for row in rows)


def test_another_seed_gives_other_rows() -> None:
    copy = next(task for task in BASE_TASKS if task.name == "copy")
    assert generate_rows(copy, seed=0) != generate_rows(copy, seed=1)


def test_the_duplicate_shares_the_rule_of_its_original_and_none_of_its_rows(
    rows_by_task: dict[str, list[dict[str, str]]],
) -> None:
    original, duplicate = rows_by_task["sort"], rows_by_task["sort_duplicate"]
    assert {row["instruction"] for row in original} == {row["instruction"] for row in duplicate}
    assert not {row["input"] for row in original} & {row["input"] for row in duplicate}


def test_noise_labels_are_even_and_say_nothing_of_the_input(rows_by_task: dict[str, list[dict[str, str]]]) -> None:
    rows = rows_by_task["noise"]
    share_of_first_letter = sum(row["output"] == row["input"][0] for row in rows) / len(rows)
    assert share_of_first_letter == pytest.approx(0.1, abs=0.03)
    assert {row["output"] for row in rows} == set("abcdefghij")


@pytest.mark.parametrize("task", [task for task in BASE_TASKS if task.name != "noise"], ids=lambda task: task.name)
def test_no_constant_answer_solves_a_task(task: SymbolTask, rows_by_task: dict[str, list[dict[str, str]]]) -> None:
    outputs = [row["output"] for row in rows_by_task[task.name]]
    assert max(outputs.count(answer) for answer in set(outputs)) < 0.5 * len(outputs)


def test_the_corpus_on_disk_is_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    num_rows = write_corpus(tmp_path / "one", seed=3, variant="noise_saturated_duplicate")
    write_corpus(tmp_path / "two", seed=3, variant="noise_saturated_duplicate")
    for name, count in num_rows.items():
        text = (tmp_path / "one" / f"{name}.jsonl").read_bytes()
        assert text == (tmp_path / "two" / f"{name}.jsonl").read_bytes()
        assert len([json.loads(line) for line in text.splitlines()]) == count


def test_configurations_name_every_task_of_their_variant() -> None:
    base = load_config(RunConfig, files=[EXAMPLE / "run.yaml"])
    extended = load_config(RunConfig, files=[EXAMPLE / "run.yaml", EXAMPLE / "distractors.yaml"])
    assert [source.path for source in base.data.sources] == _files(tasks_of("base"))
    assert [source.path for source in extended.data.sources] == _files(tasks_of("noise_saturated_duplicate"))
    assert extended.train == base.train


def test_every_task_of_the_base_variant_has_a_card_and_no_card_is_left_over() -> None:
    assert set(_cards()) == {task.name for task in tasks_of("base")}


@pytest.mark.parametrize("task", BASE_TASKS, ids=lambda task: task.name)
def test_every_answer_keeps_the_rules_of_its_card(
    task: SymbolTask, rows_by_task: dict[str, list[dict[str, str]]]
) -> None:
    rules = _cards()[task.name].output_rules
    assert rules
    assert [row for row in rows_by_task[task.name] if check_output(rules, row["output"])] == []


def test_a_digit_and_a_letter_are_one_token_each(rows_by_task: dict[str, list[dict[str, str]]]) -> None:
    texts = [row[column] for rows in rows_by_task.values() for row in rows[:200] for column in row]
    tokenizer = train_byte_tokenizer(texts, vocab_size=512)
    for name in ("copy", "max"):
        for row in rows_by_task[name][:50]:
            ids, start = encode_example(tokenizer, [("user", row["input"])], row["output"], "auto")
            num_symbols = len(row["input"].replace(" ", ""))
            assert start == num_symbols + 3  # begin, user and assistant marks
            assert len(ids) - start == len(row["output"].replace(" ", "")) + 1  # the stop token
