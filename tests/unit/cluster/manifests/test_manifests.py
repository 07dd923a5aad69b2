import copy
import json
import shlex
import subprocess
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from click.testing import CliRunner
from pydantic import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.cli import main
from cluster.config import LaunchConfig, RunConfig, StageLaunch
from cluster.manifests.config import ClusterConfig, GroupConfig, RayUpConfig
from cluster.manifests.groups import node_groups
from cluster.manifests.kubernetes import ray_cluster, ray_job
from cluster.manifests.ray_up import ray_up
from cluster.manifests.schema import validate
from cluster.manifests.text import described
from cluster.settings import load_config
from scheduler.errors import ConfigError
from train.config import DataConfig, SourceConfig, TinyModel

STORAGE = Path("/mnt/shared")
GROUPS = (
    GroupConfig(
        name="throughput",
        cpus=8,
        memory_gb=64,
        gpus=1,
        accelerator_type="L4",
        min_nodes=1,
        labels={"pool": "throughput"},
    ),
    GroupConfig(
        name="large", cpus=16, memory_gb=256, gpus=4, accelerator_type="H100", shm_gb=64, labels={"pool": "large"}
    ),
    GroupConfig(name="evaluation", cpus=8, memory_gb=32, tolerations=("evaluation",), node_selector={"tier": "cpu"}),
)


def launch(**cluster: Any) -> LaunchConfig:
    settings = {"image": "registry.example/taskheat:0.1", "groups": GROUPS, **cluster}
    return LaunchConfig(storage=STORAGE, num_workers=4, gpus_per_worker=1, cluster=ClusterConfig(**settings))


def run(path: str = "/mnt/shared/data/a.jsonl") -> RunConfig:
    data = DataConfig(sources=(SourceConfig(path=Path(path)),))
    config = RunConfig(model=TinyModel(), data=data)
    return config.model_copy(
        update={"output": config.output.model_copy(update={"dir": STORAGE / "runs", "name": "demo"})}
    )


