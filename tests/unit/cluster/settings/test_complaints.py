from pathlib import Path

import pytest

from cluster.settings import load_config
from scheduler.errors import ConfigError
from tests.unit.cluster.settings.example import Stage, complaint


def test_one_error_lists_every_problem_with_who_set_it(tmp_path: Path) -> None:
    text = complaint(
        tmp_path,
        "seed: x\ntrain:\n  steps: -1\n  lerning_rate: 1",
        "lr: 3\ntasks:\n  add: {tier: gold}",
        overrides=("train.micro_batch_size=0", "evaluation.temperature="),
    )
    assert text.splitlines()[0] == "8 problems in the settings:"
    for line in (
        "seed (0/run.yaml:1): should be a valid integer, unable to parse string as an integer, got 'x'",
        "train.steps (0/run.yaml:3): should be greater than or equal to 1, got -1",
        "train.lerning_rate (0/run.yaml:4): unknown key 'lerning_rate' in train; did you mean train.learning_rate?",
        "lr (1/run.yaml:1): unknown key 'lr' at the top level; did you mean train.learning_rate?",
        "tasks.add.tier (1/run.yaml:3): should be 'core', 'standard' or 'long_tail', got 'gold'",
        "tasks.add.name (for 1/run.yaml:3): is required and not set",
        "train.micro_batch_size (command line): should be greater than or equal to 1, got 0",
        "evaluation.temperature (command line): should be a valid number, got null",
    ):
        assert f"\n  {line}" in text


def test_a_rule_over_several_settings_names_all_who_set_them(tmp_path: Path) -> None:
    text = complaint(tmp_path, "train: {global_batch_size: 8}", overrides=("train.micro_batch_size=3",))
    assert (
        "train (0/run.yaml:1, command line): global_batch_size 8 is not a multiple of micro_batch_size 3"
        in text.splitlines()[1]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_size: 4", "did you mean train.global_batch_size?"),
        ("train: {epochs: 4}", "did you mean train.steps?"),
        ("model: {type: pretrained, path: x, lora: {r: 4}}", "did you mean model.lora.rank?"),
        ("model_name_or_path: x", "did you mean model.path?"),
        ("train: {seed: 3}", "did you mean seed?"),
        ("output_dir: x", "did you mean output.dir?"),
        ("max_lenght: 3", "did you mean data.max_length?"),
        ("train: {sede: 3}", "did you mean seed?"),
        ("output: {zzz: 3}", "known here: dir, mirrors, extra, log"),
        (
            "model: {type: tiny, dtype: auto}",
            "unknown key 'dtype' in model of type tiny; it belongs to type pretrained",
        ),
    ],
)
def test_an_unknown_key_suggests_a_setting_that_exists(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in complaint(tmp_path, text)


def test_another_tools_name_is_not_suggested_where_the_model_has_no_such_setting(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lr: 3")
    with pytest.raises(ConfigError, match="known here: until, name"):
        load_config(Stage, files=[file])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            "{type: tinny}",
            "model (0/run.yaml:1): type is 'tinny'; it must be one of pretrained, tiny; did you mean tiny?",
        ),
        ("{type: pretrained, pth: x}", "did you mean model.path?"),
        ("tiny", "model (0/run.yaml:1): should be a mapping of settings, got 'tiny'"),
        ("", "model (0/run.yaml:1): should be a mapping of settings, got null; give it settings or remove the key"),
    ],
)
def test_a_wrong_union_member_is_explained_in_its_own_words(tmp_path: Path, rule: str, expected: str) -> None:
    assert expected in complaint(tmp_path, f"model: {rule}")


def test_an_ambiguous_mapping_without_a_type_names_its_keys_and_the_types(tmp_path: Path) -> None:
    text = complaint(tmp_path, "tasks: {a: {name: a, output_rules: [{regex: x}, {placs: 1}]}}")
    types = (
        "pattern | decimals | choices | length | template | json_schema | citation | required | forbidden | terms | "
        "consistency | language | plugin"
    )
    assert (
        f"tasks.a.output_rules.0 (0/run.yaml:1): has no type, and its keys (regex) do not tell which; add type: {types}"
        in text
    )
    assert "output_rules.1" in text
    assert "did you mean places?" in text


def test_complaints_of_a_plain_union_about_one_value_are_one_problem(tmp_path: Path) -> None:
    text = complaint(tmp_path, "model: {type: pretrained, path: x, lora: {target_modules: 3}}")
    assert "1 problem" in text
    assert (
        "model.lora.target_modules (0/run.yaml:1): should be a valid string, got 3, or should be a valid tuple" in text
    )
