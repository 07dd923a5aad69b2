import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast, dynamic_module_utils

from scheduler.task import TaskSpec
from tests.unit.small_models import save_tokenizer_with_own_code
from tests.unit.train.data.rows_made import make_index, make_row
from train.config import SPLITS, DataConfig
from train.data.arrangement import CHAIN, CONTRAST
from train.data.lineage import LINEAGE_SCHEMA
from train.data.prepare import Prepared, prepare
from train.data.preparing.digests import hash_files
from train.data.preparing.encoding import Encoder, _tokenizer
from train.data.preparing.execute import LocalExecutor
from train.data.preparing.layout import levels_of
from train.data.preparing.near import band_keys, band_rows, comparable, runs_of
from train.data.preparing.relations import NO_PAIRS, ancestors, find_canonical, relate
from train.data.preparing.sampling import sample_rows
from train.data.preparing.spill import Text
from train.data.store import TokenStore
from train.model_path import load_tokenizer
from train.tokenizer import encode_example, train_byte_tokenizer


class Fixed:
    """The same tokenizer whatever the texts; it counts how often it is made."""

    key = "fixed"

    def __init__(self) -> None:
        self.num_made = 0

    def make(self, texts: Iterator[str]) -> PreTrainedTokenizerFast:
        assert list(texts)
        self.num_made += 1
        return train_byte_tokenizer(["fixed"], vocab_size=262)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(out: Path, sources: list[Any], *, specs: dict[str, TaskSpec] | None = None, **more: Any) -> Prepared:
    keywords = {name: more.pop(name) for name in ("executor", "shard_bytes", "arrangements", "seed") if name in more}
    config = DataConfig.model_validate({"sources": sources, "max_refused_ratio": 0.9, **more})
    return prepare(
        config,
        **{"specs": specs or {}, "tokenizer_source": Fixed(), "chat_template": "auto", "out_dir": out, "seed": 3}
        | keywords,
    )


def contents(prepared: Prepared) -> dict[tuple[str, str], list[str]]:
    store = TokenStore.open(prepared.store_path)
    return {
        (name, split): store.content_hashes(task, split)
        for task, name in enumerate(store.task_names)
        for split in SPLITS
    }


def mixed_rows() -> list[dict[str, Any]]:
    """Good rows of two tasks, repeated ones, chains, too long ones and broken ones."""
    rows: list[dict[str, Any]] = []
    for n in range(90):
        task = "ab"[n % 2]
        row = {"task": task, "id": f"r{n}", "instruction": f"what is {n % 70}", "output": f"it is {n % 70}"}
        if n % 9 == 4:
            row["parent_id"] = f"r{n - 2}"
        if n % 31 == 7:
            row["output"] = "long " * 200
        if n % 29 == 3:
            del row["output"]
        rows.append(row)
    return rows


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(90)), shard_bytes=st.integers(200, 20_000), cut=st.integers(1, 89))
def test_whatever_the_shards_the_files_and_their_order_the_same_rows_land_in_the_same_sets(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], shard_bytes: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    rows = mixed_rows()
    whole = write_rows(folder / "whole.jsonl", rows)
    expected = contents(run(folder / "0", [{"path": str(whole), "task_column": "task"}]))
    shuffled = [rows[place] for place in order]
    parts = [write_rows(folder / "p1.jsonl", shuffled[:cut]), write_rows(folder / "p2.jsonl", shuffled[cut:])]
    sources = [{"path": str(part), "task_column": "task"} for part in parts]
    assert contents(run(folder / "1", sources, shard_bytes=shard_bytes)) == expected


def test_every_record_is_stored_or_refused_exactly_once_and_a_pool_gives_the_same_files(tmp_path: Path) -> None:
    source = {"path": str(write_rows(tmp_path / "rows.jsonl", mixed_rows())), "task_column": "task"}
    prepared = run(tmp_path / "one", [source])
    store = TokenStore.open(prepared.store_path)
    stored = [
        line for task in range(len(store.task_names)) for split in SPLITS for line in store.column(task, "line", split)
    ]
    refused = pq.read_table(prepared.path / "quarantine.parquet").to_pylist()
    assert Counter(stored + [record["line"] for record in refused]) == Counter(range(1, 91))
    assert {record["rule"] for record in refused} >= {"duplicate", "too_long", "missing_column"}
    assert prepared.summary.sources[0].refused == Counter(record["rule"] for record in refused)
    with LocalExecutor(2) as executor:
        again = run(tmp_path / "two", [source], executor=executor, shard_bytes=2000)
    assert again.path.name == prepared.path.name
    assert contents(again) == contents(prepared)
    assert pq.read_table(again.path / "quarantine.parquet").num_rows == len(refused)
    assert pq.read_table(again.store_path / "lineage.parquet").equals(
        pq.read_table(prepared.store_path / "lineage.parquet")
    )


