"""Which process gets what and where: sizes, labels, stages, and what is refused before anything is started."""

import re
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.config import LaunchConfig, RunConfig, StageConfig, StageLaunch
from cluster.manifests.config import ACCELERATOR_LABEL, ClusterConfig, GroupConfig
from cluster.placement import (
    Node,
    check_nodes,
    check_resources,
    described_nodes,
    place,
    threads_of,
    worker_groups,
)
from cluster.preflight import check_stages
from cluster.worker_group import start_timeout_s
from scheduler.errors import ConfigError, ResourceError
from train.config import DataConfig, SourceConfig, TinyModel

TWO_POOLS = (
    Node({"CPU": 8.0}, {"pool": "throughput"}),
    Node({"CPU": 8.0}, {"pool": "throughput"}),
    Node({"CPU": 32.0, "big": 1.0}, {"pool": "large"}),
)
BY_STAGE = LaunchConfig(
    num_workers=4,
    stages=(
        StageLaunch(worker_labels={"pool": "throughput"}),
        StageLaunch(
            num_workers=1,
            parallelism="fsdp2",
            cpus_per_worker=16,
            worker_labels={"pool": "large"},
            resources_per_worker={"big": 1},
        ),
    ),
)


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [(1, 1), (2, 2), (64, 2)],
)
def test_without_gpus_up_to_two_workers_train_on_cpus(cpus: int, expected: int) -> None:
    placement = place(LaunchConfig(), {"CPU": cpus})
    assert placement.num_workers == expected
    assert (placement.worker, placement.evaluation) == ({"CPU": 1.0}, {"CPU": 0.0})
    assert not placement.use_gpu


def test_workers_that_need_more_cpus_are_fewer() -> None:
    assert place(LaunchConfig(cpus_per_worker=3), {"CPU": 5}).num_workers == 1
    assert place(LaunchConfig(cpus_per_worker=3, evaluation_cpus=1), {"CPU": 7}).num_workers == 2


def test_every_gpu_gets_a_worker_and_the_evaluation_shares_one_of_them() -> None:
    placement = place(LaunchConfig(), {"CPU": 8, "GPU": 4})
    assert placement.use_gpu
    assert (placement.num_workers, placement.worker["GPU"], placement.evaluation["GPU"]) == (4, 0.75, 0.25)
    assert placement.total() == {"CPU": 4.0, "GPU": 3.25}


def test_workers_of_several_gpus_each_are_as_many_as_the_gpus_allow() -> None:
    assert place(LaunchConfig(gpus_per_worker=2), {"CPU": 8, "GPU": 5}).num_workers == 2


def test_gpus_are_left_alone_on_request() -> None:
    placement = place(LaunchConfig(gpus_per_worker=0), {"CPU": 8, "GPU": 4})
    assert not placement.use_gpu
    assert placement.total().keys() == {"CPU"}
    evaluation_only = place(LaunchConfig(gpus_per_worker=0, evaluation_gpus=1), {"CPU": 8, "GPU": 4})
    assert (evaluation_only.use_gpu, evaluation_only.evaluation["GPU"]) == (False, 1.0)


def check(launch: LaunchConfig, cluster: Mapping[str, float], available: Mapping[str, float] | None = None) -> None:
    check_resources(place(launch, cluster), available=cluster if available is None else available, cluster=cluster)


def test_more_workers_than_free_cpus_are_refused_with_the_sum_and_the_remedy() -> None:
    expected = (
        "not enough free resources: 5 workers x 1 CPU + evaluation 0.5 CPU = 5.5 CPU, but 3 of the cluster's 4 are "
        "free (2.5 missing); lower launch.num_workers or launch.cpus_per_worker or launch.evaluation_cpus, "
        "or wait for other jobs to end"
    )
    with pytest.raises(ResourceError, match=re.escape(expected)):
        check(LaunchConfig(num_workers=5, evaluation_cpus=0.5), {"CPU": 4.0}, {"CPU": 3.0})


def test_a_gpu_that_is_asked_for_and_not_there_is_missing() -> None:
    with pytest.raises(ResourceError, match=r"2 workers x 1 GPU .* but 0 of the cluster's 0 are free \(2 missing\)"):
        check(LaunchConfig(gpus_per_worker=1), {"CPU": 4.0})


def test_a_whole_gpu_for_the_only_worker_leaves_none_for_the_evaluation_and_the_message_says_which_to_lower() -> None:
    with pytest.raises(ResourceError, match=r"\(0.25 missing\); lower .* or launch.gpus_per_worker or launch.eval"):
        check(LaunchConfig(gpus_per_worker=1), {"CPU": 4.0, "GPU": 1.0})
    check(LaunchConfig(gpus_per_worker=1, evaluation_gpus=0), {"CPU": 4.0, "GPU": 1.0})


@given(cpus=st.integers(1, 256), gpus=st.integers(0, 16))
def test_the_default_launch_fits_any_machine_with_a_cpu_for_each_gpu(cpus: int, gpus: int) -> None:
    assume(cpus >= gpus)
    check(LaunchConfig(), {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {}))


@given(share=st.sampled_from([0.1, 0.2, 0.3, 0.7]), num_workers=st.integers(1, 100))
def test_what_is_needed_to_the_last_hundredth_is_enough(share: float, num_workers: int) -> None:
    free = {"CPU": round(share * num_workers, 1)}
    check(LaunchConfig(num_workers=num_workers, cpus_per_worker=share), free)


def test_a_process_computes_with_its_whole_cpus_and_at_least_one() -> None:
    assert [threads_of({"CPU": cpus}) for cpus in (0, 0.5, 1, 2.9)] == [1, 1, 1, 2]


