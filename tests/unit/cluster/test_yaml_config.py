import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from cluster.config import RunConfig
from cluster.yaml_config import dump_config, load_config
from evalsvc.config import EvaluationConfig
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError
from scheduler.task import NumericChecker, TaskSpec
from train.config import DataConfig, ModelConfig, TinyModel, TrainConfig


class Stage(ConfigModel):
    until: int = 1
    name: str = ""


class Sampling(ConfigModel):
    temperature: float = 1.0
    num_answers: int = 1


class Output(ConfigModel):
    dir: Path = Path("runs")
    mirrors: dict[str, Path] = Field(default_factory=dict)
    extra: tuple[Path, ...] = ()
    log: Path | Literal["none"] = "none"


class Settings(ConfigModel):
    """A small tree of the kinds of field a run's settings have."""

    seed: int = 0
    title: str = ""
    model: ModelConfig = TinyModel()
    data: DataConfig | None = None
    tasks: dict[str, TaskSpec] = Field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    stages: tuple[Stage, ...] = (Stage(until=10, name="first"), Stage(until=20))
    sampling: Sampling = Sampling(temperature=0.3)
    evaluation: EvaluationConfig = EvaluationConfig()
    output: Output = Output()


def load(directory: Path, *texts: str, overrides: tuple[str, ...] = ()) -> Settings:
    """Writes each text to its own folder, `0/run.yaml`, `1/run.yaml`, …, and loads them in that order."""
    files = []
    for i, text in enumerate(texts):
        file = directory / str(i) / "run.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        files.append(file)
    return load_config(Settings, files=files, overrides=overrides)


