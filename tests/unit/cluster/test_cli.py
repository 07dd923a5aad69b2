import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cluster.cli import main
from cluster.config import RunConfig
from cluster.settings import load_config


def write_config(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "run.yaml"
    file.write_text("model: {type: tiny}\ndata: [rows.jsonl]\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(("folder", "expected"), [("symbols", "symbols-"), ("my run (2)", "my-run-2-"), ("…", "run-")])
def test_a_run_without_a_name_is_named_by_its_folder_in_characters_that_can_be_resumed(
    tmp_path: Path, folder: str, expected: str
) -> None:
    done = CliRunner().invoke(main, ["run", str(write_config(tmp_path / folder)), "--dry-run"])
    assert done.exit_code == 0, done.output
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(done.stdout.partition("# LaunchConfig")[0], encoding="utf-8")
    name = load_config(RunConfig, files=[resolved]).output.name
    assert name is not None
    assert name.startswith(expected)


def test_a_dry_run_prints_what_files_and_overrides_resolve_to_and_makes_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path / "a")
    before = set(tmp_path.rglob("*"))
    more = ("train.steps=7", "launch.num_workers=3", "output.name=x", "--dry-run")
    done = CliRunner().invoke(main, ["run", str(config), *more])
    run, launch = (yaml.safe_load(part) for part in done.stdout.split("# LaunchConfig"))
    assert (run["train"]["steps"], run["output"]["name"], launch["num_workers"]) == (7, "x", 3)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "a=b"],
        ["run", "--resume", "x", "run.yaml"],
        ["run", "--resume", "x", "train.steps=3"],
        ["run", "--resume", "x", "--dry-run"],
        ["run", "--resume", "x", "--launch", "launch.yaml"],
        ["run", "--resume", "x", "--fork", "y@3"],
    ],
)
def test_a_command_without_what_it_needs_is_a_usage_error(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "Usage: " in done.stderr


def test_a_resumed_run_may_be_told_where_to_run_and_nothing_else(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["run", "--resume", str(tmp_path / "none"), "launch.num_workers=3"])
    assert (done.exit_code, "is not the directory of a run" in done.stderr) == (2, True)


def test_a_wrong_config_is_refused_before_torch_and_ray_are_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom cluster.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(sys.modules.keys() & {'torch', 'ray', 'transformers'})"
    )
    arguments = ["run", str(write_config(tmp_path / "a"))]  # its rows do not exist
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 2, done.stderr
    assert "rows.jsonl does not exist" in done.stderr
    assert done.stdout == "set()\n"
