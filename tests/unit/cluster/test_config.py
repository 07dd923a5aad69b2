from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import LaunchConfig, RunConfig, StageConfig
from cluster.settings import load_config
from scheduler.errors import ConfigError
from scheduler.setup import CapabilityBoundary, FractionBoundary, HeatPolicy, MixtureConfig, StepBoundary
from train.config import PretrainedModel, TrainConfig

SMALLEST = "model: {path: gpt2}\ndata:\n  - copy.jsonl\n  - last.jsonl\n"


def resolve(directory: Path, text: str = "", *overrides: str) -> RunConfig:
    file = directory / "run.yaml"
    file.write_text(SMALLEST + text, encoding="utf-8")
    return load_config(RunConfig, files=[file], overrides=overrides)


def test_four_lines_that_name_a_model_and_two_files_are_a_whole_run(tmp_path: Path) -> None:
    config = resolve(tmp_path)
    assert isinstance(config.model, PretrainedModel)
    assert [source.path for source in config.data.sources] == [tmp_path / "copy.jsonl", tmp_path / "last.jsonl"]
    assert [stage.name for stage in config.stages] == ["instruction", "tasks"]
    assert isinstance(config.stages[0].until, CapabilityBoundary)
    assert isinstance(config.mixture.policy, HeatPolicy)
    assert config.output.name is None


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{name: only, until: {step: 5}}]", "the last stage, 'only', has an `until`; remove it"),
        ("[{name: a}, {name: b}]", "'a' needs an `until`, or the stage after it never begins"),
        ("[{name: a, until: {step: 1000}}, {name: b}]", "stages.0.until.step 1000 is not before train.steps 1000"),
        ("[{name: a, until: {step: 1}}, {name: b, until: {step: 2}}]", "the last stage, 'b', has an `until`"),
        ("[]", "should have at least 1 item"),
        ("[{name: a, until: {step: 1}}, {name: b}, {name: c}]", "should have at most 2 items"),
        ("[{name: a, until: {fraction: 1.0}}, {name: b}]", "stages.0.until.fraction"),
        (
            "[{name: a, until: {type: capability, min_steps: 9, max_steps: 8}}, {name: b}]",
            "max_steps 8 lies before min_steps 9",
        ),
    ],
)
def test_stages_that_do_not_follow_each_other_are_refused(tmp_path: Path, stages: str, message: str) -> None:
    with pytest.raises(ConfigError, match="in the settings") as caught:
        resolve(tmp_path, f"stages: {stages}")
    assert message in str(caught.value)


def test_a_run_may_have_one_stage_and_a_boundary_just_before_its_end(tmp_path: Path) -> None:
    assert resolve(tmp_path, "stages: [{name: only}]").stages == (StageConfig(name="only"),)
    config = resolve(tmp_path, "stages: [{name: a, until: {step: 999}}, {name: b}]")
    assert config.stages[0].until == StepBoundary(step=999)
    config = resolve(tmp_path, "stages: [{name: a, until: {fraction: 0.25}}, {name: b}]")
    assert config.stages[0].until == FractionBoundary(fraction=0.25)


def test_a_curriculum_beside_a_window_in_every_stage_is_refused_before_any_data_is_looked_at(tmp_path: Path) -> None:
    both = "stages: [{name: a, until: {step: 9}, difficulty: {last: 1}}, {name: b, difficulty: {first: 2}}]"
    message = (
        r"mixture\.curriculum would do nothing: every stage .*\(stages\.0\.difficulty, stages\.1\.difficulty\), "
        r".*remove the window of a stage, or set mixture\.curriculum to null"
    )
    with pytest.raises(ConfigError, match=message):
        resolve(tmp_path, both, "mixture.curriculum={}")
    assert resolve(tmp_path, both).mixture.curriculum is None
    one = "stages: [{name: a, until: {step: 9}, difficulty: {last: 1}}, {name: b}]"
    assert resolve(tmp_path, one, "mixture.curriculum={}").mixture.curriculum is not None


def test_an_interval_longer_than_the_run_is_refused_and_one_as_long_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mixture.interval_steps 11 is more than train.steps 10.*lower it"):
        resolve(tmp_path, "", "train.steps=10", "mixture.interval_steps=11")
    assert resolve(tmp_path, "", "train.steps=10", "mixture.interval_steps=10").mixture.interval_steps == 10


@given(total=st.integers(1, 10**9))
def test_the_default_interval_lies_within_the_run_and_measures_it_twenty_times_or_more(total: int) -> None:
    interval = MixtureConfig().interval_of(total)
    assert 1 <= interval <= min(50, total)
    assert total // interval >= min(total, 20)


@given(total=st.integers(1, 10**9), interval=st.integers(1, 10**6))
def test_a_configured_interval_is_kept(total: int, interval: int) -> None:
    assert MixtureConfig(interval_steps=interval).interval_of(total) == interval


def test_a_stage_takes_from_train_what_it_does_not_state_and_keeps_a_zero_that_it_states() -> None:
    train = TrainConfig(learning_rate=1e-3, warmup_steps=20, max_grad_norm=2.0)
    own = StageConfig(name="a", learning_rate=5e-4, warmup_steps=0).training(train)
    assert (own.learning_rate, own.warmup_steps, own.max_grad_norm) == (5e-4, 0, 2.0)


@pytest.mark.parametrize("rule", ["{type: pattern, regex: '['}", "{type: citation, regex: '(', allowed: [a]}"])
def test_a_regular_expression_that_does_not_compile_is_refused_with_the_settings(tmp_path: Path, rule: str) -> None:
    with pytest.raises(ConfigError, match=r"tasks.copy.output_rules.0.regex .*not a regular expression: .* \(got '"):
        resolve(tmp_path, f"tasks: {{copy: {{output_rules: [{rule}]}}}}")


def test_each_forbidden_expression_is_checked_by_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"1 problem .*\n +tasks.copy.output_rules.0.regexes.1 .*not a regular expr"):
        resolve(tmp_path, "tasks: {copy: {output_rules: [{type: forbidden, regexes: [ok, '*']}]}}")


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "-flag", ""])
def test_a_run_name_that_is_no_plain_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"output\.name"):
        resolve(tmp_path, "", f"output.name='{name}'")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_workers=0", "greater than or equal to 1"),
        ("cpus_per_worker=0", "greater than 0"),
        ("gpus_per_worker=1.5", "gpus_per_worker 1.5: more than one GPU must be a whole number of them"),
        ("max_failures=-1", "greater than or equal to 0"),
        ("log_level=loud", "should be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_an_impossible_launch_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(LaunchConfig, files=[], overrides=[override])
    assert message in str(caught.value)
    assert load_config(LaunchConfig, files=[]) == LaunchConfig()
