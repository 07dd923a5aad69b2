"""A connection to a cluster's job server, with errors that say what to do."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from cluster.addresses import why_silent
from cluster.jobs.token import read_token, token_file
from scheduler.errors import ConfigError, ResourceError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_CONNECT_TIMEOUT_S = 10.0
_POLL_S = 1.0
_MAX_LOST_CONNECTIONS = 30


def job_server(stated: str | None) -> str:
    """The job server's URL: the stated address, else `RAY_API_SERVER_ADDRESS`, else this machine.

    Raises:
        ConfigError: It is an address of another kind.
    """
    address = (stated or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS).rstrip("/")
    address = address if "://" in address else f"http://{address}"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"launch.job.address: {address!r} is not a job server; give the dashboard's URL, such as http://HEAD:8265 "
            "(not ray://, nor the port 6379 of the cluster itself)"
        )
    return address


class JobServer:
    """The job server at an address.

    Raises:
        ResourceError: Nothing answers there, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        _require_listener(address)
        token = read_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with self._explained():
            self._client = JobSubmissionClient(address, headers=headers)

    def submit(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        runtime_env: dict[str, Any],
        num_cpus: float,
        labels: dict[str, str],
    ) -> None:
        """Upload the package and start the job. Raises ResourceError as the constructor, or when Ray refuses it."""
        with self._explained():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env=runtime_env,
                entrypoint_num_cpus=num_cpus or None,
                entrypoint_label_selector=labels or None,
                metadata={"submitted_by": "taskheat"},
            )

    def details(self, submission_id: str) -> JobDetails:
        """Status and exit code of a job."""
        with self._explained():
            return self._client.get_job_info(submission_id)

    def follow(self, submission_id: str, write: Callable[[str], object]) -> JobDetails:
        """Write the job's log as it comes, until the job has ended; a lost connection is taken up again."""
        written, lost = 0, 0
        while True:
            try:
                written = asyncio.run(self._tail(submission_id, written, write))
                details = self.details(submission_id)
                lost = 0
            except (ClientError, RuntimeError, ResourceError):
                lost += 1
                if lost > _MAX_LOST_CONNECTIONS:
                    raise
            else:
                if details.status.is_terminal():
                    return details
            time.sleep(_POLL_S)

    async def _tail(self, submission_id: str, written: int, write: Callable[[str], object]) -> int:
        """Write what follows the first `written` characters of the log; returns the number of characters so far."""
        position = 0
        async for chunk in self._client.tail_job_logs(submission_id):
            end = position + len(chunk)
            if end > written:
                write(chunk[max(0, written - position) :])
                written = end
            position = end
        return written

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise ResourceError(_refused_token(self.address)) from error
        except (ConnectionError, requests.RequestException) as error:
            raise ResourceError(_no_server(self.address, str(error))) from error
        except (RuntimeError, ValueError) as error:
            raise ResourceError(f"the cluster at {self.address} refused the job: {error}") from error


def _require_listener(address: str) -> None:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    why = why_silent(parts.hostname or "", port, timeout_s=_CONNECT_TIMEOUT_S)
    if why is not None:
        raise ResourceError(_no_server(address, why))


def _no_server(address: str, why: str) -> str:
    return (
        f"launch.job.address: no Ray job server answers at {address} ({why}); give the dashboard's URL with --address "
        "or RAY_API_SERVER_ADDRESS. The dashboard listens on the head's own 127.0.0.1:8265 unless it was started with "
        "--dashboard-host; from elsewhere: ssh -L 8265:127.0.0.1:8265 HEAD, or "
        "kubectl port-forward service/NAME-head-svc 8265"
    )


def _refused_token(address: str) -> str:
    on_the_head = "the head prints its token with: ray get-auth-token"
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return f"the cluster at {address} asks for a token, and RAY_AUTH_MODE is disabled here; unset it"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return f"the cluster at {address} refused the token in RAY_AUTH_TOKEN; set it to the cluster's ({on_the_head})"
    file = token_file()
    if file.exists():
        remedy = f"put the cluster's there ({on_the_head}), or name its file in RAY_AUTH_TOKEN_PATH"
        return f"the cluster at {address} refused the token in {file}; {remedy}"
    remedy = f"put the cluster's into {file}, mode 0600 ({on_the_head}), or name its file in RAY_AUTH_TOKEN_PATH"
    return f"the cluster at {address} asks for a token, and there is none here; {remedy}"
