import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.config import LaunchConfig, RunConfig
from cluster.preflight import check_files, check_model, check_packages, check_resources, place, threads_of
from cluster.settings import load_config
from scheduler.errors import ConfigError, DataError, ResourceError
from train.config import PretrainedModel, TinyModel

# -- placement ------------------------------------------------------------------------------------------------------


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


# -- model, data, packages ------------------------------------------------------------------------------------------


def test_a_folder_is_a_model_only_with_its_config_and_safetensors(tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    model = PretrainedModel(path=str(folder))
    with pytest.raises(ConfigError, match=re.escape(f"model.path: {folder} does not exist")):
        check_model(model)
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"has no config.json; it is not a Hugging Face model folder"):
        check_model(model)
    (folder / "config.json").touch()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match=r"has no \*.safetensors; save the model with safetensors"):
        check_model(model)
    (folder / "model-00001-of-00002.safetensors").touch()
    check_model(model)


def test_a_file_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "lm").touch()
    with pytest.raises(ConfigError, match="give a Hugging Face model folder"):
        check_model(PretrainedModel(path=str(tmp_path / "lm")))


@pytest.mark.parametrize("model", [TinyModel(), PretrainedModel(path="org/model")])
def test_a_built_model_and_a_hub_id_are_not_looked_for_on_disk(model: PretrainedModel | TinyModel) -> None:
    check_model(model)


def test_the_second_of_two_sources_is_looked_for_too(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: {type: tiny}\ndata: [a.jsonl, b.jsonl]")
    (tmp_path / "a.jsonl").touch()
    config = load_config(RunConfig, files=[tmp_path / "run.yaml"])
    with pytest.raises(DataError, match=re.escape(f"data source {tmp_path / 'b.jsonl'} does not exist")):
        check_files(config)
    (tmp_path / "b.jsonl").touch()
    check_files(config)


def test_the_packages_imported_here_are_the_projects_own() -> None:
    check_packages()


def test_a_package_of_another_distribution_is_told_from_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "train")
    with pytest.raises(ConfigError, match=re.escape(f"'train' is imported from {tmp_path / 'train/__init__.py'}")):
        check_packages()