def test_a_tokenizer_with_code_of_its_own_encodes_where_that_code_was_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "here"))
    save_tokenizer_with_own_code(tmp_path / "base")
    encoder = Encoder(tmp_path / "tokenizer", "none", "last_answer", 64)
    encoder.save(load_tokenizer(tmp_path / "base", trust_remote_code=True))
    expected = encoder.encode([Text((("user", "SUM"),), "OK")])
    _as_on_another_machine(monkeypatch, here=tmp_path / "here", there=tmp_path / "there")
    assert str(encoder.encode([Text((("user", "sum"),), "ok")])) == str(expected)
    assert (tmp_path / "there").is_dir()


def _as_on_another_machine(monkeypatch: pytest.MonkeyPatch, *, here: Path, there: Path) -> None:
    """Forget every code that came with a tokenizer, and where it was put."""
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(here)])
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(there))
    _tokenizer.cache_clear()


def test_a_rerun_reads_no_row_and_makes_no_tokenizer(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl", [{"instruction": f"q{n}", "output": "a"} for n in range(20)])
    config = DataConfig.model_validate({"sources": [source]})
    tokenizer = Fixed()
    found = [
        prepare(config, specs={}, tokenizer_source=tokenizer, chat_template="auto", out_dir=tmp_path / "o", seed=seed)
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1]
    assert found[2].path != found[0].path
    assert tokenizer.num_made == 2


def test_a_kept_file_hash_is_used_only_while_the_file_looks_unchanged_and_was_not_fresh(tmp_path: Path) -> None:
    path, cache = tmp_path / "rows.jsonl", tmp_path / "cache.json"
    path.write_text("one")
    first = hash_files([str(path)], cache=cache)
    assert not cache.exists()  # too fresh: it might change again within the clock's grain
    import os

    os.utime(path, ns=(10**18, 10**18))
    assert hash_files([str(path)], cache=cache) == first
    assert str(path) in json.loads(cache.read_text())
    path.write_text("two")
    assert hash_files([str(path)], cache=cache) != first


CHAIN_ROWS = [
    {
        "id": f"{letter}{n}",
        "parent_id": f"{letter}{n - 1}" if n else None,
        "instruction": f"{letter} asks {n}",
        "output": f"{letter} says {n}",
    }
    for letter in "abcdefghijklmnopqrstuvwxyz"
    for n in range(3)
]


@pytest.mark.parametrize("loss_on", ["last_answer", "every_answer"])
def test_a_chain_is_its_ancestors_and_then_the_row_with_the_same_supervised_tokens(
    tmp_path: Path, loss_on: str
) -> None:
    source = write_rows(tmp_path / "chain.jsonl", CHAIN_ROWS)
    prepared = run(tmp_path / "o", [source], arrangements=frozenset({CHAIN, CONTRAST}), loss_on=loss_on)
    store = TokenStore.open(prepared.store_path)
    has_chain = store.has_arrangement(0, CHAIN)
    examples = store.examples(0)
    assert has_chain.tolist() == [not example.id.endswith("0") for example in examples]
    assert prepared.summary.tasks[0].num_chains == has_chain.sum()
    for row, example in enumerate(examples):
        letter, depth = example.id[0], int(example.id[1])
        alone, chained = store.encoded(0, row), store.encoded(0, row, arrangement=CHAIN)
        turns = [("user", f"{letter} asks 0")]
        for n in range(depth):
            turns += [("assistant", f"{letter} says {n}"), ("user", f"{letter} asks {n + 1}")]
        expected, start = encode_example(prepared.tokenizer, turns, example.answer, "auto")
        assert (chained.input_ids.tolist(), chained.answer_start) == (expected, start)
        assert chained.spans.shape == alone.spans.shape
        assert np.array_equal(chained.input_ids[chained.answer_start :], alone.input_ids[alone.answer_start :])


def test_the_furthest_ancestors_go_first_when_a_chain_is_too_long(tmp_path: Path) -> None:
    rows = [{**row, "output": f"{row['output']} {'x' * 30}"} for row in CHAIN_ROWS]
    prepared = run(
        tmp_path / "o", [write_rows(tmp_path / "c.jsonl", rows)], arrangements=frozenset({CHAIN}), max_length=120
    )
    store = TokenStore.open(prepared.store_path)
    assert store.lengths(0, arrangement=CHAIN).max() <= 120
    lineage = store.lineage(0, "train", range(store.num_rows(0)))
    lengths = {record["id"][1]: record["chain_length"] for record in lineage}
    assert lengths == {"0": 0, "1": 1, "2": 1}


def test_a_contrast_is_of_the_family_else_a_sibling_and_lineage_names_it(tmp_path: Path) -> None:
    tasks = {"yes": "pair", "no": "pair", "alone": "other"}
    for name in tasks:
        write_rows(tmp_path / f"{name}.jsonl", [{"instruction": f"{name} {n}", "output": f"{name}"} for n in range(40)])
    specs = {name: TaskSpec(name=name, family=family) for name, family in tasks.items()}
    sources = [tmp_path / f"{name}.jsonl" for name in tasks]
    prepared = run(tmp_path / "o", sources, specs=specs, arrangements=frozenset({CONTRAST}))
    store = TokenStore.open(prepared.store_path)
    train = [set(store.content_hashes(task)) for task in range(3)]
    for task, other in ((0, 1), (1, 0), (2, 2)):
        assert store.has_arrangement(task, CONTRAST).all()
        partners = [record["contrast_with"] for record in store.lineage(task, "train", range(store.num_rows(task)))]
        assert set(partners) <= train[other]
        assert all(own != partner for own, partner in zip(store.content_hashes(task), partners, strict=True))


def test_lineage_has_its_columns_and_reads_back_by_row(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"r{n}",
            "instruction": f"q{n}",
            "output": "a",
            "licence": "MIT",
            "difficulty_factors": [n % 3, n % 3, 0, 0],
        }
        for n in range(60)
    ]
    spec = TaskSpec(name="rows", difficulty_levels=3)
    prepared = run(tmp_path / "o", [write_rows(tmp_path / "rows.jsonl", rows)], specs={"rows": spec})
    store = TokenStore.open(prepared.store_path)
    assert len(LINEAGE_SCHEMA) >= 25
    for split in ("probe", "test", "train"):
        wanted = list(range(store.num_rows(0, split)))[::-1]
        records = store.lineage(0, split, wanted)
        assert [record["id"] for record in records] == [store.row_id(0, row, split) for row in wanted]
        assert {(record["split"], record["licence"], record["task"]) for record in records} == {(split, "MIT", "rows")}
        assert [record["row"] for record in records] == wanted
    assert sum(store.level_sizes(0)) == store.num_rows(0)
    assert len(store.level_sizes(0)) == 3
    levels = np.repeat(np.arange(3), store.level_sizes(0))
    assert np.array_equal(store.difficulty(0), levels / 2)
    assert [record["level"] for record in store.lineage(0, "train", range(store.num_rows(0)))] == levels.tolist()


