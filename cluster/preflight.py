"""What is checked before anything is started: the right modules, a loadable model, enough free resources."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.config import ElasticWorkers, LaunchConfig, RunConfig
from cluster.origins import shadowed_packages
from scheduler.errors import ConfigError, ResourceError
from train.config import ModelConfig, PretrainedModel
from train.data.files import find_files

_ROUNDING = 1e-6
"""Ray counts resources in ten-thousandths; sums of floats stray by less than this."""


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


def check_packages() -> None:
    """Refuse to run when another distribution shadows one of our packages."""
    if faults := shadowed_packages():
        raise ConfigError("; ".join(faults))


def check_files(config: RunConfig) -> None:
    """Refuse a model or a source that is not there, before the seconds that importing torch and Ray take.

    Raises:
        ConfigError: The model's folder cannot be loaded, or the output would lie in a job's own copy of the project.
        DataError: A source does not exist or is of an unknown extension.
    """
    check_output(config.output.dir)
    check_model(config.model)
    for source in config.data.sources:
        find_files(source.path)


def check_output(folder: Path) -> None:
    """Refuse to write into the copy of the project that Ray unpacks for a job: no other node sees it, and it goes."""
    if {"runtime_resources", "working_dir_files"} <= set(folder.parts):
        raise ConfigError(
            f"output.dir: {folder} lies in this job's copy of the working directory, which Ray deletes after the "
            "job and no other node sees; give a folder that every node reads and writes: output.dir=/mnt/shared/runs"
        )


def check_model(config: ModelConfig) -> None:
    """Refuse a local model folder that cannot be loaded, before any process is started for it."""
    if not isinstance(config, PretrainedModel):
        return
    folder = Path(config.path)
    if not folder.is_absolute():
        return
    if not folder.is_dir():
        raise ConfigError(f"model.path: {folder} does not exist; give a Hugging Face model folder or a hub id")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model.path: {folder} has no config.json; it is not a Hugging Face model folder")
    if not list(folder.glob("*.safetensors")):
        raise ConfigError(
            f"model.path: {folder} has no *.safetensors; save the model with safetensors (pickles are refused)"
        )


def place(launch: LaunchConfig, cluster: Mapping[str, float]) -> Placement:
    """Resolve what the launch leaves open against the cluster's resources: a worker per GPU, or up to two on CPUs."""
    num_gpus = int(cluster.get("GPU", 0))
    worker = {"CPU": launch.cpus_per_worker}
    evaluation = {"CPU": launch.evaluation_cpus}
    if num_gpus > 0 and launch.gpus_per_worker != 0:
        worker["GPU"] = 0.75 if launch.gpus_per_worker is None else launch.gpus_per_worker
        evaluation["GPU"] = 0.25 if launch.evaluation_gpus is None else launch.evaluation_gpus
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
        settings = ["num_workers", f"{kind.lower()}s_per_worker"] + [f"evaluation_{kind.lower()}s"] * (evaluation > 0)
        raise ResourceError(
            f"not enough free resources: {placement.num_workers} workers x {worker:g} {kind} + evaluation "
            f"{evaluation:g} {kind} = {needed:g} {kind}, but {free:g} of the cluster's {cluster.get(kind, 0):g} are "
            f"free ({needed - free:g} missing); lower {' or '.join(f'launch.{name}' for name in settings)}, "
            "or wait for other jobs to end"
        )


def threads_of(resources: Mapping[str, float]) -> int:
    """Compute threads of a process with these resources: its CPUs, at least one."""
    return max(1, math.floor(resources.get("CPU", 0)))


def local_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