def only(kind: str, documents: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = [document for document in documents if document["kind"] == kind]
    return found


VARIANTS = {
    "as stated": {},
    "fixed size": {"autoscaling": False},
    "own secret and claim": {
        "token_secret": "token",
        "storage_claim": "nfs",
        "env_secrets": ("hub",),
        "pull_secret": "pull",
    },
    "own class": {"storage_class": "efs", "storage_size_gb": 1000},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_document_is_of_its_schema(variant: dict[str, Any]) -> None:
    for document in (*ray_cluster(launch(**variant)), *ray_job(run(), launch(**variant))):
        validate(document)


@pytest.mark.parametrize("path", ["spec", "spec.headGroupSpec", "spec.workerGroupSpecs.0", "metadata", ""])
def test_the_schema_refuses_a_field_that_the_api_does_not_have(path: str) -> None:
    document = copy.deepcopy(only("RayCluster", ray_cluster(launch())))
    place: Any = document
    for key in filter(None, path.split(".")):
        place = place[int(key)] if key.isdecimal() else place[key]
    place["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        validate(document)


def test_a_group_carries_its_labels_sizes_and_limits() -> None:
    groups = only("RayCluster", ray_cluster(launch()))["spec"]["workerGroupSpecs"]
    assert [group["labels"] for group in groups] == [
        {"ray.io/accelerator-type": "L4", "pool": "throughput"},
        {"ray.io/accelerator-type": "H100", "pool": "large"},
        {},
    ]
    assert [(group["replicas"], group["minReplicas"], group["maxReplicas"]) for group in groups] == [
        (1, 1, 4), (0, 0, 4), (0, 0, 4),
    ]  # fmt: skip
    [container] = groups[1]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "16", "memory": "256G", "nvidia.com/gpu": "4"}
    assert "nvidia.com/gpu" not in groups[2]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert groups[2]["template"]["spec"]["tolerations"] == [{"key": "evaluation", "operator": "Exists"}]
    fixed = only("RayCluster", ray_cluster(launch(autoscaling=False)))["spec"]
    assert [group["replicas"] for group in fixed["workerGroupSpecs"]] == [4, 4, 4]
    assert "autoscalerOptions" not in fixed


def test_every_pod_mounts_the_storage_and_shared_memory_and_runs_as_no_root() -> None:
    spec = only("RayJob", ray_job(run(), launch()))["spec"]["rayClusterSpec"]
    pods = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    for pod in pods:
        [container] = pod["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert (mounts["storage"], mounts["shm"]) == ("/mnt/shared", "/dev/shm")
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert mounts.keys() == volumes.keys()
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__


def test_no_secret_is_written_and_the_named_ones_are_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-very-secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ray-very-secret")
    settings = launch(token_secret="ray-token", env_secrets=("hub",))
    settings = settings.model_copy(update={"job": settings.job.model_copy(update={"env": ("HF_TOKEN",)})})
    text = described("rayjob", settings, run())
    assert "very-secret" not in text
    assert "secretName: ray-token" in text
    assert "secretRef:" in text


def test_a_rayjob_carries_its_configuration_and_resumes_when_it_is_started_again(tmp_path: Path) -> None:
    documents = ray_job(run(), launch())
    files = only("ConfigMap", documents)["data"]
    (tmp_path / "run.yaml").write_text(files["run.yaml"])
    assert load_config(RunConfig, files=[tmp_path / "run.yaml"]) == run()
    spec = only("RayJob", documents)["spec"]
    assert spec["backoffLimit"] == 2
    shell, option, script = shlex.split(spec["entrypoint"])
    assert (shell, option) == ("sh", "-c")
    script = script.replace("/mnt/shared", str(tmp_path)).replace("exec python", "echo python")
    runs = tmp_path / "runs/demo"
    assert _echoed(script) == "python -m cluster run /etc/taskheat/run.yaml --launch /etc/taskheat/launch.yaml"
    runs.mkdir(parents=True)
    (runs / "manifest.json").touch()
    assert _echoed(script) == f"python -m cluster run --resume {runs}"


def _echoed(script: str) -> str:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_a_rayjob_whose_files_are_not_on_the_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ConfigError, match=rf"data.sources.0.path {tmp_path}/a.jsonl; put them there"):
        ray_job(run(f"{tmp_path}/a.jsonl"), launch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LaunchConfig(storage=STORAGE), "launch.cluster.image: not set; build one"),
        (LaunchConfig(cluster=ClusterConfig(image="i")), "launch.storage: not set"),
        (
            LaunchConfig(storage=STORAGE, num_workers=40, cluster=ClusterConfig(image="i", groups=GROUPS)),
            "launch.cluster.groups, all at max_nodes: not enough free resources: 40 workers",
        ),
    ],
)
def test_a_launch_that_does_not_say_enough_is_refused(settings: LaunchConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ray_cluster(settings)


def test_without_groups_there_is_a_node_for_each_worker() -> None:
    [group] = node_groups(LaunchConfig(num_workers=3, cpus_per_worker=2, gpus_per_worker=0.75, evaluation_gpus=0.25))
    assert (group.min_nodes, group.max_nodes, group.cpus, group.gpus) == (3, 3, 2, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a", "min_nodes": 5}, "min_nodes 5 is more than max_nodes 4"),
        ({"name": "a", "shm_gb": 32}, "shm_gb 32 is part of memory_gb 32"),
        ({"name": "a", "accelerator_type": "H100"}, "accelerator_type 'H100' without gpus"),
        ({"name": "A b"}, "should match pattern"),
        ({"name": "a", "labels": {"pool": "a b"}}, "should match pattern"),
    ],
)
def test_a_group_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GroupConfig(**settings)


def test_two_groups_of_one_name_and_a_provider_without_a_type_are_refused() -> None:
    with pytest.raises(ValidationError, match="large is the name of two groups"):
        ClusterConfig(groups=(GROUPS[1], GROUPS[1]))
    with pytest.raises(ValidationError, match="provider needs a `type`"):
        RayUpConfig(provider={"region": "x"})


# -- ray up ---------------------------------------------------------------------------------------------------------

AWS = RayUpConfig(provider={"type": "aws", "region": "us-west-2"}, auth={"ssh_user": "ubuntu"})
LOCAL = RayUpConfig(
    provider={"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2"]}, auth={"ssh_user": "me"}
)


