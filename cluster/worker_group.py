"""The training group as Ray Train is told of it: how many workers, how they meet, what a failure costs.

Nothing is kept with Ray Train: checkpoints, and which of them a group goes on from, are the workers' own business
(`train.checkpoint_store`). Its folder holds its bookkeeping alone.
"""

import math
from functools import partial
from pathlib import Path

import ray.train
from ray.train import ControllerError, FailureConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError  # Ray shows it nowhere else

from cluster.config import ElasticWorkers, LaunchConfig
from cluster.placement import WorkerGroup, environment_of
from cluster.process_group import GroupConfig
from scheduler.errors import RunFailedError
from train.loop import train_worker
from train.worker_job import WorkerJob

_LONGEST_WAIT_S = 604_800.0
_NO_LIMIT = -1
"""Elastic groups shrink by starts that time out, and Ray counts those for ever."""


def make_trainer(job: WorkerJob, group: WorkerGroup, *, ray_folder: Path) -> TorchTrainer:
    """The trainer of a group, ready to `fit`."""
    launch, placement = group.launch, group.placement
    wanted = launch.num_workers
    elastic = wanted if isinstance(wanted, ElasticWorkers) else None
    return TorchTrainer(
        partial(train_worker, job),  # as `train_loop_config` the controller would unpickle the job, see `process_group`
        torch_config=GroupConfig(
            backend="cpu:gloo,cuda:nccl" if placement.use_gpu else "gloo",
            sigterm_grace_s=launch.sigterm_grace_s,
            timeout_s=_collective_timeout_s(job),
        ),
        scaling_config=ScalingConfig(
            num_workers=placement.num_workers if elastic is None else (elastic.min, elastic.max),
            use_gpu=placement.use_gpu,
            resources_per_worker=placement.worker,
            label_selector=launch.worker_selector or None,
            elastic_resize_monitor_interval_s=60.0 if elastic is None else elastic.resize_every_s,
        ),
        run_config=ray.train.RunConfig(
            name=ray_folder.name,
            storage_path=str(ray_folder.parent),
            failure_config=FailureConfig(
                max_failures=launch.max_failures,
                controller_failure_limit=launch.max_failures if elastic is None else _NO_LIMIT,
            ),
            worker_runtime_env={"env_vars": environment_of(placement.worker)},
        ),
    )


def _collective_timeout_s(job: WorkerJob) -> int:
    """How long a rank waits for another: rank 0 may wait for a plan, the last evaluations and storage meanwhile."""
    waits = 3 * job.setup.mixture.plan_timeout_s + 2 * job.train.storage_patience_s
    return TorchConfig().timeout_s + math.ceil(min(waits, _LONGEST_WAIT_S))


def explained(error: BaseException, group: WorkerGroup, *, run: Path) -> BaseException:
    """The failure of a group, in words where Ray's do not say who found no room and what to do.

    Ray counts such starts apart from failures in training, and would by default go on trying for ever.
    """
    if not isinstance(error, ControllerError):
        return error
    if not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
        return error
    of_stage = f" of stage {group.stages[-1]}" if len(group.stages) == 1 else ""
    own = "launch.num_workers, launch.cpus_per_worker, launch.gpus_per_worker, launch.worker_labels"
    return RunFailedError(
        f"the workers{of_stage} could not be placed: {group.demand(error.controller_failure.num_workers)} found no "
        f"room for {start_timeout_s(group.launch):g} s (launch.worker_start_timeout_s), more often than "
        f"launch.max_failures ({group.launch.max_failures}) allows; bring the nodes back, or go on with other settings "
        f"({'launch.stages' if of_stage else own}): taskheat run --resume {run} launch.NAME=VALUE"
    )


def start_timeout_s(launch: LaunchConfig) -> float:
    """How long Ray Train waits for a group.

    Elastic ones shrink after it, so it must be short, yet exceed a start; nodes that have yet to come take minutes.
    """
    if launch.worker_start_timeout_s is not None:
        return launch.worker_start_timeout_s
    if launch.grows:
        return 900.0
    return 30.0 if isinstance(launch.num_workers, ElasticWorkers) else 120.0
