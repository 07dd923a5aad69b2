"""What a person gets wrong: every mistake ends with exit code 2, one message that says what to change, and no debris.

Most cases run the command in this process; those that must return before anything heavy is imported, and the one that
starts Ray, are processes of their own.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.cli import main
from cluster.config import LaunchConfig, RunConfig
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from tests.integration.tiny_run import command, environment, write_config

NAME = "tried"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a good run.yaml over three good files of rows, also the current directory."""
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rewrite(folder: Path, *, line: int, text: str) -> None:
    """Replace one line of copy.jsonl."""
    file = folder / "data" / "copy.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def add_settings(folder: Path, text: str) -> None:
    with (folder / "run.yaml").open("a", encoding="utf-8") as file:
        file.write(text)


def refused(folder: Path, *arguments: str) -> str:
    """The message of a command that must refuse, and must leave the name free for the next try."""
    done = CliRunner().invoke(main, ["run", str(folder / "run.yaml"), f"output.name={NAME}", *arguments])
    assert done.exit_code == 2, done.output
    check_refusal(folder, done.stderr)
    return done.stderr


def refused_by_a_process(folder: Path, *arguments: str, timeout_s: float = 120) -> str:
    """The same, as a person runs it."""
    done = subprocess.run(
        command("run", "run.yaml", f"output.name={NAME}", *arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment(),
        cwd=folder,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    check_refusal(folder, done.stderr)
    return done.stderr


def check_refusal(folder: Path, message: str) -> None:
    assert message.count("error: ") == 1
    assert "Traceback" not in message
    assert not (folder / "runs" / NAME).exists()


# -- data -----------------------------------------------------------------------------------------------------------


def test_a_missing_data_file_is_named_with_the_file_it_may_have_meant(folder: Path) -> None:
    message = refused_by_a_process(folder, "data.sources.0=data/cpy.jsonl")
    assert f"data source {folder / 'data/cpy.jsonl'} does not exist; did you mean copy.jsonl or" in message


def test_malformed_json_is_shown_with_its_line_and_the_setting_that_tolerates_it(folder: Path) -> None:
    rewrite(folder, line=7, text='{"instruction": "copy", "input": "a b c", "output"')
    message = refused(folder)
    assert "1 of 480 rows are refused (malformed_json 1)" in message
    assert f"{folder / 'data/copy.jsonl'}:7: not JSON: Expecting ':' delimiter" in message
    assert "Mend these rows, or set data.max_refused_ratio to 0.003" in message
    quarantine = folder / "runs" / ".prepared" / "quarantine.parquet"
    assert str(quarantine) in message
    assert quarantine.is_file()


def test_a_row_without_an_answer_is_shown_with_its_line_and_its_columns(folder: Path) -> None:
    rewrite(folder, line=3, text=json.dumps({"instruction": "copy", "input": "a b", "answer": "a b"}))
    message = refused(folder)
    assert f"{folder / 'data/copy.jsonl'}:3: no column 'output'; the row has answer, input, instruction" in message


def test_a_file_whose_columns_have_other_names_is_refused_with_the_way_to_map_them(folder: Path) -> None:
    (folder / "data/copy.jsonl").write_text('{"question": "1+1", "reply": "2"}\n' * 20)
    message = refused(folder)
    assert f"data source {folder / 'data/copy.jsonl'}: its columns (question, reply) are of no known form" in message
    assert "map them with columns: {our name: name in the file}" in message


def test_an_empty_file_is_refused_by_name(folder: Path) -> None:
    (folder / "data/noise.jsonl").write_text("\n")
    assert f"data source {folder / 'data/noise.jsonl'} holds no rows; remove it" in refused(folder)


def test_a_task_card_without_rows_is_an_empty_task(folder: Path) -> None:
    add_settings(folder, "tasks: {ghost: {tier: core}}\n")
    message = refused(folder)
    assert "empty task 'ghost' (named by a task card, but by no source): no row is left to train on" in message
    assert "add rows or drop the task" in message


# -- settings -------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_its_line_and_the_key_it_may_have_meant(folder: Path) -> None:
    add_settings(folder, "evalution: {batch_size: 8}\n")
    message = refused_by_a_process(folder)
    line = (folder / "run.yaml").read_text().splitlines().index("evalution: {batch_size: 8}") + 1
    assert f"evalution (run.yaml:{line}): unknown key 'evalution' at the top level; did you mean evaluation?" in message


def test_what_is_not_yaml_is_refused_at_its_line_and_column(folder: Path) -> None:
    (folder / "run.yaml").write_text("model: {type: tiny\ndata: [a.jsonl]\n")
    message = refused_by_a_process(folder)
    assert "run.yaml:2:" in message
    assert "check indentation, quotes and brackets" in message


def test_a_config_that_does_not_exist_is_named(folder: Path) -> None:
    (folder / "run.yaml").unlink()
    assert f"{folder / 'run.yaml'}: cannot be read (No such file or directory)" in refused(folder)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lerning_rate=1", "unknown key 'lerning_rate' in train; did you mean train.learning_rate?"),
        ("launch.num_worker=3", "unknown key 'num_worker' at the top level; did you mean num_workers"),
        ("train.steps=many", "train.steps (command line): should be a valid integer"),
        ("train.micro_batch_size=3", "global_batch_size 8 is not a multiple of micro_batch_size 3"),
        ("mixture.interval_steps=41", "mixture.interval_steps 41 is more than train.steps 40"),
        ("output.name=a/b", "output.name (command line): String should match pattern '^[A-Za-z0-9]"),
        ("tasks.copy={output_rules: [{type: citation, regex: '[', allowed: [a]}]}", "not a regular expression"),
    ],
)
def test_an_impossible_override_is_quoted(folder: Path, override: str, expected: str) -> None:
    message = refused(folder, override)
    assert expected in message


