"""A cluster's description as text, ready for the command that takes it."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from cluster.config import LaunchConfig, RunConfig
from cluster.manifests.kubernetes import ray_cluster, ray_job
from cluster.manifests.ray_up import ray_up
from cluster.metrics.dashboard import dashboard
from cluster.settings.dialect import Dumper


def described(kind: str, launch: LaunchConfig, config: RunConfig | None) -> str:
    """The description of a kind; `config` is the run that a `rayjob` starts.

    Raises:
        ConfigError: The launch does not say enough, or contradicts itself.
    """
    match kind:
        case "rayjob":
            assert config is not None, "the command line asks for it"
            return _as_yaml(ray_job(config, launch), hint="kubectl apply -f FILE; kubectl logs -f -l job-name=NAME")
        case "raycluster":
            return _as_yaml(ray_cluster(launch), hint="kubectl apply -f FILE")
        case "ray-up":
            return _as_yaml([ray_up(launch)], hint="ray up FILE; ray dashboard FILE opens a way to the job server")
        case "grafana":
            return json.dumps(dashboard(), indent=2) + "\n"
        case _:
            raise AssertionError(kind)


def _as_yaml(documents: Sequence[dict[str, Any]], *, hint: str) -> str:
    style = {"sort_keys": False, "allow_unicode": True, "width": 120, "default_flow_style": False}
    return f"# {hint}\n{yaml.dump_all(documents, Dumper=Dumper, **style)}"
