from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import DataError
from tests.unit.train.data.rows_made import make_index, make_row
from train.config import SPLITS, DataConfig
from train.data.preparing.decide import (
    Decision,
    decide,
    refusals_of,
    require_all_splits,
    require_disjoint,
)
from train.data.preparing.index import Index
from train.data.preparing.relations import NO_PAIRS, Relations, find_canonical, relate
from train.data.row import Refusal, Row
from train.data.split import held_out_sizes

Sets = dict[str, dict[str, set[str]]]
"""Content hashes by task and set."""


def config(**settings: object) -> DataConfig:
    return DataConfig.model_validate({"sources": ["unused.jsonl"], **settings})


def decided(
    rows: Sequence[Row], settings: DataConfig, *, seed: int = 0, declared: Sequence[str] = ()
) -> tuple[Index, Relations, Decision]:
    index = make_index(rows, seed=seed, declared=declared)
    relations = relate(index, find_canonical(index), NO_PAIRS, join_near=False)
    return index, relations, decide(index, relations, settings, alive=np.ones(len(rows), dtype=bool))


def split(
    rows: Sequence[Row], settings: DataConfig, *, seed: int = 0, declared: Sequence[str] = ()
) -> tuple[Sets, list[Refusal]]:
    index, relations, decision = decided(rows, settings, seed=seed, declared=declared)
    require_disjoint(index, decision.sets)
    sets: Sets = {task: {name: set() for name in SPLITS} for task in index.tasks}
    for row, place in zip(rows, decision.sets.tolist(), strict=True):
        if place >= 0:
            sets[row.task][SPLITS[place]].add(row.content_hash)
    return sets, list(refusals_of(index, relations, decision, settings))


CONTENTS = st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 60), min_size=4), min_size=1)


@given(
    CONTENTS, st.integers(0, 5), st.integers(2, 20), st.integers(0, 9), st.integers(0, 20), st.sampled_from([0.1, 0.5])
)
def test_no_content_is_in_two_sets_and_every_row_is_used_or_refused(
    tasks: dict[str, set[int]], seed: int, probes: int, selection: int, test: int, ratio: float
) -> None:
    rows = [make_row(task, content) for task, held in tasks.items() for content in sorted(held)]
    settings = config(
        probes_per_task=probes, selection_per_task=selection, test_per_task=test, max_held_out_ratio=ratio
    )
    sets, refusals = split(rows, settings, seed=seed)
    together = {name: set().union(*(of_task[name] for of_task in sets.values())) for name in SPLITS}
    for first in SPLITS:
        for second in SPLITS:
            assert first == second or not together[first] & together[second]
    assert {refusal.rule for refusal in refusals} <= {"leak"}
    for task, held in tasks.items():
        leaked = {make_row(task, refusal.line).content_hash for refusal in refusals if refusal.task == task}
        assert leaked.union(*sets[task].values()) == {make_row(task, content).content_hash for content in held}


@given(st.permutations(range(40)), st.integers(0, 3))
def test_the_split_ignores_the_order_of_rows_and_files(order: list[int], seed: int) -> None:
    settings = config(selection_per_task=5)
    expected, _ = split([make_row("a", content) for content in range(40)], settings, seed=seed)
    found, _ = split([make_row("a", content) for content in order], settings, seed=seed)
    assert found == expected


def test_another_seed_holds_out_other_rows() -> None:
    rows = [make_row("a", content) for content in range(200)]
    first, second = (split(rows, config(), seed=seed)[0]["a"]["probe"] for seed in (0, 1))
    assert first != second


@given(st.integers(4, 10_000), st.integers(2, 64), st.integers(0, 64), st.integers(0, 64), st.floats(0.01, 0.5))
def test_held_out_sizes_keep_their_caps_and_leave_a_training_row(
    num_rows: int, probes: int, selection: int, test: int, ratio: float
) -> None:
    settings = config(
        probes_per_task=probes, selection_per_task=selection, test_per_task=test, max_held_out_ratio=ratio
    )
    sizes = held_out_sizes(num_rows, settings)
    assert 1 <= sizes.probe <= max(1, min(probes, ratio * num_rows))
    assert 0 <= sizes.selection <= min(selection, ratio * num_rows)
    assert 0 <= sizes.test <= min(test, ratio * num_rows)
    assert sum(sizes) < num_rows


def test_a_row_another_task_holds_out_is_refused_from_training() -> None:
    large = [make_row("large", content) for content in range(100)]
    _, _, decision = decided(large, config(max_held_out_ratio=0.05))
    held = [row for row, place in zip(large, decision.sets, strict=True) if SPLITS[place] == "probe"]
    shared = [make_row("small", row.line) for row in held[:3]] + [make_row("small", 1000 + n) for n in range(30)]
    sets, leaks = split(large + shared, config(max_held_out_ratio=0.05))
    held_out = {item for of_task in sets.values() for name in ("probe", "test") for item in of_task[name]}
    assert not held_out & {item for of_task in sets.values() for item in of_task["train"]}
    assert leaks
    assert all("same content as large.jsonl:" in leak.reason for leak in leaks if leak.task == "small")


