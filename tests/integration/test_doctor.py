"""The doctor through the real command line, on a machine that has been made ill; no Ray is started."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cluster.origins import HOME

_COMMAND = [sys.executable, "-m", "cluster", "doctor"]


def doctor(
    *arguments: str, cwd: Path, environment: Mapping[str, str], within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [*within, *_COMMAND, *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(HOME), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def levels(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], str]:
    return {(entry["check"], entry["level"]): entry["found"] for entry in json.loads(done.stdout)}


def old_ray(folder: Path) -> str:
    """A PYTHONPATH on which the first distribution called ray is an old one."""
    metadata = folder / "site" / "ray-2.40.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.40.0\n")
    return f"{metadata.parent}{os.pathsep}{HOME}"


def readable_token(home: Path) -> dict[str, str]:
    """A HOME whose token everybody can read."""
    file = home / ".ray" / "auth_token"
    file.parent.mkdir(parents=True)
    file.write_text("t")
    file.chmod(0o644)
    return {"HOME": str(home)}


def test_a_wrong_version_a_missing_token_and_a_storage_that_takes_no_file_fail_in_one_round(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {"PYTHONPATH": old_ray(tmp_path), "RAY_AUTH_TOKEN_PATH": str(tmp_path / "no-token")}
    storage = str(tmp_path / "file" / "runs")
    done = doctor("--json", "--storage", storage, cwd=tmp_path, environment=environment)
    found = levels(done)
    assert done.returncode == 2, done.stderr
    assert found["versions", "fail"].startswith("ray 2.40.0, needed <2.61,>=2.60")
    assert found["token", "fail"].startswith(f"no token: {tmp_path}/no-token")
    assert found["storage", "fail"].startswith(f"{storage} cannot be written (")


def test_a_token_that_everybody_can_read_and_a_cluster_that_does_not_answer_fail_with_what_mends_them(
    tmp_path: Path,
) -> None:
    done = doctor("--address", "127.0.0.1:9", cwd=tmp_path, environment=readable_token(tmp_path / "home"))
    token, cluster = done.stdout.splitlines()[:2]
    assert done.returncode == 2, done.stderr
    assert token.startswith(f"fail  token       {tmp_path}/home/.ray/auth_token has mode 0644")
    assert token.endswith(f"chmod 600 {tmp_path}/home/.ray/auth_token")
    assert cluster.startswith("fail  cluster     nothing answers at 127.0.0.1:9 (")


def test_a_package_of_the_same_name_in_the_folder_one_stands_in_is_found(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "__init__.py").touch()
    done = doctor(cwd=tmp_path, environment={})
    assert done.returncode == 2
    assert f"the package 'scheduler' is imported from {tmp_path}/scheduler/__init__.py" in done.stderr


def namespace(script: str) -> list[str]:
    """Run what follows with mounts of its own, made by `script`."""
    return ["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


def can_mount() -> bool:
    try:
        done = subprocess.run([*namespace("mount -t tmpfs tmpfs /dev/shm"), "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs mounts of its own: root on Linux")
def test_a_container_with_little_memory_little_shared_memory_and_a_read_only_storage_is_found(tmp_path: Path) -> None:
    group, storage = tmp_path / "group", tmp_path / "storage"
    for folder in (group, storage):
        folder.mkdir()
    for name, text in {"max": "3000000000", "current": "1500000000", "stat": "inactive_file 0"}.items():
        (group / f"memory.{name}").write_text(f"{text}\n")
    script = (
        f"mount -t tmpfs -o size=64m tmpfs /dev/shm\n"
        f"mount -t tmpfs -o ro tmpfs {shlex.quote(str(storage))}\n"
        f"mount --bind {shlex.quote(str(group))} /sys/fs/cgroup"
    )
    done = doctor("--json", "--storage", str(storage), cwd=tmp_path, environment={}, within=namespace(script))
    found = levels(done)
    assert done.returncode == 2, done.stderr
    assert found["memory", "fail"] == "1.5 GB free, 4 GB wanted"
    assert found["shm", "fail"].startswith("/dev/shm has 0.07 GB, 1 GB wanted")
    assert found["storage", "fail"] == f"{storage} cannot be written (Read-only file system)"
