"""`taskheat submit`: a run as a job of a Ray cluster, followed to its end."""

import os
import re
import shlex
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.job_submission import JobDetails, JobStatus

from cluster.config import LaunchConfig, RunConfig
from cluster.jobs.client import JobServer, job_server
from cluster.jobs.config import JobConfig
from cluster.jobs.package import OWN_CLUSTER, make_package, write_code
from cluster.preflight import check_packages
from scheduler.errors import ConfigError


def submit_run(config: RunConfig, launch: LaunchConfig, *, address: str | None, wait: bool) -> int:
    """Submit a run; returns the exit code of the job, or 0 at once without `wait`.

    Raises:
        ConfigError: The run cannot travel, or an environment variable is not set.
        ResourceError: The cluster does not answer or refuses the job.
    """
    check_packages()
    package = make_package(config, launch)
    environment = environment_values(launch.job.env, os.environ)
    command = ("run", "run.yaml", "--launch", "launch.yaml")
    with tempfile.TemporaryDirectory(prefix="taskheat-job-") as folder:
        server = JobServer(job_server(address or launch.job.address))
        package.write(Path(folder))
        size_mb = sum(item.num_bytes for item in package.travelling) / 1e6
        print(f"package  our code and {len(package.travelling)} of the run's paths ({size_mb:.1f} MB)")
        print(f"run      {package.run_directory} on the cluster")
        entrypoint = entrypoint_of(launch.job, command, inputs_to=package.inputs_to if package.travelling else None)
        return _start(server, launch.job, Path(folder), entrypoint, environment, package.run_directory.name, wait=wait)


def submit_resume(
    root: Path, launch: LaunchConfig, overrides: Sequence[str], *, address: str | None, wait: bool
) -> int:
    """Go on with a run that lies on the cluster's storage, on this cluster whichever it was begun on.

    Returns and raises as `submit_run`.
    """
    check_packages()
    environment = environment_values(launch.job.env, os.environ)
    settings = (f"address={OWN_CLUSTER}", *overrides)
    command = ("run", "--resume", str(root), *(f"launch.{setting}" for setting in settings))
    with tempfile.TemporaryDirectory(prefix="taskheat-job-") as folder:
        server = JobServer(job_server(address or launch.job.address))
        write_code(Path(folder))
        entrypoint = entrypoint_of(launch.job, command, inputs_to=None)
        return _start(server, launch.job, Path(folder), entrypoint, environment, root.name, wait=wait)


def environment_values(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables' values.

    Raises:
        ConfigError: One is not set.
    """
    if missing := [name for name in names if name not in environment]:
        raise ConfigError(
            f"launch.job.env: {', '.join(missing)} is not set here, so the job cannot have it; export it, or remove "
            "the name"
        )
    return {name: environment[name] for name in names}


def entrypoint_of(job: JobConfig, command: Sequence[str], *, inputs_to: Path | None) -> str:
    """The shell command that the cluster runs in the unpacked package."""
    inputs = () if inputs_to is None else ("--inputs-to", str(inputs_to))
    return shlex.join((job.python, "-m", "cluster.jobs.start", *inputs, "--", *command))


def exit_code(details: JobDetails) -> int:
    """0 when the job succeeded; else what its process returned, or 1 where it returned nothing."""
    if details.status == JobStatus.SUCCEEDED:
        return 0
    code = details.driver_exit_code
    return code if code is not None and code > 0 else 1


def _start(
    server: JobServer,
    job: JobConfig,
    folder: Path,
    entrypoint: str,
    environment: Mapping[str, str],
    name: str,
    *,
    wait: bool,
) -> int:
    submission_id = f"taskheat-{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{uuid.uuid4().hex[:6]}"
    env_vars = {"RAY_JOB_STOP_WAIT_TIME_S": str(job.stop_wait_s), **environment}
    runtime_env: dict[str, Any] = {**job.runtime_env, "working_dir": str(folder), "env_vars": env_vars}
    server.submit(
        entrypoint=entrypoint,
        submission_id=submission_id,
        runtime_env=runtime_env,
        num_cpus=job.driver_cpus,
        labels=job.driver_labels,
    )
    print(f"job      {submission_id} at {server.address}")
    how = _how_to_go_on(submission_id, server.address)
    if not wait:
        print(how)
        return 0
    try:
        details = server.follow(submission_id, _write_now)
    except KeyboardInterrupt:
        print(f"\nthe job goes on without you\n{how}", file=sys.stderr)
        return 130
    message = f": {details.message}" if details.message and details.status != JobStatus.SUCCEEDED else ""
    print(f"job {submission_id} {details.status.value.lower()}{message}")
    return exit_code(details)


def _how_to_go_on(submission_id: str, address: str) -> str:
    """The token is sent by Ray's own commands only where RAY_AUTH_MODE says so."""
    ray = "RAY_AUTH_MODE=token ray job"
    at = f"--address {shlex.quote(address)}"
    return (
        f"to follow it   {ray} logs --follow {at} {submission_id}\n"
        f"to stop it     {ray} stop {at} {submission_id}   (with a checkpoint, at the next boundary)"
    )


def _write_now(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
