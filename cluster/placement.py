"""Which process of a run gets what, and on which nodes: resolved and checked before anything is started.

    workers      a group of equal ones; with `launch.stages` one group a stage, on nodes with the stage's labels
    evaluation   one process, on nodes with labels of its own if it is given any
    engine       needs next to nothing; where it runs is the driver's business

Where a described cluster grows by itself (`launch.cluster.groups`), what its groups can hold counts, not what is there.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.config import ElasticWorkers, LaunchConfig
from cluster.manifests.config import GroupConfig
from scheduler.errors import ResourceError

_ROUNDING = 1e-6
"""Ray counts resources in ten-thousandths; sums of floats stray by less than this."""
STAGES = (1, 2)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster: all of its resources, and its labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether it has all of these labels."""
        return labels.items() <= self.labels.items()

    def holds(self, process: Mapping[str, float]) -> int:
        """How many processes of this size it has room for; one that needs nothing counts once."""
        ratios = [self.resources.get(kind, 0.0) / amount for kind, amount in process.items() if amount > 0]
        return math.floor(min(ratios, default=1.0) + _ROUNDING)


@dataclass(frozen=True, slots=True)
class Placement:
    """Resources of each process, resolved against what there is; `num_workers` is the fewest the run begins with."""

    num_workers: int
    worker: dict[str, float]
    evaluation: dict[str, float]

    @property
    def use_gpu(self) -> bool:
        """Workers train on GPUs."""
        return self.worker.get("GPU", 0) > 0

    def total(self) -> dict[str, float]:
        """All that must be free at once."""
        kinds = self.worker.keys() | self.evaluation.keys()
        return {kind: self.num_workers * self.worker.get(kind, 0) + self.evaluation.get(kind, 0) for kind in kinds}


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """The workers of some stages: the launch with those stages' settings as its own, and what it came to."""

    stages: tuple[int, ...]
    launch: LaunchConfig
    placement: Placement

    def in_words(self) -> str:
        """`2 workers on pool=throughput`."""
        on = _in_words(self.launch.worker_selector.items())
        number = self.placement.num_workers
        return f"{number} worker{'' if number == 1 else 's'}{f' on {on}' if on else ''}"

    def demand(self, number: int) -> str:
        """What so many of them need: `2 x (1 CPU, 0.75 GPU) with the labels pool=large`."""
        return f"{number} x ({_size(self.placement.worker)}){_with_labels(self.launch.worker_selector)}"


def worker_groups(launch: LaunchConfig, nodes: Sequence[Node]) -> dict[int, WorkerGroup]:
    """The group of each stage; one for both where nothing differs."""
    groups = [WorkerGroup(stages, own, placement_on(own, nodes)) for stages, own in launch.by_stages().items()]
    return {stage: group for group in groups for stage in group.stages}


def placement_on(launch: LaunchConfig, nodes: Sequence[Node]) -> Placement:
    """`place` on the nodes whose labels the launch of a stage asks for."""
    evaluation = total_of(node for node in nodes if node.has(launch.evaluation_labels))
    return place(launch, total_of(node for node in nodes if node.has(launch.worker_selector)), evaluation)


def total_of(nodes: Iterable[Node]) -> dict[str, float]:
    """Their resources together."""
    total: dict[str, float] = {}
    for node in nodes:
        for kind, amount in node.resources.items():
            total[kind] = total.get(kind, 0.0) + amount
    return total


def place(
    launch: LaunchConfig, cluster: Mapping[str, float], evaluation_on: Mapping[str, float] | None = None
) -> Placement:
    """Resolve what the launch leaves open against the cluster's resources: a worker per GPU, or up to two on CPUs.

    `evaluation_on` are the resources where the evaluation runs, if not the workers'.
    """
    num_gpus = int(cluster.get("GPU", 0))
    worker = {"CPU": launch.cpus_per_worker, **launch.resources_per_worker}
    evaluation = {"CPU": launch.evaluation_cpus, **launch.evaluation_resources}
    if num_gpus > 0 and launch.gpus_per_worker != 0:
        worker["GPU"] = 0.75 if launch.gpus_per_worker is None else launch.gpus_per_worker
        evaluation_has_one = (cluster if evaluation_on is None else evaluation_on).get("GPU", 0) > 0
        default = 0.25 if evaluation_has_one else 0.0
        evaluation["GPU"] = default if launch.evaluation_gpus is None else launch.evaluation_gpus
        as_many = int(num_gpus / max(1.0, worker["GPU"]))
    else:
        if launch.gpus_per_worker or launch.evaluation_gpus:
            worker["GPU"] = launch.gpus_per_worker or 0.0
            evaluation["GPU"] = launch.evaluation_gpus or 0.0
        as_many = min(2, int((cluster.get("CPU", 0) - launch.evaluation_cpus) / launch.cpus_per_worker))
    wanted = launch.num_workers.min if isinstance(launch.num_workers, ElasticWorkers) else launch.num_workers
    return Placement(num_workers=wanted or max(1, as_many), worker=worker, evaluation=evaluation)


