"""The YAML of `ray up` (https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html)."""

from typing import Any

from cluster.config import LaunchConfig
from cluster.manifests.config import GroupConfig
from cluster.manifests.groups import node_groups
from scheduler.errors import ConfigError

TOKEN_FILE = "~/.ray/auth_token"
_HEAD = "head"
_START = "ulimit -n 65536; RAY_AUTH_MODE=token ray start --disable-usage-stats"


def ray_up(launch: LaunchConfig) -> dict[str, Any]:
    """Head and groups as node types; this machine's token travels to every node, and nothing is open but SSH.

    Raises:
        ConfigError: `launch.cluster.ray_up` is missing, or a provider without node types is asked for several groups.
    """
    cluster, settings = launch.cluster, launch.cluster.ray_up
    if settings is None:
        raise ConfigError(
            "launch.cluster.ray_up: not set; say where the machines come from: "
            "launch.cluster.ray_up={provider: {type: aws, region: us-west-2}, auth: {ssh_user: ubuntu}}"
        )
    groups = node_groups(launch)
    is_local = settings.provider["type"] == "local"
    if is_local and len(groups) > 1:
        raise ConfigError(
            f"launch.cluster.groups: the local provider knows one kind of node, and there are {len(groups)} groups; "
            "name one group, or start the others' nodes by hand with ray start --labels"
        )
    join = f"{_START} --address=$RAY_HEAD_IP:6379"
    if is_local and (labels := next(iter(groups)).ray_labels()):
        join += f' --labels="{",".join(f"{key}={value}" for key, value in labels.items())}"'
    described = {
        "cluster_name": cluster.name,
        "provider": dict(settings.provider),
        "auth": dict(settings.auth),
        "idle_timeout_minutes": max(1, round(cluster.idle_timeout_s / 60)),
        "file_mounts": {TOKEN_FILE: TOKEN_FILE},
        "setup_commands": [*settings.setup_commands, f"chmod 600 {TOKEN_FILE}"],
        "head_start_ray_commands": [
            "ray stop",
            f"{_START} --head --port=6379 --num-cpus=0 --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": ["ray stop", join],
    }
    if cluster.image is not None:
        described["docker"] = _docker(launch, cluster.image, groups)
    if not is_local:
        described |= _node_types(launch, groups)
    return described


def _docker(launch: LaunchConfig, image: str, groups: tuple[GroupConfig, ...]) -> dict[str, Any]:
    shm_gb = min(group.shm_gb for group in groups)
    mount = [] if launch.storage is None else [f"-v {launch.storage}:{launch.storage}"]
    options = [f"--shm-size={shm_gb}g", "--ulimit nofile=65536:65536", *mount]
    return {"image": image, "container_name": "taskheat", "pull_before_run": True, "run_options": options}


def _node_types(launch: LaunchConfig, groups: tuple[GroupConfig, ...]) -> dict[str, Any]:
    head = {"resources": {"CPU": 0}, "node_config": launch.cluster.head.node_config, "min_workers": 0, "max_workers": 0}
    workers = {
        group.name: {
            "resources": {"CPU": group.cpus, **({"GPU": group.gpus} if group.gpus else {})},
            "labels": group.ray_labels(),
            "node_config": dict(group.node_config),
            "min_workers": group.min_nodes if launch.cluster.autoscaling else group.max_nodes,
            "max_workers": group.max_nodes,
        }
        for group in groups
    }
    return {
        "max_workers": sum(group.max_nodes for group in groups),
        "head_node_type": _HEAD,
        "available_node_types": {_HEAD: head, **workers},
    }