def accepted(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray's own preparation makes of it; raises where Ray refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_config(json.loads(json.dumps(config)))
        validate_config(prepared)
    return prepared


def test_ray_up_takes_the_cloud_yaml_with_its_groups_labels_and_limits() -> None:
    prepared = accepted(ray_up(launch(ray_up=AWS)))
    types = prepared["available_node_types"]
    assert types["large"]["labels"] == {"ray.io/accelerator-type": "H100", "pool": "large"}
    assert types["large"]["resources"] == {"CPU": 16, "GPU": 4}
    assert (types["throughput"]["min_workers"], types["throughput"]["max_workers"]) == (1, 4)
    assert types[prepared["head_node_type"]]["resources"]["CPU"] == 0
    assert "--shm-size=8g" in prepared["docker"]["run_options"]
    assert "-v /mnt/shared:/mnt/shared" in prepared["docker"]["run_options"]
    assert any("RAY_AUTH_MODE=token ray start" in command for command in prepared["head_start_ray_commands"])


def test_ray_up_takes_the_yaml_of_machines_at_hand_and_their_labels_are_given_at_the_start() -> None:
    config = ray_up(launch(ray_up=LOCAL, groups=(GROUPS[0].model_copy(update={"max_nodes": 5}),)))
    accepted(config)
    assert '--labels="ray.io/accelerator-type=L4,pool=throughput"' in config["worker_start_ray_commands"][-1]


def test_ray_refuses_a_misspelt_setting_of_the_same_yaml() -> None:
    config = ray_up(launch(ray_up=AWS))
    config["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError):
        accepted(config)


def test_machines_at_hand_are_of_one_kind_and_a_provider_must_be_named() -> None:
    with pytest.raises(ConfigError, match="the local provider knows one kind of node, and there are 3 groups"):
        ray_up(launch(ray_up=LOCAL))
    with pytest.raises(ConfigError, match=r"launch\.cluster\.ray_up: not set"):
        ray_up(launch())


# -- command --------------------------------------------------------------------------------------------------------


def test_the_command_prints_what_kubectl_reads_as_the_same_documents(tmp_path: Path) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text(
        "storage: /mnt/shared\ncluster: {image: 'i:1', groups: [{name: gpu, gpus: 1, labels: {pool: 'no'}}]}\n"
    )
    done = CliRunner().invoke(main, ["manifest", "--kind", "raycluster", "--launch", str(file)])
    assert done.exit_code == 0, done.output
    documents = list(yaml.safe_load_all(done.stdout))
    assert [document["kind"] for document in documents] == ["PersistentVolumeClaim", "RayCluster"]
    assert documents[1]["spec"]["workerGroupSpecs"][0]["labels"] == {"pool": "no"}
    refused = CliRunner().invoke(main, ["manifest", "--kind", "raycluster", "run.yaml"])
    assert (refused.exit_code, "made from the launch alone" in refused.stderr) == (2, True)


def test_stages_with_workers_of_their_own_get_a_group_each_and_an_evaluation_set_apart_one_too() -> None:
    launch = LaunchConfig(
        num_workers=4,
        stages=(
            StageLaunch(worker_labels={"pool": "throughput"}),
            StageLaunch(num_workers=1, cpus_per_worker=16, accelerator_type="H100", gpus_per_worker=2),
        ),
        evaluation_labels={"pool": "evaluation"},
        evaluation_gpus=1,
    )
    first, second, evaluation = node_groups(launch)
    assert (first.name, first.max_nodes, first.ray_labels()) == ("stage-1", 4, {"pool": "throughput"})
    assert (second.name, second.max_nodes, second.cpus, second.gpus) == ("stage-2", 1, 16, 2)
    assert second.ray_labels() == {"ray.io/accelerator-type": "H100"}
    assert (evaluation.name, evaluation.gpus, evaluation.ray_labels()) == ("evaluation", 1, {"pool": "evaluation"})


def test_stated_groups_without_the_labels_of_a_stage_are_refused() -> None:
    wrong = ClusterConfig(groups=GROUPS)
    launch = LaunchConfig(cluster=wrong, stages=(StageLaunch(worker_labels={"pool": "huge"}),))
    with pytest.raises(ConfigError, match="all at max_nodes: the workers of stage 1: there is no node with the labels"):
        node_groups(launch)
