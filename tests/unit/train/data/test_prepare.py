import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from scheduler.errors import ConfigError, DataError
from scheduler.output_spec import ChoicesRule
from scheduler.task import TaskSpec
from tests.real_data import REAL_DATA
from train.config import SPLITS, DataConfig
from train.data.prepare import Prepared, prepare
from train.data.store import TokenStore
from train.tokenizer import encode_example, train_byte_tokenizer


def rows_of(name: str, count: int) -> list[dict[str, object]]:
    return [{"instruction": f"{name} {n}", "output": f"answer {n}"} for n in range(count)]


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Tiny:
    """A tokenizer trained on the sample it is given, which it remembers."""

    def __init__(self, vocab_size: int = 320) -> None:
        self.vocab_size = vocab_size
        self.key = f"tiny {vocab_size}"
        self.seen: list[str] = []

    def make(self, texts: Iterator[str]) -> PreTrainedTokenizerFast:
        self.seen = list(texts)
        return train_byte_tokenizer(self.seen, vocab_size=self.vocab_size)


def run(
    out_dir: Path, sources: list[Path], *, specs: dict[str, TaskSpec] | None = None, **settings: object
) -> Prepared:
    config = DataConfig.model_validate({"sources": sources, **settings})
    return prepare(config, specs=specs or {}, tokenizer_source=Tiny(), chat_template="auto", out_dir=out_dir, seed=7)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return [write_rows(tmp_path / f"{name}.jsonl", rows_of(name, 60)) for name in ("sum", "copy")]


def test_two_small_files_are_ready_with_defaults(tmp_path: Path, sources: list[Path]) -> None:
    prepared = run(tmp_path / "out", sources)
    assert prepared.task_names == ("sum", "copy")
    assert prepared.num_rows == {"probe": (12, 12), "selection": (0, 0), "test": (12, 12), "train": (36, 36)}
    store = TokenStore.open(prepared.store_path)
    loaded = AutoTokenizer.from_pretrained(prepared.tokenizer_path)
    for task in range(2):
        for split in SPLITS:
            supervised = store.supervised_lengths(task, split)
            for row, example in enumerate(store.examples(task, split)):
                encoded = store.encoded(task, row, split)
                expected = encode_example(loaded, example.messages, example.answer, "auto")
                assert (encoded.input_ids.tolist(), encoded.answer_start) == expected
                assert supervised[row] == len(encoded.input_ids) - encoded.answer_start
                assert example.id == store.row_id(task, row, split)
    assert str(prepared.summary).splitlines()[-1].split()[:4] == ["copy", "36", "12", "12"]


def test_the_store_gives_read_only_views_of_one_memory_map(tmp_path: Path, sources: list[Path]) -> None:
    store = TokenStore.open(run(tmp_path / "out", sources).store_path)
    first, again = store.encoded(1, 3).input_ids, store.encoded(1, 3).input_ids
    assert first.dtype == np.int32
    assert not first.flags.writeable
    assert np.shares_memory(first, again)
    assert np.isnan(store.difficulty(0)).all()
    with pytest.raises(IndexError):
        store.encoded(0, 36)


def test_the_tokenizer_sees_training_rows_only(tmp_path: Path, sources: list[Path]) -> None:
    tokenizer = Tiny()
    config = DataConfig.model_validate({"sources": sources})
    prepared = prepare(
        config, specs={}, tokenizer_source=tokenizer, chat_template="auto", out_dir=tmp_path / "o", seed=7
    )
    store = TokenStore.open(prepared.store_path)
    prompts = {split: {e.messages[0][1] for t in range(2) for e in store.examples(t, split)} for split in SPLITS}
    assert prompts["train"] == {text for text in tokenizer.seen if not text.startswith("answer")}


def test_a_second_preparation_finds_the_first_and_the_order_of_rows_does_not_matter(
    tmp_path: Path, sources: list[Path]
) -> None:
    first = run(tmp_path / "out", sources)
    stamp = (first.path / "summary.json").stat().st_mtime_ns
    again = run(tmp_path / "out", sources)
    assert (again.path, again.summary, again.num_rows) == (first.path, first.summary, first.num_rows)
    assert (again.path / "summary.json").stat().st_mtime_ns == stamp
    shuffled = random.Random(0).sample(rows_of("sum", 60), 60)
    write_rows(sources[0], shuffled)
    third = run(tmp_path / "out", sources)
    assert third.path != first.path  # lines moved, and lines are lineage
    for split in SPLITS:
        hashes = [TokenStore.open(p.store_path).content_hashes(0, split) for p in (first, third)]
        assert hashes[0] == hashes[1]
    assert [item.name for item in (tmp_path / "out").iterdir() if item.name.startswith(".")] == []


@pytest.mark.parametrize("setting", [{"max_length": 100}, {"probes_per_task": 5}, {"max_refused_ratio": 0.1}])
def test_another_setting_gives_another_folder(tmp_path: Path, sources: list[Path], setting: dict[str, Any]) -> None:
    assert run(tmp_path / "out", sources).path != run(tmp_path / "out", sources, **setting).path


