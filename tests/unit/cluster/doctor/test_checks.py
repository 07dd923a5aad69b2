import json
import os
import re
import socket
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement

from cluster.cli import main
from cluster.doctor.access import check_address, check_token
from cluster.doctor.finding import Finding, as_json, as_text, fail, has_failed, ok, warn
from cluster.doctor.machine import (
    Limits,
    check_memory,
    check_open_files,
    check_shm,
    check_storage,
    examine_machine,
)
from cluster.doctor.memory import free_memory_gb
from cluster.doctor.nodes import Heard, NodeReport, judge_node
from cluster.doctor.versions import check_versions, pinned_versions, project_requirements
from cluster.origins import HOME

# -- versions -------------------------------------------------------------------------------------------------------


def install(site: Path, name: str, version: str) -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def versions(site: Path, *needed: str, **tested: str) -> list[Finding]:
    return check_versions([Requirement(line) for line in needed], tested=tested, search_path=[str(site)])


def test_a_wrong_version_and_a_missing_distribution_are_found_with_the_command_that_mends_them(tmp_path: Path) -> None:
    install(tmp_path, "ray", "2.40.0")
    found = versions(tmp_path, "ray[default]<2.61,>=2.60", "torch>=2.8")
    assert [finding.level for finding in found] == ["fail", "fail"]
    assert found[0].found == "ray 2.40.0, needed <2.61,>=2.60"
    assert found[0].remedy == "pip install 'ray<2.61,>=2.60'"
    assert found[1].found == "torch is not installed"


def test_an_extra_is_judged_only_where_it_is_installed(tmp_path: Path) -> None:
    needed = "wandb>=0.20; extra == 'wandb'"
    assert versions(tmp_path, needed)[0].level == "ok"
    install(tmp_path, "wandb", "0.1")
    assert versions(tmp_path, needed)[0].level == "fail"


def test_a_version_in_range_that_was_not_tested_is_a_warning_and_a_local_build_of_it_is_none(tmp_path: Path) -> None:
    install(tmp_path, "torch", "2.13.0+cpu")
    assert versions(tmp_path, "torch>=2.8", torch="2.13.0")[0].level == "ok"
    found = versions(tmp_path, "torch>=2.8", torch="2.14.0")
    assert (found[0].level, found[0].found) == ("warn", "torch 2.13.0+cpu (tested with 2.14.0)")


def test_the_first_of_two_on_the_path_counts_as_importing_takes_it(tmp_path: Path) -> None:
    install(tmp_path / "a", "ray", "2.60.0")
    install(tmp_path / "b", "ray", "1.0")
    path = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert check_versions([Requirement("ray>=2")], tested={}, search_path=path)[0].level == "ok"
    assert check_versions([Requirement("ray>=2")], tested={}, search_path=path[::-1])[0].level == "fail"


def test_an_old_python_is_found(tmp_path: Path) -> None:
    found = check_versions([], tested={}, search_path=[str(tmp_path)], python=">=4")
    assert found[0].level == "fail"
    assert found[0].remedy == "use a Python >=4"


def test_what_the_project_needs_is_read_from_the_project(tmp_path: Path) -> None:
    needed = project_requirements(HOME)
    assert needed is not None
    assert {"ray", "torch", "gguf"} <= {requirement.name for requirement in needed}
    assert pinned_versions(HOME)["ray"] == "2.60.0"
    assert pinned_versions(tmp_path) == {}


# -- storage, memory, limits ----------------------------------------------------------------------------------------


def test_a_storage_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    """A folder below a file cannot be made by anybody, root included."""
    (tmp_path / "file").touch()
    found = check_storage(tmp_path / "file" / "runs", least_free_gb=0)
    assert found.level == "fail"
    assert "cannot be written (" in found.found
    assert "launch.storage" in found.remedy


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="needs a file system nobody can write to")
def test_a_storage_that_is_there_and_takes_no_file_is_found() -> None:
    assert check_storage(Path("/proc/sys"), least_free_gb=0).level == "fail"


