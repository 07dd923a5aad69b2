"""Settings of a job that is submitted to a Ray cluster."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from cluster.manifests.config import LabelKey, LabelValue
from scheduler.config_model import ConfigModel

_OURS = {
    "env_vars": "name the variables in launch.job.env, which keeps their values out of every file",
    "working_dir": "the job's package is its working directory; name files in the run's configuration",
}

EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class JobConfig(ConfigModel):
    """How `taskheat submit` hands a run to a Ray cluster.

    Attributes:
        address: The cluster's dashboard, `http://HEAD:8265`; null: `RAY_API_SERVER_ADDRESS` of the environment, else
            port 8265 of this machine.
        env: Names of environment variables that the job gets with the values they have where it is submitted. The
            values are written into no file of ours. Ray keeps them with the job, and in `runtime_env_agent.log` of the
            nodes; a secret that must not be there belongs into the cluster's own environment.
        python: The interpreter on the cluster, in the path of the head's environment or absolute.
        max_upload_mb: Most that the files travelling with the job may be together, in megabytes; Ray's own limit is 512
            MiB of the packed whole.
        stop_wait_s: How long `ray job stop` waits for the run's last checkpoint before it kills the job, in seconds.
        driver_cpus: CPUs reserved for the driver; with 0 it runs on the head.
        driver_labels: Labels of the node on which the driver runs, such as `{pool: stable}`; with none, and no
            `driver_cpus`, it runs on the head.
        runtime_env: What else Ray prepares for the job's processes, in Ray's words: `pip`, `uv`, `image_uri`, …
    """

    address: str | None = None
    env: tuple[EnvironmentName, ...] = ()
    python: str = "python"
    max_upload_mb: float = Field(default=200.0, gt=0, le=500)
    stop_wait_s: int = Field(default=120, ge=1)
    driver_cpus: float = Field(default=0.0, ge=0)
    driver_labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    runtime_env: dict[str, Any] = Field(default_factory=dict)

    @field_validator("runtime_env")
    @classmethod
    def _has_no_second_place(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, remedy in _OURS.items():
            if key in value:
                raise ValueError(f"{key!r} is not set here: {remedy}")
        return value
