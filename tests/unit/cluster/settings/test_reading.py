import re
from pathlib import Path
from typing import Any

import pytest

from cluster.settings import load_config
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError
from tests.unit.cluster.settings.example import (
    Settings,
    complaint,
    load,
    source_paths,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-3", 0.003), ("1E5", 1e5), (".5", 0.5), ("010", 10.0), ("0x10", 16.0), ("-0.0", -0.0), ("1_000", 1000.0)],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    class Number(ConfigModel):
        number: float

    file = tmp_path / "number.yaml"
    file.write_text(f"number: {text}")
    assert load_config(Number, files=[file]).number == value


@pytest.mark.parametrize("text", ["no", "on", "2024-01-01", "1:30", "1_0", "0b1", "NaN", "0o", "e3"])
def test_a_plain_word_that_yaml_1_1_takes_for_something_else_stays_a_string(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, f"title: {text}").title == text


def test_a_task_named_like_a_number_or_a_boolean_keeps_its_name(tmp_path: Path) -> None:
    assert list(load(tmp_path, "tasks: {1: {name: x}, true: {name: y}, no: {name: z}}").tasks) == ["1", "true", "no"]


def test_anchors_and_merge_keys_are_read_each_time_they_are_used(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "tasks:\n  a: &a {name: a, tier: core}\n  b: &b {<<: *a, name: b}\n  c: {<<: *b, name: c}\n  d: *b\n",
    )
    assert [(task.name, task.tier) for task in config.tasks.values()] == [
        (name, "core") for name in ("a", "b", "c", "b")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  steps: 1\n  steps: 2", "0/run.yaml:3:3: key 'steps' is set twice in one mapping (first on line 2)"),
        ("seed: 1\ntrain: {steps: [1}", "0/run.yaml:2:18: "),
        ("\tseed: 1", "0/run.yaml:1:1: found character '\\t' that cannot start any token; indent with spaces"),
        ("seed: a: b", "0/run.yaml:1:8: mapping values are not allowed here; quote a value"),
        ("seed: 1\n---\nseed: 2", "0/run.yaml:2:1: expected a single document"),
        ("seed: !!python/name:os.getcwd ''", "0/run.yaml:1:7: tag"),
        ("seed: !!int x", "0/run.yaml:1:7: "),
        ("seed: &a [*a]", "an anchor contains itself"),
        ("? [a]\n: 1", "0/run.yaml:1:3: a key is a list or a mapping"),
        ("- 1", "0/run.yaml:1: the top level is [1]"),
        ("seed: \x01", "0/run.yaml: character #x0001"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused_at_its_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    assert message in complaint(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9")
    for file, message in (("absent.yaml", "No such file"), ("latin.yaml", "byte 10 is not UTF-8"), (".", "directory")):
        with pytest.raises(ConfigError, match=re.escape(str(tmp_path / file))) as caught:
            load_config(Settings, files=[tmp_path / file])
        assert message in str(caught.value)


def test_variables_expand_in_strings_before_paths_are_resolved(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ROWS", "../rows")
    monkeypatch.setenv("STEPS", "12")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    config = load(
        tmp_path,
        "data: ['${ROWS}/a.jsonl']\ntitle: ${UNSET:-x y}, ${EMPTY:-z}, [${EMPTY}], $${ROWS}, $5\n"
        "train: {steps: '${STEPS}'}",
    )
    assert source_paths(config) == [str(tmp_path / "rows/a.jsonl")]
    assert config.title == "x y, z, [], ${ROWS}, $5"
    assert config.train.steps == 12


def test_an_unset_variable_is_refused_with_its_name_file_and_key(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    text = complaint(tmp_path, "seed: 1\ndata:\n  sources: ['${UNSET}/a']")
    assert text.startswith("0/run.yaml:3, key data.sources.0: environment variable UNSET is not set")
    assert "${UNSET:-default}" in text
    assert "'title=${UNSET}', key title" in complaint(tmp_path, overrides=("title=${UNSET}",))
    assert "starts no ${NAME}" in complaint(tmp_path, "title: '${UN-SET}'")