@given(st.lists(st.one_of(st.integers(0, 5), st.none()), min_size=1, max_size=40), st.integers(1, 6))
def test_levels_rise_with_the_score_share_equal_scores_and_have_no_gap(scores: list[int | None], count: int) -> None:
    found = levels_of(np.array([np.nan if score is None else score for score in scores], dtype=float), count)
    assert set(found.tolist()) == set(range(int(found.max()) + 1))
    assert found.max() < count
    known = sorted((score, level) for score, level in zip(scores, found.tolist(), strict=True) if score is not None)
    assert [level for _, level in known] == sorted(level for _, level in known)
    assert len({score for score, _ in known}) >= len(set(known))


def edited(text: str, rng: np.random.Generator, num_edits: int) -> str:
    letters = list(text)
    for place in rng.choice(len(letters), num_edits, replace=False).tolist():
        letters[place] = chr(int(rng.integers(48, 58)))
    return "".join(letters)


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_bands_find_nearly_every_pair_at_least_as_similar_as_the_threshold(threshold: float) -> None:
    rng = np.random.default_rng(0)
    originals = ["".join(map(chr, rng.integers(97, 123, size=300))) for _ in range(250)]
    copies = [edited(text, rng, int(rng.integers(1, 20))) for text in originals]
    keys = band_keys(originals + copies, rows_per_band=band_rows(threshold))
    agree = (keys[:, :250] == keys[:, 250:]).any(axis=0)
    pairs = zip(map(runs_of, originals), map(runs_of, copies), strict=True)
    similarity = np.array([len(np.intersect1d(a, b)) / len(np.union1d(a, b)) for a, b in pairs])
    near = similarity >= threshold
    assert near.sum() > 20
    assert agree[near].mean() >= 0.98
    assert not (keys[:, :250] == np.roll(keys[:, :250], 1, axis=1)).any()