def test_a_read_only_folder_is_found(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes anywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert check_storage(tmp_path, least_free_gb=0).level == "fail"


def test_a_good_storage_is_left_as_it_was_and_a_full_one_is_a_warning(tmp_path: Path) -> None:
    assert check_storage(tmp_path, least_free_gb=0).level == "ok"
    assert check_storage(tmp_path, least_free_gb=1e9).level == "warn"
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_found() -> None:
    free = free_memory_gb()
    if free is None:
        pytest.skip("no /proc/meminfo")
    assert check_memory(free, least_gb=free / 2).level == "ok"
    found = check_memory(free, least_gb=free * 2)
    assert (found.level, found.found) == ("fail", f"{free:.1f} GB free, {free * 2:g} GB wanted")


def test_too_little_shared_memory_is_found(tmp_path: Path) -> None:
    assert check_shm(tmp_path, least_gb=0.000001).level == "ok"
    found = check_shm(tmp_path, least_gb=1e9)
    assert found.level == "fail"
    assert "--shm-size" in found.remedy
    assert check_shm(tmp_path / "none", least_gb=1).level == "ok"


def test_too_few_open_files_are_a_warning() -> None:
    assert check_open_files(1024, least=4096).level == "warn"
    assert check_open_files(4096, least=4096).level == "ok"
    assert check_open_files(-1, least=4096).found == "no limit"


def test_this_machine_gets_every_check(tmp_path: Path) -> None:
    checks = {finding.check for finding in examine_machine(Limits(), storage=tmp_path)}
    assert checks == {"versions", "imports", "gpus", "memory", "shm", "open files", "storage"}


# -- token ----------------------------------------------------------------------------------------------------------


def token(folder: Path, mode: int, text: str = "t") -> dict[str, str]:
    file = folder / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(mode)
    return {"HOME": str(folder)}


def test_a_missing_token_fails_on_a_cluster_and_is_made_by_ray_elsewhere(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    found = check_token(environment, on_cluster=True)
    assert (found.level, found.found) == ("fail", f"no token: {tmp_path}/.ray/auth_token (No such file or directory)")
    assert check_token(environment, on_cluster=False).level == "ok"
    named = environment | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "named")}
    assert check_token(named, on_cluster=False).level == "fail"


@pytest.mark.parametrize(("mode", "level"), [(0o644, "fail"), (0o640, "fail"), (0o600, "ok"), (0o400, "ok")])
def test_a_token_file_that_others_can_read_is_found(tmp_path: Path, mode: int, level: str) -> None:
    environment = token(tmp_path, mode)
    found = check_token(environment, on_cluster=True)
    assert found.level == level
    assert f"{mode:04o}" in found.found
    assert check_token(environment, on_cluster=False).level == ("warn" if level == "fail" else "ok")


def test_an_empty_token_and_a_cluster_without_tokens_are_found(tmp_path: Path) -> None:
    environment = token(tmp_path, 0o600, text="")
    assert check_token(environment, on_cluster=True).level == "fail"
    assert check_token(environment | {"RAY_AUTH_MODE": "disabled"}, on_cluster=True).level == "warn"
    assert check_token(environment | {"RAY_AUTH_TOKEN": "t"}, on_cluster=True).level == "ok"


def test_an_address_at_which_nothing_listens_is_found_at_once_and_one_that_names_no_port_is_left_to_ray() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        found = check_address(address)
        assert found is not None
        assert (found.check, found.level) == ("cluster", "fail")
        assert found.found.startswith(f"nothing answers at {address} (")
        server.listen()
        assert check_address(address) is None
        assert check_address(f"ray://{address}") is None
    assert check_address("auto") is None


# -- nodes, text ----------------------------------------------------------------------------------------------------


def test_a_node_with_another_storage_or_another_clock_is_found(tmp_path: Path) -> None:
    report = NodeReport((ok("memory", "much"),), sees_mark=False, clock_s=103.0)
    found = judge_node(Heard("n1", report, asked_s=100.0), Limits(clock_skew_s=1.0), storage=tmp_path)
    assert [(finding.check, finding.level, finding.node) for finding in found] == [
        ("memory", "ok", "n1"),
        ("clock", "warn", "n1"),
        ("storage", "fail", "n1"),
    ]
    assert found[1].found == "+3.0 s against the driver's node"
    well = NodeReport((), sees_mark=True, clock_s=100.01)
    assert not has_failed(judge_node(Heard("n1", well, asked_s=100.0), Limits(), storage=tmp_path))


def test_the_text_is_a_line_a_check_and_says_once_what_nodes_share() -> None:
    findings = [
        ok("token", "there"),
        Finding("memory", "ok", "8 GB free", node="a"),
        Finding("memory", "ok", "8 GB free", node="b"),
        Finding("shm", "fail", "small", "more", node="b"),
    ]
    assert as_text(findings).splitlines() == [
        "ok    token   there",
        "ok    memory  2 nodes: 8 GB free",
        "fail  shm     b: small; more",
    ]
    assert [entry["node"] for entry in json.loads(as_json(findings))] == ["", "a", "b", "b"]
    assert has_failed([fail("a", "b", remedy="c")])
    assert not has_failed([warn("a", "b", remedy="c")])


def test_the_command_says_everything_as_json_and_ends_with_2_when_something_must_be_mended(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(main, ["doctor", "--json", "--storage", str(tmp_path / "file" / "runs")])
    found = {entry["check"]: entry["level"] for entry in json.loads(done.stdout)}
    assert done.exit_code == 2
    assert found["storage"] == "fail"
    assert re.match("ok|warn|fail", found["token"])