# -- stages and labels ----------------------------------------------------------------------------------------------


def test_a_stage_takes_its_own_settings_and_the_launchs_for_the_rest() -> None:
    first, second = BY_STAGE.for_stage(1), BY_STAGE.for_stage(2)
    assert (first.num_workers, first.parallelism, first.worker_labels) == (4, "ddp", {"pool": "throughput"})
    assert (second.num_workers, second.parallelism, second.cpus_per_worker) == (1, "fsdp2", 16)
    assert first.max_failures == second.max_failures == BY_STAGE.max_failures


def test_stages_whose_workers_differ_have_a_group_each_and_others_share_one() -> None:
    groups = worker_groups(BY_STAGE, TWO_POOLS)
    assert [groups[stage].stages for stage in (1, 2)] == [(1,), (2,)]
    assert groups[1].in_words() == "4 workers on pool=throughput"
    assert groups[2].placement.worker == {"CPU": 16, "big": 1}
    shared = worker_groups(LaunchConfig(num_workers=2, stages=(StageLaunch(),)), TWO_POOLS)
    assert shared[1] is shared[2]
    assert shared[1].stages == (1, 2)


def test_a_number_of_workers_left_open_is_that_of_the_nodes_with_the_labels() -> None:
    nodes = [Node({"CPU": 8.0, "GPU": 4.0}, {"pool": "a"}), Node({"CPU": 8.0, "GPU": 2.0}, {"pool": "b"})]
    launch = LaunchConfig(worker_labels={"pool": "b"}, evaluation_labels={"pool": "a"})
    placement = worker_groups(launch, nodes)[1].placement
    assert (placement.num_workers, placement.evaluation["GPU"]) == (2, 0.25)
    on_cpus = worker_groups(launch, [nodes[1], Node({"CPU": 4.0}, {"pool": "a"})])[1].placement
    assert on_cpus.evaluation["GPU"] == 0.0


def test_an_accelerator_type_is_a_label() -> None:
    launch = LaunchConfig(accelerator_type="H100", worker_labels={"pool": "large"})
    assert launch.worker_selector == {"pool": "large", ACCELERATOR_LABEL: "H100"}


def test_labels_that_no_node_has_are_refused_with_the_stage_and_those_there_are() -> None:
    launch = BY_STAGE.model_copy(update={"stages": (*BY_STAGE.stages[:1], StageLaunch(worker_labels={"pool": "huge"}))})
    with pytest.raises(
        ResourceError, match=r"workers of stage 2: .* labels pool=huge; the nodes have pool=large, pool="
    ):
        check_nodes(launch, TWO_POOLS)
    with pytest.raises(ResourceError, match="the evaluation: there is no node with the labels zone=b"):
        check_nodes(LaunchConfig(evaluation_labels={"zone": "b"}), TWO_POOLS)
    with pytest.raises(ResourceError, match="the heat engine: there is no node with the labels pool=stabel; the nodes"):
        check_nodes(LaunchConfig(engine_labels={"pool": "stabel"}), TWO_POOLS)


def test_the_engine_has_room_on_a_node_that_is_full() -> None:
    full = Node({"CPU": 0.0}, {"pool": "stable"})
    check_nodes(LaunchConfig(engine_labels={"pool": "stable"}), [*TWO_POOLS, full])


def test_workers_that_fit_on_no_node_whole_are_refused_though_the_nodes_together_would_hold_them() -> None:
    check_nodes(BY_STAGE, TWO_POOLS)
    with pytest.raises(
        ResourceError, match=r"the workers: 2 x \(12 CPU\) do not fit on the 2 node\(s\) with .* hold 0 of"
    ):
        check_nodes(LaunchConfig(num_workers=2, cpus_per_worker=12, worker_labels={"pool": "throughput"}), TWO_POOLS)
    with pytest.raises(ResourceError, match=r"2 x \(1 CPU, 1 big\) do not fit .* hold 1 of them"):
        check_nodes(LaunchConfig(num_workers=2, resources_per_worker={"big": 1}), TWO_POOLS)


def test_what_a_growing_cluster_may_become_counts_and_its_nodes_are_waited_for() -> None:
    groups = (GroupConfig(name="large", cpus=32, gpus=2, accelerator_type="H100", max_nodes=3),)
    launch = LaunchConfig(address="auto", accelerator_type="H100", gpus_per_worker=1, num_workers=6, evaluation_gpus=0)
    growing = launch.model_copy(update={"cluster": ClusterConfig(groups=groups)})
    assert growing.grows
    assert start_timeout_s(growing) > start_timeout_s(launch)
    check_nodes(growing, described_nodes(groups))
    with pytest.raises(ResourceError, match="7 x"):
        check_nodes(growing.model_copy(update={"num_workers": 7}), described_nodes(groups))


def test_resources_have_one_place() -> None:
    with pytest.raises(ValidationError, match=r"stages.1.resources_per_worker: GPU is set by gpus_per_worker"):
        LaunchConfig(stages=(StageLaunch(), StageLaunch(resources_per_worker={"GPU": 1})))
    with pytest.raises(ValidationError, match="evaluation_resources: CPU is set by evaluation_cpus"):
        LaunchConfig(evaluation_resources={"CPU": 1})


def test_workers_for_a_stage_that_the_run_does_not_have_are_refused() -> None:
    data = DataConfig(sources=(SourceConfig(path="rows.jsonl"),))
    config = RunConfig(model=TinyModel(), data=data, stages=(StageConfig(name="only"),))
    with pytest.raises(ConfigError, match=r"2 stages, and the run has 1 \(only\); remove launch.stages.1"):
        check_stages(config, BY_STAGE)