def test_negative_weights_are_shown_by_task(folder: Path) -> None:
    message = refused(folder, "mixture.prior={weights: {copy: 1, last: -0.5, noise: 1}}")
    assert "mixture.prior (command line): weights must be >= 0, got {'last': -0.5}" in message


def test_weights_that_are_all_zero_are_refused_whether_in_the_prior_or_on_the_cards(folder: Path) -> None:
    assert "all weights are zero" in refused(folder, "mixture.prior={weights: {copy: 0, last: 0, noise: 0}}")
    zero = [f"tasks.{task}.base_weight=0" for task in ("copy", "last", "noise")]
    message = refused(folder, *zero)
    assert "every task's weight is zero (mixture.prior and tasks.*.base_weight)" in message


def test_a_weight_for_no_task_of_the_run_is_refused_with_the_tasks_there_are(folder: Path) -> None:
    message = refused(folder, "mixture.prior={weights: {copy: 1, lost: 1}}")
    assert "mixture.prior.weights names ['lost']" in message
    assert "the tasks are ['copy', 'last', 'noise']" in message


# -- model ----------------------------------------------------------------------------------------------------------


def test_a_model_folder_must_exist_and_hold_safetensors(folder: Path) -> None:
    pretrained = ("model.type=pretrained", "model.path=./lm")
    assert f"model.path: {folder / 'lm'} does not exist" in refused(folder, *pretrained)
    (folder / "lm").mkdir()
    (folder / "lm/pytorch_model.bin").touch()
    assert "has no config.json" in refused(folder, *pretrained)
    (folder / "lm/config.json").write_text("{}")
    assert "has no *.safetensors; save the model with safetensors" in refused(folder, *pretrained)


# -- run directory and resources ------------------------------------------------------------------------------------


def run_directory(folder: Path, **manifest: Any) -> RunDirectory:
    config = load_config(RunConfig, files=[folder / "run.yaml"], overrides=["output.name=earlier"])
    directory = RunDirectory.create(config, LaunchConfig())
    directory.update_manifest(**manifest)
    return directory


def test_the_directory_of_another_run_is_left_alone_and_its_status_and_resumption_are_told(folder: Path) -> None:
    earlier = run_directory(folder, status="stopped")
    before = {path: path.read_bytes() for path in earlier.root.iterdir()}
    message = refused(folder, "output.name=earlier")
    assert f"{earlier.root} already holds another run (status: stopped); choose another output.name" in message
    assert f"taskheat run --resume {earlier.root}" in message
    assert {path: path.read_bytes() for path in earlier.root.iterdir()} == before


def test_only_an_unfinished_run_can_be_resumed(folder: Path) -> None:
    for root, expected in (
        (run_directory(folder, status="finished").root, "this run has finished, so there is nothing to resume"),
        (folder / "data", "is not the directory of a run (no manifest.json and config.yaml in it)"),
    ):
        done = CliRunner().invoke(main, ["run", "--resume", str(root)])
        assert done.exit_code == 2
        assert expected in done.stderr


@pytest.mark.ray
def test_more_workers_than_there_are_free_cpus_are_refused_instead_of_awaited(folder: Path) -> None:
    message = refused_by_a_process(folder, "launch.num_workers=64")
    assert "not enough free resources: 64 workers x 1 CPU + evaluation 0 CPU = 64 CPU" in message
    assert "missing); lower launch.num_workers or launch.cpus_per_worker, or wait for other jobs to end" in message