def check_resources(placement: Placement, *, available: Mapping[str, float], cluster: Mapping[str, float]) -> None:
    """Refuse to start what the cluster cannot hold now, rather than wait for it for ever.

    Raises:
        ResourceError: Says what is missing, who needs it, and what to change.
    """
    for kind, needed in sorted(placement.total().items()):
        free = available.get(kind, 0.0)
        if needed <= free + _ROUNDING:
            continue
        worker, evaluation = placement.worker.get(kind, 0.0), placement.evaluation.get(kind, 0.0)
        settings = ["num_workers", _setting(kind, "worker")] + [_setting(kind, "evaluation")] * (evaluation > 0)
        raise ResourceError(
            f"not enough free resources: {placement.num_workers} workers x {worker:g} {kind} + evaluation "
            f"{evaluation:g} {kind} = {needed:g} {kind}, but {free:g} of the cluster's {cluster.get(kind, 0):g} are "
            f"free ({needed - free:g} missing); lower {' or '.join(f'launch.{name}' for name in settings)}, "
            "or wait for other jobs to end"
        )


def check_nodes(launch: LaunchConfig, nodes: Sequence[Node]) -> None:
    """Refuse a stage's workers, an evaluation or an engine that no nodes with the wanted labels could ever hold.

    Raises:
        ResourceError: Says which of them, what its nodes hold, and what to change.
    """
    groups = worker_groups(launch, nodes)
    for stage in STAGES[: 1 if groups[1] is groups[2] else 2]:
        who = "the workers" if groups[1] is groups[2] else f"the workers of stage {stage}"
        selector, placement = groups[stage].launch.worker_selector, groups[stage].placement
        _require_room(who, placement.num_workers, placement.worker, selector, nodes)
    _require_room("the evaluation", 1, groups[1].placement.evaluation, launch.evaluation_labels, nodes)
    if launch.engine_labels:
        _require_room("the heat engine", 1, {}, launch.engine_labels, nodes)


def _require_room(
    who: str, number: int, process: Mapping[str, float], labels: Mapping[str, str], nodes: Sequence[Node]
) -> None:
    chosen = [node for node in nodes if node.has(labels)]
    on = _with_labels(labels)
    if labels and not chosen:
        there = {(name, value) for node in nodes for name, value in node.labels.items() if "/" not in name}
        raise ResourceError(
            f"{who}: there is no node{on}; the nodes have {_in_words(there) or 'no labels'}. Start nodes with these "
            "labels (ray start --labels), or change the labels in the launch"
        )
    room = sum(node.holds(process) for node in chosen)
    if room < number:
        raise ResourceError(
            f"{who}: {number} x ({_size(process)}) do not fit on the {len(chosen)} node(s){on}, which hold "
            f"{room} of them, each whole on one node; lower the number or the size, or add nodes"
        )


def _size(process: Mapping[str, float]) -> str:
    """`1 CPU, 0.75 GPU`."""
    return ", ".join(f"{amount:g} {kind}" for kind, amount in sorted(process.items()) if amount > 0)


def _with_labels(labels: Mapping[str, str]) -> str:
    """` with the labels pool=large`; nothing without any."""
    return f" with the labels {_in_words(labels.items())}" if labels else ""


def _in_words(labels: Iterable[tuple[str, str]]) -> str:
    """`pool=large, zone=b`."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels))


def described_nodes(groups: Iterable[GroupConfig]) -> list[Node]:
    """The nodes of groups that are all as large as they may be."""
    return [
        Node(
            {"CPU": float(group.cpus), "GPU": float(group.gpus), "memory": 1e9 * (group.memory_gb - group.shm_gb)},
            group.ray_labels(),
        )
        for group in groups
        for _ in range(group.max_nodes)
    ]


def _setting(kind: str, who: str) -> str:
    """The setting of the launch that gives `who` this kind of resource."""
    if kind in ("CPU", "GPU"):
        return f"{kind.lower()}s_per_worker" if who == "worker" else f"evaluation_{kind.lower()}s"
    return f"resources_per_worker.{kind}" if who == "worker" else f"evaluation_resources.{kind}"


def threads_of(resources: Mapping[str, float]) -> int:
    """Compute threads of a process with these resources: its CPUs, at least one."""
    return max(1, math.floor(resources.get("CPU", 0)))


def environment_of(resources: Mapping[str, float]) -> dict[str, str]:
    """Environment variables of a process with these resources: its threads, and no sight of GPUs if it has none.

    Ray restricts what a process sees to the GPUs it reserves, but leaves one that reserves none with all of its node's.
    """
    unseen = {} if resources.get("GPU", 0) > 0 else {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    return {"OMP_NUM_THREADS": str(threads_of(resources)), **unseen}


def local_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
