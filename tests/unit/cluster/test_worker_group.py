"""What Ray Train is told of a group, and what is said when its workers find no room."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError

from cluster.config import ElasticWorkers, LaunchConfig, StageLaunch
from cluster.placement import Node, WorkerGroup, worker_groups
from cluster.worker_group import explained, make_trainer
from scheduler.errors import RunFailedError

JOB: Any = SimpleNamespace(
    setup=SimpleNamespace(mixture=SimpleNamespace(plan_timeout_s=120.0)),
    train=SimpleNamespace(storage_patience_s=120.0),
)
NODES = [Node({"CPU": 8.0, "GPU": 2.0}, {"pool": "large"})]


def group_of(launch: LaunchConfig, stage: int = 1) -> WorkerGroup:
    return worker_groups(launch, NODES)[stage]


@pytest.mark.parametrize(
    ("num_workers", "limit"), [(2, 5), (ElasticWorkers(min=1, max=2), -1)], ids=["fixed", "elastic"]
)
def test_starts_that_find_no_room_count_as_failures_unless_the_group_shrinks_by_them(
    num_workers: Any, limit: int, tmp_path: Path
) -> None:
    group = group_of(LaunchConfig(num_workers=num_workers, max_failures=5))
    config: Any = make_trainer(JOB, group, ray_folder=tmp_path / "ray").run_config.failure_config
    assert (config.max_failures, config.controller_failure_limit) == (5, limit)


def test_a_rank_waits_for_the_first_one_as_long_as_that_may_wait_for_a_plan_and_for_storage(tmp_path: Path) -> None:
    job: Any = SimpleNamespace(
        setup=SimpleNamespace(mixture=SimpleNamespace(plan_timeout_s=3600.0)),
        train=SimpleNamespace(storage_patience_s=math.inf),
    )
    config: Any = make_trainer(job, group_of(LaunchConfig(num_workers=2)), ray_folder=tmp_path / "ray").backend_config
    assert config.timeout_s == 1800 + 604_800
    job.train.storage_patience_s = 60.0
    config = make_trainer(job, group_of(LaunchConfig(num_workers=2)), ray_folder=tmp_path / "ray").backend_config
    assert config.timeout_s == 1800 + 3 * 3600 + 2 * 60


def test_workers_without_a_gpu_see_none_and_others_see_what_ray_gives_them(tmp_path: Path) -> None:
    def environment(launch: LaunchConfig) -> dict[str, str]:
        trainer = make_trainer(JOB, group_of(launch), ray_folder=tmp_path / "ray")
        return trainer.run_config.worker_runtime_env["env_vars"]  # pyright: ignore[reportOptionalSubscript]

    without = environment(LaunchConfig(gpus_per_worker=0, cpus_per_worker=2))
    assert without == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    assert environment(LaunchConfig()) == {"OMP_NUM_THREADS": "1"}


def test_workers_that_find_no_room_are_named_with_number_size_labels_and_remedy(tmp_path: Path) -> None:
    launch = LaunchConfig(num_workers=2, max_failures=1, worker_labels={"pool": "large"}, worker_start_timeout_s=40)
    error = explained(ControllerError(WorkerGroupStartupTimeoutError(2)), group_of(launch), run=tmp_path)
    assert isinstance(error, RunFailedError)
    assert str(error).startswith(
        "the workers could not be placed: 2 x (1 CPU, 0.75 GPU) with the labels pool=large found no room for 40 s "
        "(launch.worker_start_timeout_s), more often than launch.max_failures (1) allows; "
    )
    assert f"launch.gpus_per_worker, launch.worker_labels): taskheat run --resume {tmp_path} launch." in str(error)
    assert "\n" not in str(error)


def test_the_workers_of_one_stage_are_told_from_those_of_the_other(tmp_path: Path) -> None:
    launch = LaunchConfig(stages=(StageLaunch(num_workers=2), StageLaunch(num_workers=1)))
    error = explained(ControllerError(WorkerGroupStartupTimeoutError(1)), group_of(launch, stage=2), run=tmp_path)
    assert str(error).startswith("the workers of stage 2 could not be placed: 1 x (1 CPU, 0.75 GPU) found no room for")
    assert "(launch.stages)" in str(error)


@pytest.mark.parametrize(
    "error",
    [ControllerError(WorkerGroupStartupFailedError("a node died")), WorkerGroupError("worker", {0: ValueError("x")})],
    ids=["start", "training"],
)
def test_other_failures_of_a_group_stay_as_they_are(error: Exception, tmp_path: Path) -> None:
    assert explained(error, group_of(LaunchConfig()), run=tmp_path) is error