@pytest.mark.parametrize("action", ["refuse", "keep_together"])
def test_near_duplicates_are_refused_or_kept_in_one_set(tmp_path: Path, action: str) -> None:
    rng = np.random.default_rng(1)
    texts = ["".join(map(chr, rng.integers(97, 123, size=200))) for _ in range(40)]
    rows = [{"instruction": text, "output": "yes"} for text in texts]
    rows += [{"instruction": edited(text, rng, 1), "output": "yes"} for text in texts]
    source = write_rows(tmp_path / "near.jsonl", rows)
    near = {"threshold": 0.85, "action": action}
    prepared = run(tmp_path / "o", [source], near_duplicates=near, shard_bytes=3000, probes_per_task=9)
    store = TokenStore.open(prepared.store_path)
    lines = {line: split for split in SPLITS for line in store.column(0, "line", split)}
    refused = pq.read_table(prepared.path / "quarantine.parquet").to_pylist()
    if action == "refuse":
        assert sorted(lines) == list(range(1, 41))
        assert {record["rule"] for record in refused} == {"near_duplicate"}
        assert all(f"near.jsonl:{record['line'] - 40}," in record["reason"] for record in refused)
    else:
        assert not refused
        assert len(set(lines.values())) == 3
        assert all(lines[n] == lines[n + 40] for n in range(1, 41))


def test_what_is_compared_ignores_case_and_white_space() -> None:
    first, second = Text((("user", "The  cat"),), "sat\n"), Text((("system", "x"), ("user", "the cat")), "SAT")
    assert comparable(first) == comparable(second) == "the cat sat"


def test_a_parent_is_looked_for_in_the_rows_own_file_first() -> None:
    rows = [
        make_row("t", 1, source="f", id="1"),
        make_row("t", 2, source="g", id="1"),
        make_row("t", 3, source="g", id="2", parent_id="1"),
        make_row("t", 4, source="h", id="3", parent_id="2"),
        make_row("t", 5, source="h", id="4", parent_id="nowhere"),
    ]
    index = make_index(rows, shard_rows=2)
    relations = relate(index, find_canonical(index), NO_PAIRS, join_near=False)
    assert relations.parent.tolist() == [-1, -1, 1, 2, -1]
    assert relations.family[1] == relations.family[2] == relations.family[3] != relations.family[0]
    assert ancestors(relations.parent, 3, limit=9) == [1, 2]
    assert ancestors(np.array([1, 0]), 0, limit=9) == [1]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 200))
def test_the_tokenizers_sample_takes_tasks_in_turn_and_stops_at_its_bound(tasks: list[int], max_chars: int) -> None:
    index = make_index([make_row("abc"[task], n) for n, task in enumerate(tasks)])
    rows = sample_rows(index, np.ones(len(tasks), dtype=bool), max_chars=max_chars)
    chars = index.rows["num_chars"][rows]
    assert chars[:-1].sum() < max_chars
    assert len(rows) == len(tasks) or chars.sum() >= max_chars
    counts = np.bincount(index.rows["task"][rows], minlength=3)
    sizes = np.bincount(index.rows["task"], minlength=3)
    assert all(counts[t] >= min(sizes[t], counts.max() - 1) for t in range(len(index.tasks)))
