"""The groups of nodes that a launch gets, checked against what it asks for."""

import math

from cluster.config import ElasticWorkers, LaunchConfig
from cluster.manifests.config import GroupConfig
from cluster.preflight import check_resources, place
from scheduler.errors import ConfigError, ResourceError


def node_groups(launch: LaunchConfig) -> tuple[GroupConfig, ...]:
    """The stated groups; without any, one with a node for each worker.

    Raises:
        ConfigError: The groups at their largest cannot hold the launch.
    """
    groups = launch.cluster.groups or (_group_for(launch),)
    _check_capacity(launch, groups)
    return groups


def _group_for(launch: LaunchConfig) -> GroupConfig:
    wanted = launch.num_workers or 2
    fewest, most = (wanted.min, wanted.max) if isinstance(wanted, ElasticWorkers) else (wanted, wanted)
    gpus = math.ceil((launch.gpus_per_worker or 0) + (launch.evaluation_gpus or 0))
    cpus = max(1, math.ceil(launch.cpus_per_worker + launch.evaluation_cpus))
    return GroupConfig(name="workers", cpus=cpus, gpus=gpus, min_nodes=fewest, max_nodes=most)


def _check_capacity(launch: LaunchConfig, groups: tuple[GroupConfig, ...]) -> None:
    total = {"CPU": float(sum(group.max_nodes * group.cpus for group in groups))}
    if gpus := sum(group.max_nodes * group.gpus for group in groups):
        total["GPU"] = float(gpus)
    try:
        check_resources(place(launch, total), available=total, cluster=total)
    except ResourceError as error:
        raise ConfigError(f"launch.cluster.groups, all at max_nodes: {error}") from error
