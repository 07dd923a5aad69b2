"""A real Ray cluster of one node on this machine, with token authentication: for demonstrations and tests.

Its ports, folders and token are its own; it is stopped by its process id. `ray stop` would end every Ray there is.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """How to reach it: its job server, its metrics, the file with its token, and its folder of sessions and logs."""

    address: str
    metrics: str
    token_file: Path
    sessions: Path

    def environment(self) -> dict[str, str]:
        """This process's environment with the cluster's token."""
        return {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}


@contextmanager
def local_cluster(
    folder: Path, *, num_cpus: int = 2, environment: Mapping[str, str] | None = None
) -> Iterator[LocalCluster]:
    """Start a head with token authentication; `environment` is added to that of its processes."""
    sessions = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray's sockets lie below it
    token_file = folder / "auth_token"
    token_file.touch(mode=0o600)
    token_file.write_text(secrets.token_hex(32), encoding="utf-8")
    gcs, dashboard, client, agent, metrics = _free_ports(5)
    cluster = LocalCluster(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics", token_file, sessions)
    ray = str(Path(sys.executable).with_name("ray"))
    command = [sys.executable, ray] if not os.access(ray, os.X_OK) else [ray]
    options = {
        "port": gcs,
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "metrics-export-port": metrics,
        "num-cpus": num_cpus,
        "object-store-memory": 200 << 20,
        "temp-dir": sessions,
        "node-ip-address": "127.0.0.1",
    }
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(
            [*command, "start", "--head", "--block", "--disable-usage-stats"]
            + [f"--{name}={value}" for name, value in options.items()],
            env={
                **cluster.environment(),
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                **(environment or {}),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(cluster, head, folder / "head.log")
        yield cluster
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(sessions, ignore_errors=True)


def _wait_until_up(cluster: LocalCluster, head: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(f"{cluster.address}/api/jobs/")
    request.add_header("Authorization", f"Bearer {cluster.token_file.read_text(encoding='utf-8')}")
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if head.poll() is not None:
            raise RuntimeError(f"ray start ended with {head.returncode}:\n{log.read_text(encoding='utf-8')}")
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"the job server did not answer within {_START_TIMEOUT_S:g} s; see {log}")


def _free_ports(count: int) -> list[int]:
    """Free ports outside the range in which Ray's workers take theirs (10002 to 19999)."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if not 10_000 < port < 20_000 and port not in found:
            found.append(port)
    return found
