import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.config import LaunchConfig, OutputConfig, RunConfig
from cluster.run import resume_run
from cluster.run_directory import RunDirectory
from scheduler.errors import ConfigError, RunDirectoryError
from train.config import DataConfig, LoraConfig, ModelConfig, PretrainedModel, SourceConfig, TinyModel


def config_of(directory: Path, *, name: str = "one", model: ModelConfig | None = None) -> RunConfig:
    return RunConfig(
        model=model or TinyModel(),
        data=DataConfig(sources=(SourceConfig(path=directory / "rows.jsonl"),)),
        output=OutputConfig(dir=directory / "runs", name=name),
        seed=7,
    )


def create(directory: Path, **manifest: object) -> RunDirectory:
    created = RunDirectory.create(config_of(directory), LaunchConfig(num_workers=3))
    created.update_manifest(**manifest)
    return created


def test_a_new_directory_holds_what_it_takes_to_go_on(tmp_path: Path) -> None:
    created = create(tmp_path)
    assert created.root == tmp_path / "runs/one"
    manifest = created.read_manifest()
    assert (manifest["name"], manifest["status"]) == ("one", "starting")
    assert manifest["versions"]["ray"] == importlib.metadata.version("ray")
    reopened, config, launch = RunDirectory.reopen(created.root)
    assert reopened == created
    assert (config, launch) == (config_of(tmp_path), LaunchConfig(num_workers=3))


def test_a_second_driver_is_kept_out_for_as_long_as_the_first_one_trains(tmp_path: Path) -> None:
    created = create(tmp_path)
    launch, held_by = created.launch.read_bytes(), rf"is being trained already, by process {os.getpid()} on"
    with created.held(), pytest.raises(RunDirectoryError, match=held_by):
        resume_run(created.root, launch_overrides=["num_workers=7"])
    assert created.launch.read_bytes() == launch
    with created.held():
        pass


def test_a_driver_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    created = create(tmp_path)
    code = f"""
import os
from pathlib import Path
from cluster.run_directory import RunDirectory
with RunDirectory(Path({str(created.root)!r})).held():
    print("held", flush=True)
    os.kill(os.getpid(), 9)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stdout == "held\n", found.stderr
    with created.held():
        pass


def test_a_directory_opens_again_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created = create(tmp_path)
    monkeypatch.chdir(created.root.parent)
    assert RunDirectory.reopen(Path("one"))[0] == created


def test_where_the_project_is_not_installed_its_version_is_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "taskheat":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert create(tmp_path).read_manifest()["versions"]["taskheat"] == "not installed"


@pytest.mark.parametrize("status", ["starting", "running", "stopped", "failed"])
def test_a_name_already_taken_is_refused_with_the_runs_status_and_how_to_go_on_with_it(
    tmp_path: Path, status: str
) -> None:
    root = create(tmp_path, status=status).root
    expected = (
        f"output.name: {root} already holds another run (status: {status}); choose another output.name, "
        f"or go on with it: taskheat run --resume {root}"
    )
    with pytest.raises(RunDirectoryError, match=f"^{re.escape(expected)}$"):
        create(tmp_path)


def test_a_finished_run_is_neither_overwritten_nor_resumed(tmp_path: Path) -> None:
    root = create(tmp_path, status="finished").root
    with pytest.raises(RunDirectoryError, match=r"\(status: finished\); choose another output.name$"):
        create(tmp_path)
    with pytest.raises(RunDirectoryError, match="this run has finished, so there is nothing to resume"):
        RunDirectory.reopen(root)


def test_a_folder_that_is_no_run_is_neither_taken_over_nor_resumed(tmp_path: Path) -> None:
    root = tmp_path / "runs/one"
    root.mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(
        RunDirectoryError, match=r"exists and is not the directory of a run; choose another output\.name"
    ):
        create(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"is not the directory of a run \(no manifest.json and config.yaml"):
        RunDirectory.reopen(root)
    assert (root / "notes.txt").read_text() == "mine"


def test_an_empty_folder_of_that_name_is_used(tmp_path: Path) -> None:
    (tmp_path / "runs/one").mkdir(parents=True)
    assert create(tmp_path).config.is_file()


def test_a_file_where_the_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/one").touch()
    with pytest.raises(RunDirectoryError, match="runs/one exists and is not the directory of a run"):
        create(tmp_path)


def test_an_output_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(RunDirectoryError, match=r"output.dir: .*runs/one cannot be written \(.+\); make it writable"):
        create(tmp_path)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    created = create(tmp_path)
    created.manifest.write_text('{"status": "run')
    for attempt in (lambda: create(tmp_path), lambda: RunDirectory.reopen(created.root)):
        with pytest.raises(RunDirectoryError, match=r"manifest.json is not JSON \(.+\); mend it"):
            attempt()


def test_a_run_that_never_began_leaves_its_name_free(tmp_path: Path) -> None:
    created = create(tmp_path)
    created.discard()
    assert not created.root.exists()
    create(tmp_path)


def test_a_run_with_a_ledger_is_never_discarded(tmp_path: Path) -> None:
    created = create(tmp_path)
    created.ledger.parent.mkdir(parents=True)
    created.ledger.touch()
    created.discard()
    assert created.ledger.is_file()
    assert RunDirectory.reopen(created.root)[0] == created


def test_a_run_goes_on_elsewhere_by_settings_laid_over_its_last_launch(tmp_path: Path) -> None:
    created = create(tmp_path)
    directory, config, launch = RunDirectory.reopen(created.root, launch_overrides=["max_failures=7"])
    assert launch == LaunchConfig(num_workers=3, max_failures=7)
    directory.keep_launch(launch)
    assert RunDirectory.reopen(created.root) == (directory, config, launch)
    assert not list(created.root.glob("*.partial"))
    with pytest.raises(ConfigError, match="num_worker"):
        RunDirectory.reopen(created.root, launch_overrides=["num_worker=7"])


def test_what_ray_noted_of_the_run_is_forgotten_and_the_checkpoints_stay(tmp_path: Path) -> None:
    created = create(tmp_path)
    created.forget_ray()
    (created.checkpoints / "step-000003").mkdir(parents=True)
    (created.checkpoints / "step-000003/manifest.json").write_text("{}")
    created.ray_folder.mkdir()
    (created.ray_folder / "checkpoint_manager_snapshot.json").write_text("{")
    created.forget_ray()
    assert not created.ray_folder.exists()
    assert (created.checkpoints / "step-000003/manifest.json").is_file()


def test_the_manifest_keeps_what_is_not_replaced(tmp_path: Path) -> None:
    created = create(tmp_path, status="running")
    created.update_manifest(status="stopped", step=12)
    manifest = created.read_manifest()
    assert (manifest["name"], manifest["status"], manifest["step"]) == ("one", "stopped", 12)
    assert not list(created.root.glob("*.partial"))


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        (TinyModel(), "model"),
        (PretrainedModel(path="gpt2", lora=None), "model"),
        (PretrainedModel(path="gpt2", lora=LoraConfig(rank=4)), "adapter"),
    ],
)
def test_the_result_is_an_adapter_exactly_where_adapters_are_trained(
    tmp_path: Path, model: ModelConfig, folder: str
) -> None:
    config = config_of(tmp_path, model=model)
    assert RunDirectory(tmp_path).result(config) == tmp_path / folder