def test_bad_rows_stop_the_run_and_lie_in_the_quarantine(tmp_path: Path, sources: list[Path]) -> None:
    with sources[0].open("a") as file:
        file.write('{"instruction": "x"}\n')
    with pytest.raises(DataError, match=r"sum\.jsonl:61: no column 'output'"):
        run(tmp_path / "out", sources)
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet").column("line").to_pylist() == [61]
    prepared = run(tmp_path / "out", sources, max_refused_ratio=0.01)
    assert pq.read_table(prepared.path / "quarantine.parquet").column("rule").to_pylist() == ["missing_column"]
    assert prepared.summary.sources[0].refused == {"missing_column": 1}


def test_long_rows_are_refused_without_costing_a_probe(tmp_path: Path) -> None:
    rows = rows_of("long", 60) + [{"instruction": "w " * 300, "output": str(n)} for n in range(60)]
    source = write_rows(tmp_path / "long.jsonl", rows)
    with pytest.raises(DataError, match=r"too_long 60.*[\s\S]*raise data\.max_length"):
        run(tmp_path / "out", [source], max_length=64)
    prepared = run(tmp_path / "out", [source], max_length=64, max_refused_ratio=0.5)
    assert prepared.num_rows == {"probe": (12,), "selection": (0,), "test": (12,), "train": (36,)}
    store = TokenStore.open(prepared.store_path)
    assert max(length for split in SPLITS for length in store.lengths(0, split)) <= 64


def test_output_rules_of_a_card_refuse_training_rows(tmp_path: Path, sources: list[Path]) -> None:
    spec = TaskSpec(name="sum", output_rules=(ChoicesRule(values=tuple(f"answer {n}" for n in range(59))),))
    with pytest.raises(DataError, match=r"output:choices 1"):
        run(tmp_path / "out", sources, specs={"sum": spec})


def test_a_card_without_rows_is_an_empty_task(tmp_path: Path, sources: list[Path]) -> None:
    with pytest.raises(DataError, match="empty task 'sort'"):
        run(tmp_path / "out", sources, specs={"sort": TaskSpec(name="sort")})


def test_rows_held_out_by_one_task_are_not_trained_by_another(tmp_path: Path) -> None:
    large = write_rows(tmp_path / "large.jsonl", rows_of("shared", 200))
    small = write_rows(tmp_path / "small.jsonl", rows_of("shared", 40) + rows_of("own", 40))
    prepared = run(tmp_path / "out", [large, small])
    store = TokenStore.open(prepared.store_path)
    hashes = {split: {h for task in range(2) for h in store.content_hashes(task, split)} for split in SPLITS}
    assert not hashes["train"] & (hashes["probe"] | hashes["test"])
    assert not hashes["probe"] & hashes["test"]
    assert sum(source.refused["leak"] for source in prepared.summary.sources) > 0


def test_a_damaged_store_is_named(tmp_path: Path, sources: list[Path]) -> None:
    store_path = run(tmp_path / "out", sources).store_path
    (store_path / "probe.arrow").write_bytes(b"ARROW1 cut short")
    with pytest.raises(DataError, match=r"probe\.arrow"):
        TokenStore.open(store_path)
    with pytest.raises(DataError, match=r"nowhere"):
        TokenStore.open(tmp_path / "nowhere")


@pytest.mark.skipif(not (REAL_DATA / "toolcall").is_dir(), reason="real data absent (set TASKHEAT_REAL_DATA)")
def test_real_conversations_with_tools_prepare(tmp_path: Path) -> None:
    names = ("glaive_toolcall_en_demo", "glaive_toolcall_zh_demo", "identity")
    prepared = run(tmp_path, [REAL_DATA / "toolcall" / f"{name}.json" for name in names], max_length=20_000)
    assert prepared.task_names == names
    assert [source.form for source in prepared.summary.sources] == ["sharegpt", "sharegpt", "alpaca"]
    assert prepared.summary.sources[0].unread_columns == ()
    assert all(source.refused.keys() <= {"duplicate"} for source in prepared.summary.sources)


@pytest.mark.parametrize("side", ["input_rules", "output_rules"])
def test_a_rule_that_cannot_be_used_stops_before_any_row_is_read(
    tmp_path: Path, sources: list[Path], side: str
) -> None:
    spec = TaskSpec.model_validate({"name": "sum", side: [{"type": "plugin", "name": "not installed"}]})
    with pytest.raises(ConfigError, match=rf"tasks\.sum\.{side}\.0: "):
        run(tmp_path / "out", [*sources, tmp_path / "absent.jsonl"], specs={"sum": spec})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("splits", [["train"], ["train", "test"], ["train", "validation", "test"]])
def test_the_sets_a_saved_dataset_dict_lacks_are_held_out_of_its_training_split(
    tmp_path: Path, splits: list[str]
) -> None:
    root = tmp_path / "algebra"
    for split in splits:
        (root / split).mkdir(parents=True)
        rows = [{"instruction": f"{split} {n}", "output": "a"} for n in range(60 if split == "train" else 9)]
        pq.write_table(pa.Table.from_pylist(rows), root / split / "rows.parquet")
        (root / split / "state.json").write_text('{"_data_files": [{"filename": "rows.parquet"}]}')
    (root / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    prepared = run(tmp_path / "out", [root], selection_per_task=5, probes_per_task=6, test_per_task=7)
    held = {name: sizes[0] for name, sizes in prepared.num_rows.items()}
    assert held["probe"] == 6
    assert held["selection"] == (9 if "validation" in splits else 5)
    assert held["test"] == (9 if "test" in splits else 7)
    store = TokenStore.open(prepared.store_path)
    assert all(example.messages[0][1].startswith("train") for example in store.examples(0))