def test_equal_tasks_are_split_alike_without_a_leak() -> None:
    sets, leaks = split([make_row(task, content) for task in "ab" for content in range(50)], config())
    assert not leaks
    assert sets["a"] == sets["b"]


def test_equal_content_is_kept_once_per_task_and_points_to_the_first() -> None:
    rows = [make_row("a", n) for n in range(9)] + [make_row("a", 3, line=20)] + [make_row("b", n) for n in range(9)]
    sets, refusals = split(rows, config())
    assert [(item.rule, item.line, item.reason) for item in refusals] == [
        ("duplicate", 20, "same content as a.jsonl:3")
    ]
    assert sum(map(len, sets["b"].values())) == 9


def test_content_in_two_sets_is_found() -> None:
    rows = [make_row("a", 1), make_row("a", 2), make_row("b", 2), make_row("b", 3)]
    sets = np.array([SPLITS.index(name) for name in ("probe", "train", "probe", "train")])
    with pytest.raises(DataError, match=r"probe row b\.jsonl:2 of task 'b' is also the train row a\.jsonl:2"):
        require_disjoint(make_index(rows), sets)


def test_a_task_left_without_training_rows_is_named() -> None:
    with pytest.raises(DataError, match="task 'a' has no train row left"):
        require_all_splits(make_index([make_row("a", 1)]), np.array([0]))


@given(st.integers(0, 50), st.lists(st.integers(1, 4), min_size=6, max_size=30))
def test_rows_linked_by_parent_id_stay_together_whatever_their_order(seed: int, family_sizes: list[int]) -> None:
    rows: list[Row] = []
    for size in family_sizes:
        for place in range(size):
            parent = f"chain:{len(rows) - 1}" if place else None
            rows.append(make_row("chain", len(rows), parent_id=parent))
    settings = config(probes_per_task=8, test_per_task=8, selection_per_task=4, max_held_out_ratio=0.5)
    found, _ = split(rows, settings, seed=seed)
    set_of = {item: name for name, held in found["chain"].items() for item in held}
    assert len(set_of) == len(rows)
    for row in rows:
        if row.parent_id is not None:
            parent = make_row("chain", int(row.parent_id.split(":")[1]))
            assert set_of[row.content_hash] == set_of[parent.content_hash]
    assert split(rows[::-1], settings, seed=seed)[0] == found


def test_a_cycle_of_parents_is_one_family() -> None:
    cycle = [make_row("a", 0, parent_id="a:1"), make_row("a", 1, parent_id="a:0"), make_row("a", 2, parent_id="a:2")]
    sets, _ = split(cycle + [make_row("a", n) for n in range(3, 40)], config())
    assert sum({row.content_hash for row in cycle[:2]} <= held for held in sets["a"].values()) == 1


def test_declared_sets_hold_what_they_are_said_to_and_nothing_else_of_the_task() -> None:
    rows = [make_row("a", n) for n in range(60)]
    declared = ["test"] * 20 + ["train"] * 10 + ["auto"] * 30
    sets, refusals = split(rows, config(selection_per_task=3), declared=declared)
    assert not refusals
    assert sets["a"]["test"] == {row.content_hash for row in rows[:20]}
    assert {row.content_hash for row in rows[20:30]} <= sets["a"]["train"]
    assert len(sets["a"]["probe"]) == 6
    assert len(sets["a"]["selection"]) == 3


def test_a_training_row_with_the_content_of_a_declared_test_row_leaks_whatever_comes_first() -> None:
    train = [make_row("a", n, source="train.jsonl") for n in range(20)]
    test = [make_row("a", n, source="test.jsonl") for n in range(3)]
    for rows, declared in ((train + test, ["auto"] * 20 + ["test"] * 3), (test + train, ["test"] * 3 + ["auto"] * 20)):
        sets, refusals = split(rows, config(), declared=declared)
        assert sets["a"]["test"] == {row.content_hash for row in test}
        assert {(item.rule, item.source) for item in refusals} == {("leak", "train.jsonl")}
        assert "same content as test.jsonl:0, which task 'a' holds out as test" in refusals[0].reason


def test_a_row_that_continues_a_declared_test_row_leaks() -> None:
    rows = [make_row("a", 0), make_row("a", 1, parent_id="a:0"), *(make_row("a", n) for n in range(2, 20))]
    _, refusals = split(rows, config(), declared=["test", *["auto"] * 19])
    assert [(item.rule, item.line) for item in refusals] == [("leak", 1)]
    assert "of one family (parent_id, near duplicates) with a.jsonl:0" in refusals[0].reason


def test_a_family_too_large_for_the_probes_is_named() -> None:
    rows = [make_row("a", n, parent_id="a:0" if n else None) for n in range(12)]
    with pytest.raises(DataError, match=r"none of its 1 families .* the 2 probes"):
        split(rows, config())
