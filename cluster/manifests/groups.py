"""The groups of nodes that a launch gets, checked against what it asks for."""

import math

from cluster.config import ElasticWorkers, LaunchConfig
from cluster.manifests.config import GroupConfig
from cluster.placement import check_nodes, check_resources, described_nodes, total_of, worker_groups
from scheduler.errors import ConfigError, ResourceError


def node_groups(launch: LaunchConfig) -> tuple[GroupConfig, ...]:
    """The stated groups; without any, one with a node for each worker.

    Raises:
        ConfigError: The groups at their largest cannot hold the launch.
    """
    groups = launch.cluster.groups or _groups_for(launch)
    _check_capacity(launch, groups)
    return groups


def _groups_for(launch: LaunchConfig) -> tuple[GroupConfig, ...]:
    """A group for the workers, or for those of each stage where they differ; one for an evaluation set apart."""
    launches, apart = launch.by_stages(), bool(launch.evaluation_labels)
    groups = [
        _workers_of(f"stage-{stages[0]}" if len(launches) > 1 else "workers", own, with_evaluation=not apart)
        for stages, own in launches.items()
    ]
    if apart:
        cpus, gpus = math.ceil(launch.evaluation_cpus), math.ceil(launch.evaluation_gpus or 0)
        labels = dict(launch.evaluation_labels)
        groups.append(GroupConfig(name="evaluation", cpus=max(1, cpus), gpus=gpus, max_nodes=1, labels=labels))
    return tuple(groups)


def _workers_of(name: str, launch: LaunchConfig, *, with_evaluation: bool) -> GroupConfig:
    """Nodes for the workers of a launch, one each."""
    wanted = launch.num_workers or 2
    fewest, most = (wanted.min, wanted.max) if isinstance(wanted, ElasticWorkers) else (wanted, wanted)
    gpus, cpus = launch.gpus_per_worker or 0.0, launch.cpus_per_worker
    if with_evaluation:
        gpus, cpus = gpus + (launch.evaluation_gpus or 0.0), cpus + launch.evaluation_cpus
    return GroupConfig(
        name=name,
        cpus=max(1, math.ceil(cpus)),
        gpus=math.ceil(gpus),
        accelerator_type=launch.accelerator_type,
        labels=dict(launch.worker_labels),
        min_nodes=fewest,
        max_nodes=most,
    )


def _check_capacity(launch: LaunchConfig, groups: tuple[GroupConfig, ...]) -> None:
    nodes = described_nodes(groups)
    total = total_of(nodes)
    try:
        for group in worker_groups(launch, nodes).values():
            check_resources(group.placement, available=total, cluster=total)
        check_nodes(launch, nodes)
    except ResourceError as error:
        raise ConfigError(f"launch.cluster.groups, all at max_nodes: {error}") from error