def complaint(directory: Path, *texts: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load(directory, *texts, overrides=overrides)
    return str(caught.value).replace(f"{directory}{os.sep}", "")


def source_paths(config: Settings) -> list[str]:
    assert config.data is not None
    return [str(source.path) for source in config.data.sources]


# -- precedence -----------------------------------------------------------------------------------------------------


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


def test_a_list_in_short_form_merges_with_the_long_form_before_and_after_it(tmp_path: Path) -> None:
    after = load(tmp_path, "data: [a.jsonl, b.jsonl]", "data: {probes_per_task: 8}")
    before = load(tmp_path, "data: {sources: [x.jsonl], probes_per_task: 8}", "data: [a.jsonl, b.jsonl]")
    for config, folder in ((after, "0"), (before, "1")):
        assert config.data is not None
        assert config.data.probes_per_task == 8
        assert source_paths(config) == [str(tmp_path / folder / name) for name in ("a.jsonl", "b.jsonl")]


# -- overrides ------------------------------------------------------------------------------------------------------


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


# -- paths ----------------------------------------------------------------------------------------------------------


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


# -- YAML -----------------------------------------------------------------------------------------------------------


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


# -- environment variables ------------------------------------------------------------------------------------------


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


# -- validation -----------------------------------------------------------------------------------------------------


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


def test_a_missing_type_is_the_only_member_with_all_the_given_keys(tmp_path: Path) -> None:
    config = load(
        tmp_path, "model: {path: gpt2}\ntasks: {a: {name: a, checker: {tolerance: 1}, output_rules: [{places: 2}]}}"
    )
    assert config.model.type == "pretrained"
    assert config.tasks["a"].checker == NumericChecker(tolerance=1)
    assert config.tasks["a"].output_rules[0].type == "decimals"


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
    types = "pattern | decimals | choices | length | citation | required | forbidden"
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


# -- dump -----------------------------------------------------------------------------------------------------------


def round_trip(config: Any, directory: Path) -> Any:
    file = directory / "dump.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    return load_config(type(config), files=[file])


@pytest.mark.parametrize("model", ["{path: ../m, lora: {rank: 4}}", "{type: tiny}"])
def test_a_whole_runs_settings_dump_to_yaml_that_loads_equal(tmp_path: Path, model: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model: {model}\ndata: [a.jsonl]\ntasks: {{a: {{tier: core}}}}\n")
    config = load_config(RunConfig, files=[file], overrides=["stages.0.name=warm", "data.probes_per_task=4"])
    assert (config.stages[0].name, config.tasks["a"].tier) == ("warm", "core")
    assert config.stages[0].until == RunConfig.model_fields["stages"].default[0].until
    assert round_trip(config, tmp_path) == config


def test_a_rule_over_the_whole_names_its_own_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {type: tiny}\ndata: [a.jsonl]")
    with pytest.raises(ConfigError, match=r"settings:\n  mixture.interval_steps \d+ is more than train.steps 1: "):
        load_config(RunConfig, files=[file], overrides=["train.steps=1"])


def test_a_loaded_config_dumps_to_yaml_that_loads_equal_from_another_directory(
    tmp_path: Path, monkeypatch: Any
) -> None:
    config = load(
        tmp_path,
        "model: {path: ../m}\ndata: [a.jsonl, {path: b.csv, columns: {input: x}}]\n"
        "tasks: {no: {name: 'no', checker: {tolerance: 1e-9}, output_rules: [{places: 2}]}}\n"
        "output: {mirrors: {a: m}}",
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert round_trip(config, tmp_path / "elsewhere") == config
    assert list(yaml.safe_load(dump_config(config))) == list(Settings.model_fields)


@st.composite
def train_configs(draw: st.DrawFn) -> TrainConfig:
    micro = draw(st.integers(1, 64))
    positive = st.floats(min_value=0, exclude_min=True)
    ratio = st.floats(0, 1)
    return TrainConfig(
        steps=draw(st.integers(1, 10**12)),
        micro_batch_size=micro,
        global_batch_size=micro * draw(st.integers(1, 64)),
        learning_rate=draw(positive),
        warmup_steps=draw(st.integers(0, 10**6)),
        final_lr_ratio=draw(ratio),
        weight_decay=draw(st.floats(min_value=0)),
        adam_betas=(draw(ratio), draw(ratio)),
        max_grad_norm=draw(positive),
    )


reused_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@reused_directory
@given(config=train_configs())
def test_any_train_config_survives_the_round_trip(tmp_path: Path, config: TrainConfig) -> None:
    assert round_trip(config, tmp_path) == config


class Texts(ConfigModel):
    texts: tuple[str, ...]
    by_name: dict[str, str]
    choice: Annotated[str | int | float | bool | None, Field(union_mode="smart")]


AWKWARD = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["no", "3e-3", "0o7", "1:30", "null", "~", "", " x ", "a: b", "# c", "${A}", "$${A}", "$$$${", "<<"]
    ),
    st.text(alphabet="${}A:-", max_size=8),
)


@reused_directory
@given(
    texts=st.lists(AWKWARD, max_size=4),
    by_name=st.dictionaries(AWKWARD, AWKWARD, max_size=3),
    choice=st.one_of(
        AWKWARD, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
    ),
)
def test_any_text_number_or_boolean_survives_the_round_trip(
    tmp_path: Path, texts: list[str], by_name: dict[str, str], choice: Any
) -> None:
    config = Texts(texts=tuple(texts), by_name=by_name, choice=choice)
    back = round_trip(config, tmp_path)
    assert back == config
    assert type(back.choice) is type(config.choice)


@reused_directory
@given(steps=st.integers(1, 1000), rate=st.floats(1e-9, 1), data=st.data())
def test_an_override_means_the_same_as_a_file_that_states_it(
    tmp_path: Path, steps: int, rate: float, data: st.DataObject
) -> None:
    base = f"train: {{steps: {data.draw(st.integers(1, 1000))}, warmup_steps: 3}}"
    by_file = load(tmp_path, base, f"train: {{steps: {steps}, learning_rate: {rate!r}}}")
    by_override = load(tmp_path, base, overrides=(f"train.steps={steps}", f"train.learning_rate={rate!r}"))
    assert by_file == by_override
    assert by_file.train.learning_rate == rate
