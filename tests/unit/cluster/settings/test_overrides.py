from pathlib import Path
from typing import Any

import pytest

from tests.unit.cluster.settings.example import Stage, complaint, load, source_paths


def test_an_override_is_read_as_yaml_and_nothing_after_the_equals_sign_is_null(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "model: {path: gpt2}",
        overrides=("model.lora=", "train={steps: 7, learning_rate: 3e-3}", "title=a=b"),
    )
    assert config.model.model_dump()["lora"] is None
    assert (config.train.steps, config.train.learning_rate, config.title) == (7, 0.003, "a=b")


def test_an_index_changes_or_appends_one_entry_of_a_list_even_of_a_default_one(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(
        tmp_path,
        "data: [a.jsonl, b.jsonl]",
        overrides=(
            "data.sources.1.path=x.jsonl",
            "data.sources.2=y.jsonl",
            "stages.0.until=5",
            "train.adam_betas.1=0.9",
        ),
    )
    assert source_paths(config) == [str(tmp_path / path) for path in ("0/a.jsonl", "x.jsonl", "y.jsonl")]
    assert config.stages == (Stage(until=5, name="first"), Stage(until=20))
    assert config.train.adam_betas == (0.9, 0.9)


def test_an_override_reaches_into_a_free_mapping_of_tasks(tmp_path: Path) -> None:
    config = load(tmp_path, "tasks: {add: {name: add}}", overrides=("tasks.add.tier=core", "tasks.new.name=new"))
    assert (config.tasks["add"].tier, config.tasks["new"].name) == ("core", "new")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lerning_rate=1", "unknown key 'lerning_rate' in train; did you mean train.learning_rate?"),
        ("lr=1", "did you mean train.learning_rate?"),
        ("train.steps.more=1", "train.steps has no settings below it"),
        ("tasks.add.teir=core", "unknown key 'teir' in tasks.add; did you mean tasks.add.tier?"),
        ("data.sources.first.path=x", "data.sources is a list; use an index such as 0"),
        ("stages.7.until=1", "the list has 2 entries, so its index is 0 to 2"),
        ("train.steps", "write a.b=value"),
        ("=3", "write a.b=value"),
        ("train..steps=3", "write a.b=value"),
        ("train.steps=[1", "expected ',' or ']'"),
    ],
)
def test_an_override_that_names_no_setting_is_refused_with_its_text(
    tmp_path: Path, override: str, message: str
) -> None:
    text = complaint(tmp_path, overrides=(override,))
    assert message in text
    assert repr(override) in text
