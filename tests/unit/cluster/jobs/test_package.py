import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.addresses import why_cluster_is_silent
from cluster.config import LaunchConfig, RunConfig
from cluster.jobs.package import JobPackage, make_package
from cluster.jobs.start import lay_inputs
from cluster.manifests.config import ClusterConfig, GroupConfig
from cluster.settings import load_config
from scheduler.errors import ConfigError, RunDirectoryError

CONFIG = """
model: {type: tiny}
data:
  tasks_file: tasks.yaml
  sources: [corpus/a.jsonl, ../beside, {path: SHARED/b.jsonl}, {path: "s3://bucket/c.jsonl"}]
output: {dir: SHARED/runs, name: demo}
"""


def write_project(folder: Path) -> tuple[Path, Path]:
    """A config whose data lies beside it, outside its folder, on the storage and at a URL; config file and storage."""
    shared, home = folder / "shared", folder / "home"
    for file in (
        home / "corpus/a.jsonl",
        folder / "beside/deep/d.jsonl",
        folder / "beside/.hidden",
        shared / "b.jsonl",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"instruction": "i", "output": "o"}\n')
    (home / "tasks.yaml").write_text("tasks: {}\n")
    (home / "run.yaml").write_text(CONFIG.replace("SHARED", str(shared)))
    return home / "run.yaml", shared


GROUPS = ClusterConfig(groups=(GroupConfig(name="workers", cpus=8, min_nodes=0, max_nodes=4),))


def package_of(file: Path, storage: Path | None, *overrides: str) -> JobPackage:
    config = load_config(RunConfig, files=[file], overrides=overrides)
    return make_package(config, LaunchConfig(storage=storage, cluster=GROUPS))


def test_files_off_the_storage_travel_and_the_job_reads_them_from_the_storage(tmp_path: Path) -> None:
    file, shared = write_project(tmp_path)
    package = package_of(file, shared)
    assert [item.path.name for item in package.travelling] == ["a.jsonl", "beside", "tasks.yaml"]
    folder = tmp_path / "job"
    folder.mkdir()
    package.write(folder)
    lay_inputs(folder / "inputs", package.inputs_to)
    job = load_config(RunConfig, files=[folder / "run.yaml"])
    local, beside, on_storage, at_url = (source.path for source in job.data.sources)
    assert Path(local).read_text() == (file.parent / "corpus/a.jsonl").read_text()
    assert (Path(beside) / "deep/d.jsonl").is_file()
    assert not (Path(beside) / ".hidden").exists()
    assert (on_storage, at_url) == (shared / "b.jsonl", "s3://bucket/c.jsonl")
    assert job.data.tasks_file is not None
    assert job.data.tasks_file.is_file()
    assert all(path.is_relative_to(shared) for path in (local, beside, job.data.tasks_file, package.run_directory))


def test_the_job_waits_for_the_nodes_of_a_cluster_that_grows(tmp_path: Path) -> None:
    file, shared = write_project(tmp_path)
    folder = tmp_path / "job"
    folder.mkdir()
    package_of(file, shared).write(folder)
    launch = load_config(LaunchConfig, files=[folder / "launch.yaml"])
    assert launch.grows
    assert launch.address is not None
    assert why_cluster_is_silent(launch.address) is None


def test_a_file_of_verdicts_is_read_where_people_append_to_it_or_refused(tmp_path: Path) -> None:
    file, shared = write_project(tmp_path)
    beside, on_storage = file.parent / "verdicts.jsonl", shared / "verdicts.jsonl"
    beside.touch()
    package = package_of(file, shared, f"evaluation.human_verdicts={on_storage}")
    assert package.config.evaluation.human_verdicts == on_storage
    with pytest.raises(ConfigError) as caught:
        package_of(file, shared, f"evaluation.human_verdicts={beside}")
    assert str(caught.value) == (
        f"evaluation.human_verdicts: {beside} is not below launch.storage {shared}, so the job would read a copy and "
        f"never what is appended later; put the file on the storage, such as evaluation.human_verdicts={on_storage}"
    )


def test_a_task_is_named_after_the_same_file_and_folder_as_where_it_was_submitted(tmp_path: Path) -> None:
    file, shared = write_project(tmp_path)
    path = Path(package_of(file, shared).config.data.sources[0].path)
    assert (path.parent.name, path.name) == ("corpus", "a.jsonl")


def test_equal_inputs_lie_in_one_place_and_other_bytes_in_another(tmp_path: Path) -> None:
    file, shared = write_project(tmp_path)
    first = package_of(file, shared).inputs_to
    assert package_of(file, shared, "train.steps=7").inputs_to == first
    (file.parent / "corpus/a.jsonl").write_text("other\n")
    assert package_of(file, shared).inputs_to != first


def test_the_code_that_travels_is_all_that_the_command_line_needs(tmp_path: Path) -> None:
    file, shared = write_project(tmp_path)
    folder = tmp_path / "job"
    folder.mkdir()
    package_of(file, shared).write(folder)
    assert {item.name for item in folder.iterdir()} == {
        "scheduler", "train", "evalsvc", "cluster", "run.yaml", "launch.yaml", "inputs",
    }  # fmt: skip
    command = [sys.executable, "-m", "cluster.jobs.start", "--", "run", "--help"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage: taskheat run" in done.stdout


@pytest.mark.parametrize(
    ("storage", "overrides", "message"),
    [
        (None, [], "launch.storage: not set; name the folder that every node"),
        ("shared", ["output.dir=/elsewhere"], "output.dir: /elsewhere is not below launch.storage"),
        ("shared", ["data.tasks_file=/gone.yaml"], r"data.tasks_file: /gone.yaml is neither here, .* nor below"),
        ("shared", ["evaluation.human_verdicts=/none.jsonl"], "verdicts: /none.jsonl is not below launch.storage"),
    ],
)
def test_what_the_job_could_not_find_is_refused_before_it_is_submitted(
    tmp_path: Path, storage: str | None, overrides: list[str], message: str
) -> None:
    file, _ = write_project(tmp_path)
    with pytest.raises(ConfigError, match=message):
        package_of(file, tmp_path / storage if storage else None, *overrides)


def test_files_over_the_limit_are_named_with_their_sizes_the_largest_first(tmp_path: Path) -> None:
    file, shared = write_project(tmp_path)
    with (file.parent / "corpus/a.jsonl").open("wb") as stream:
        stream.truncate(201_000_000)
    with pytest.raises(ConfigError, match=re.escape(f"data.sources.0.path {file.parent}/corpus/a.jsonl (201.0 MB), ")):
        package_of(file, shared)


def test_inputs_are_laid_whole_once_and_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    source, target = tmp_path / "inputs", tmp_path / "runs/.inputs/1"
    source.mkdir()
    (source / "a").write_text("first")
    lay_inputs(source, target)
    (source / "a").write_text("second")
    lay_inputs(source, target)
    assert (target / "a").read_text() == "first"
    assert [item.name for item in target.parent.iterdir()] == ["1"]
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=re.escape(f"{tmp_path}/file/.inputs cannot be written on the cluster")):
        lay_inputs(source, tmp_path / "file/.inputs/1")
