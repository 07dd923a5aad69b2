from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import DataError
from train.config import DataConfig
from train.data.row import Row, hash_content
from train.data.split import SPLITS, TaskSplit, check_disjoint, held_out_sizes, require_all_splits, split_rows


def row(task: str, content: int) -> Row:
    messages = (("user", str(content)),)
    lineage = (None, None, None, None, None, None)
    return Row(
        f"{task}:{content}", task, messages, "x", f"{task}.jsonl", content, *lineage, hash_content(messages, "x")
    )


def config(**settings: object) -> DataConfig:
    return DataConfig.model_validate({"sources": ["unused.jsonl"], **settings})


CONTENTS = st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 60), min_size=4), min_size=1)


def contents(split: TaskSplit) -> dict[str, set[int]]:
    return {name: {item.line for item in split.rows(name)} for name in SPLITS}


@given(CONTENTS, st.integers(0, 5), st.integers(2, 20), st.integers(0, 20), st.sampled_from([0.1, 0.2, 0.5]))
def test_no_content_is_in_two_sets_and_no_row_is_lost(
    tasks: dict[str, set[int]], seed: int, probes: int, test: int, ratio: float
) -> None:
    rows = [row(task, content) for task, held in tasks.items() for content in sorted(held)]
    settings = config(probes_per_task=probes, test_per_task=test, max_held_out_ratio=ratio)
    splits, leaks = split_rows(rows, settings, seed=seed)
    check_disjoint(splits)
    sets = {name: set().union(*(contents(split)[name] for split in splits.values())) for name in SPLITS}
    assert not sets["probe"] & sets["train"]
    assert not sets["test"] & sets["train"]
    assert not sets["probe"] & sets["test"]
    for task, held in tasks.items():
        leaked = {leak.line for leak in leaks if leak.task == task}
        assert leaked.union(*contents(splits[task]).values()) == held
        assert all(leak.rule == "leak" for leak in leaks)


@given(st.permutations(range(40)), st.integers(0, 3))
def test_the_split_ignores_the_order_of_rows_and_files(order: list[int], seed: int) -> None:
    expected, _ = split_rows([row("a", content) for content in range(40)], config(), seed=seed)
    found, _ = split_rows([row("a", content) for content in order], config(), seed=seed)
    assert found == expected


def test_another_seed_holds_out_other_rows() -> None:
    rows = [row("a", content) for content in range(200)]
    first, second = (split_rows(rows, config(), seed=seed)[0]["a"] for seed in (0, 1))
    assert contents(first)["probe"] != contents(second)["probe"]


@given(st.integers(4, 10_000), st.integers(2, 64), st.integers(0, 64), st.floats(0.01, 0.5))
def test_held_out_sizes_keep_their_caps_and_leave_a_training_row(
    num_rows: int, probes: int, test: int, ratio: float
) -> None:
    settings = config(probes_per_task=probes, test_per_task=test, max_held_out_ratio=ratio)
    num_probes, num_test = held_out_sizes(num_rows, settings)
    assert 1 <= num_probes <= max(1, min(probes, ratio * num_rows))
    assert 0 <= num_test <= min(test, ratio * num_rows)
    assert num_probes + num_test < num_rows


def test_a_row_another_task_holds_out_is_refused_from_training() -> None:
    large = [row("large", content) for content in range(100)]
    held = split_rows(large, config(), seed=0)[0]["large"].probe
    shared = [row("small", item.line) for item in held[:3]] + [row("small", 1000 + content) for content in range(30)]
    splits, leaks = split_rows(large + shared, config(max_held_out_ratio=0.05), seed=0)
    trained = {item.content_hash for split in splits.values() for item in split.train}
    held_out = {item.content_hash for split in splits.values() for item in (*split.probe, *split.test)}
    assert not trained & held_out
    assert leaks
    assert all("same content as large.jsonl:" in leak.reason for leak in leaks if leak.task == "small")


def test_equal_tasks_are_split_alike_without_a_leak() -> None:
    splits, leaks = split_rows([row(task, content) for task in "ab" for content in range(50)], config(), seed=0)
    assert not leaks
    assert contents(splits["a"]) == contents(splits["b"])


def test_content_in_two_sets_is_found() -> None:
    straddling = {
        "a": TaskSplit((row("a", 1),), (), (row("a", 2),)),
        "b": TaskSplit((row("b", 2),), (), (row("b", 3),)),
    }
    with pytest.raises(DataError, match=r"train row a\.jsonl:2 of task 'a' is also the probe row b\.jsonl:2"):
        check_disjoint(straddling)


def test_a_task_left_without_training_rows_is_named() -> None:
    with pytest.raises(DataError, match="task 'a' has no train row left"):
        require_all_splits({"a": TaskSplit((row("a", 1),), (), ())})


@given(st.integers(0, 50), st.lists(st.integers(1, 4), min_size=6, max_size=30))
def test_rows_linked_by_parent_id_stay_together_whatever_their_order(seed: int, family_sizes: list[int]) -> None:
    rows: list[Row] = []
    for size in family_sizes:
        for _ in range(size):
            item = row("chain", len(rows))
            rows.append(item)
        for child, parent in zip(rows[-size + 1 :] if size > 1 else [], rows[-size:], strict=False):
            rows[child.line] = replace(child, parent_id=parent.id)
    settings = config(probes_per_task=8, test_per_task=8, max_held_out_ratio=0.5)
    (split,) = split_rows(rows, settings, seed=seed)[0].values()
    set_of = {item.id: name for name in SPLITS for item in split.rows(name)}
    assert len(set_of) == len(rows)
    assert all(set_of[item.id] == set_of[item.parent_id] for item in rows if item.parent_id is not None)
    (shuffled,) = split_rows(rows[::-1], settings, seed=seed)[0].values()
    assert shuffled == split
