from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from cluster.config import RunConfig
from cluster.settings import dump_config, load_config
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError
from tests.unit.cluster.settings.example import Settings, load, round_trip
from train.config import TrainConfig


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
    with pytest.raises(ConfigError, match=r"settings:\n  mixture.interval_steps 2 is more than train.steps 1: "):
        load_config(RunConfig, files=[file], overrides=["train.steps=1", "mixture.interval_steps=2"])


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
        [
            "\x85",
            "a\u2028b",
            "no",
            "3e-3",
            "0o7",
            "1:30",
            "null",
            "~",
            "",
            " x ",
            "a: b",
            "# c",
            "${A}",
            "$${A}",
            "$$$${",
            "<<",
        ]
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
