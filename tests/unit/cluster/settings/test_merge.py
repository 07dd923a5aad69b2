from pathlib import Path
from typing import Any

import pytest

from cluster.settings import load_config
from scheduler.task import NumericChecker
from tests.unit.cluster.settings.example import Output, Sampling, Settings, load, source_paths
from train.config import TinyModel, TrainConfig


def test_overrides_beat_later_files_which_beat_earlier_files_which_beat_defaults(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "train: {steps: 1, warmup_steps: 1, weight_decay: 1}",
        "train: {steps: 2, warmup_steps: 2}",
        overrides=("train.steps=3", "train.steps=4"),
    )
    train = config.train
    assert (train.steps, train.warmup_steps, train.weight_decay, train.keep_checkpoints) == (4, 2, 1.0, 2)


def test_lists_replace_and_mappings_merge(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "tasks: {add: {name: add, constraints: [a, b]}, copy: {name: copy}}",
        "tasks: {add: {constraints: [c], tier: core}}",
    )
    assert list(config.tasks) == ["add", "copy"]
    assert (config.tasks["add"].constraints, config.tasks["add"].tier) == (("c",), "core")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_states_nothing(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).train == TrainConfig()


def test_a_partial_setting_keeps_the_rest_of_the_fields_own_default(tmp_path: Path) -> None:
    assert load(tmp_path, "sampling: {num_answers: 4}").sampling == Sampling(temperature=0.3, num_answers=4)
    assert load(tmp_path, overrides=("sampling.num_answers=4",)).sampling.temperature == 0.3


def test_another_type_replaces_the_mapping_and_the_same_type_merges_into_it(tmp_path: Path) -> None:
    base = "model: {type: pretrained, path: gpt2, dtype: float32}"
    assert load(tmp_path, base, "model: {type: tiny, num_layers: 3}").model == TinyModel(num_layers=3)
    assert load(tmp_path, base, overrides=("model.type=tiny", "model.num_layers=3")).model == TinyModel(num_layers=3)
    kept = load(tmp_path, base, "model: {type: pretrained, lora: null}").model
    assert kept.model_dump(include={"path", "dtype", "lora"}) == {"path": "gpt2", "dtype": "float32", "lora": None}


def test_a_missing_type_is_the_only_member_with_all_the_given_keys(tmp_path: Path) -> None:
    config = load(
        tmp_path, "model: {path: gpt2}\ntasks: {a: {name: a, checker: {tolerance: 1}, output_rules: [{places: 2}]}}"
    )
    assert config.model.type == "pretrained"
    assert config.tasks["a"].checker == NumericChecker(tolerance=1)
    assert config.tasks["a"].output_rules[0].type == "decimals"


def test_a_list_in_short_form_merges_with_the_long_form_before_and_after_it(tmp_path: Path) -> None:
    after = load(tmp_path, "data: [a.jsonl, b.jsonl]", "data: {probes_per_task: 8}")
    before = load(tmp_path, "data: {sources: [x.jsonl], probes_per_task: 8}", "data: [a.jsonl, b.jsonl]")
    for config, folder in ((after, "0"), (before, "1")):
        assert config.data is not None
        assert config.data.probes_per_task == 8
        assert source_paths(config) == [str(tmp_path / folder / name) for name in ("a.jsonl", "b.jsonl")]


def test_every_path_is_relative_to_the_file_that_states_it(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    config = load(
        tmp_path,
        "data: {sources: [a.jsonl, {path: ../b.jsonl}]}\noutput: {mirrors: {one: m}, extra: [e], log: none}",
        "data: {tasks_file: tasks.yaml}\noutput: {mirrors: {two: m}, dir: /abs/out}",
        overrides=("output.log=log.txt",),
    )
    assert source_paths(config) == [str(tmp_path / "0/a.jsonl"), str(tmp_path / "b.jsonl")]
    assert config.data is not None
    assert config.data.tasks_file == tmp_path / "1/tasks.yaml"
    assert config.output == Output(
        dir=Path("/abs/out"),
        mirrors={"one": tmp_path / "0/m", "two": tmp_path / "1/m"},
        extra=(tmp_path / "0/e",),
        log=tmp_path / "cwd/log.txt",
    )


def test_a_default_path_is_relative_to_the_current_directory(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(tmp_path, "output: {log: none}")
    assert (config.output.dir, config.output.log) == (tmp_path / "runs", "none")


def test_a_file_given_by_a_relative_name_still_anchors_its_paths(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/run.yaml").write_text("data: [../rows.jsonl]")
    monkeypatch.chdir(tmp_path)
    assert source_paths(load_config(Settings, files=[Path("configs/run.yaml")])) == [str(tmp_path / "rows.jsonl")]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("org/model", "org/model"),
        ("gpt2", "gpt2"),
        ("./m", "{dir}/0/m"),
        ("../m", "{dir}/m"),
        ("/m", "/m"),
        ("~/m", "/home/u/m"),
    ],
)
def test_a_models_path_is_a_hub_id_unless_it_looks_like_a_path(
    tmp_path: Path, monkeypatch: Any, written: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    model = load(tmp_path, f"model: {{type: pretrained, path: {written}}}").model
    assert model.model_dump()["path"] == expected.format(dir=tmp_path)


def test_a_url_is_left_alone_where_a_path_is_made_absolute(tmp_path: Path) -> None:
    sources = "data: {sources: [a.jsonl, {path: 's3://bucket/rows/b.jsonl'}, 'file:///rows'], tasks_file: 'x://y'}"
    config = load(tmp_path, sources)
    paths = [source.path for source in config.data.sources]
    assert [type(path) is str for path in paths] == [False, True, True]
    assert source_paths(config) == [str(tmp_path / "0/a.jsonl"), "s3://bucket/rows/b.jsonl", "file:///rows"]
    assert config.data.tasks_file == tmp_path / "0/x:/y"
