import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from ray.job_submission import JobDetails, JobStatus, JobType

from cluster.config import LaunchConfig
from cluster.jobs.client import JobServer, job_server
from cluster.jobs.config import JobConfig
from cluster.jobs.submit import entrypoint_of, environment_values, exit_code, submit_resume
from cluster.jobs.token import read_token
from cluster.settings import dump_config
from scheduler.errors import ConfigError, ResourceError


def ended(status: JobStatus, code: int | None) -> JobDetails:
    return JobDetails(type=JobType.SUBMISSION, entrypoint="x", status=status, driver_exit_code=code)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, None, 1),
        (JobStatus.FAILED, -9, 1),
        (JobStatus.STOPPED, None, 1),
        (JobStatus.STOPPED, 0, 1),
    ],
)
def test_the_command_ends_as_the_job_did(status: JobStatus, code: int | None, expected: int) -> None:
    assert exit_code(ended(status, code)) == expected


def test_the_entry_point_survives_a_shell_whatever_the_names() -> None:
    entry = entrypoint_of(JobConfig(python="/opt/my env/python"), ("run", "a.b=c d"), inputs_to=Path("/s/it's"))
    assert entry == """'/opt/my env/python' -m cluster.jobs.start --inputs-to '/s/it'"'"'s' -- run 'a.b=c d'"""


def test_a_run_is_gone_on_with_on_the_cluster_the_job_is_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    submitted: list[dict[str, Any]] = []
    server = SimpleNamespace(address="http://head:8265", submit=lambda **asked: submitted.append(asked))
    monkeypatch.setattr("cluster.jobs.submit.JobServer", lambda _: server)
    assert submit_resume(tmp_path, LaunchConfig(), ["num_workers=4"], address=None, wait=False) == 0
    [asked] = submitted
    assert asked["entrypoint"].endswith(f" run --resume {tmp_path} launch.address=auto launch.num_workers=4")


def test_variables_go_by_name_and_one_that_is_not_set_is_named() -> None:
    assert environment_values(("A",), {"A": "1", "B": "2"}) == {"A": "1"}
    with pytest.raises(ConfigError, match=r"launch\.job\.env: B, C is not set here"):
        environment_values(("A", "B", "C"), {"A": "1"})
    assert "env:\n  - HF_TOKEN" in dump_config(LaunchConfig(job=JobConfig(env=("HF_TOKEN",))))


@pytest.mark.parametrize("text", ["HF_TOKEN=abc", "a-b", ""])
def test_a_value_cannot_be_written_where_a_name_belongs(text: str) -> None:
    with pytest.raises(ValidationError, match="String should match pattern"):
        JobConfig(env=(text,))


@pytest.mark.parametrize("key", ["env_vars", "working_dir"])
def test_what_is_set_elsewhere_has_no_second_place(key: str) -> None:
    with pytest.raises(ValidationError, match=f"'{key}' is not set here"):
        JobConfig(runtime_env={key: {}})


def test_the_address_is_the_stated_one_then_the_environments_then_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert job_server(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://head/")
    assert job_server(None) == "https://head"
    assert job_server("head:8265") == "http://head:8265"
    with pytest.raises(ConfigError, match=r"'ray://head:10001' is not a job server; give the dashboard's URL"):
        job_server("ray://head:10001")


def test_an_address_where_nobody_listens_is_told_with_the_remedy() -> None:
    with pytest.raises(
        ResourceError, match=r"no Ray job server answers at http://127.0.0.1:9 \(Connection refused\); give"
    ):
        JobServer("http://127.0.0.1:9")


def test_the_token_is_found_where_ray_looks_for_it(tmp_path: Path) -> None:
    home, named = tmp_path / ".ray/auth_token", tmp_path / "named"
    environment = {"HOME": str(tmp_path)}
    assert read_token(environment) is None
    home.parent.mkdir()
    home.write_text("at home\n")
    named.write_text("named")
    assert read_token(environment) == "at home"
    environment["RAY_AUTH_TOKEN_PATH"] = str(named)
    assert read_token(environment) == "named"
    environment["RAY_AUTH_TOKEN"] = "stated"
    assert read_token(environment) == "stated"
    assert read_token(environment | {"RAY_AUTH_MODE": "disabled"}) is None
    with pytest.raises(ConfigError, match=re.escape(f"the token file {tmp_path}/gone cannot be read")):
        read_token({"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(tmp_path / "gone")})
