"""RayCluster and RayJob of KubeRay, API version ray.io/v1, with what they need beside them.

Needs KubeRay 1.5.1 or newer, which knows `labels` of a group and `authOptions`
(https://docs.ray.io/en/latest/cluster/kubernetes/user-guides/label-based-scheduling.html, …/kuberay-auth.html).
"""

import shlex
from pathlib import Path
from typing import Any

import ray

from cluster.config import LaunchConfig, RunConfig
from cluster.jobs.package import make_package
from cluster.manifests.config import ClusterConfig, GroupConfig
from cluster.manifests.groups import node_groups
from cluster.settings import dump_config
from scheduler.errors import ConfigError

Manifest = dict[str, Any]

CONFIG_FOLDER = Path("/etc/taskheat")
_USER_ID = 1000
"""The user of the image, see the Dockerfile."""
_HEAD_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}


def ray_cluster(launch: LaunchConfig) -> list[Manifest]:
    """A RayCluster, and the claim of its storage.

    Raises:
        ConfigError: No image or storage is named, or the launch does not fit the groups.
    """
    cluster = launch.cluster
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(cluster.name),
        "spec": _cluster_spec(launch, head_config_map=None),
    }
    return [*_storage_claim(launch), manifest]


def ray_job(config: RunConfig, launch: LaunchConfig) -> list[Manifest]:
    """A RayJob that makes a cluster, runs, and removes the cluster; with its configuration and the storage's claim.

    Started again, it resumes the run. Raises as `ray_cluster`, and where a file of the run is not on the storage.
    """
    package = make_package(config, launch)
    if package.travelling:
        named = ", ".join(f"{item.setting} {item.path}" for item in package.travelling)
        raise ConfigError(
            f"a RayJob starts without this machine's files, and these are not below launch.storage {launch.storage}: "
            f"{named}; put them there"
        )
    cluster = launch.cluster
    config_map = f"{cluster.name}-config"
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(cluster.name),
        "spec": {
            "entrypoint": _entrypoint(launch.job.python, package.run_directory),
            "submissionMode": "K8sJobMode",
            "backoffLimit": cluster.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": _cluster_spec(launch, head_config_map=config_map),
        },
    }
    files = {"run.yaml": dump_config(package.config), "launch.yaml": dump_config(package.launch)}
    described = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(config_map), "data": files}
    return [*_storage_claim(launch), described, manifest]


def _entrypoint(python: str, run_directory: Path) -> str:
    """Start the run, or go on with it where an earlier cluster left it."""
    ours = f"{shlex.quote(python)} -m cluster run"
    root = shlex.quote(str(run_directory))
    start = f"{ours} {CONFIG_FOLDER}/run.yaml --launch {CONFIG_FOLDER}/launch.yaml"
    script = f"if [ -e {root}/manifest.json ]; then exec {ours} --resume {root}; else exec {start}; fi"
    return f"sh -c {shlex.quote(script)}"


def _cluster_spec(launch: LaunchConfig, *, head_config_map: str | None) -> Manifest:
    cluster = launch.cluster
    token = {} if cluster.token_secret is None else {"secretName": cluster.token_secret}
    autoscaler = {"version": "v2", "idleTimeoutSeconds": cluster.idle_timeout_s, "upscalingMode": "Default"}
    return {
        "rayVersion": ray.__version__,
        "authOptions": {"mode": "token", **token},
        "enableInTreeAutoscaling": cluster.autoscaling,
        **({"autoscalerOptions": autoscaler} if cluster.autoscaling else {}),
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": _head_pod(launch, head_config_map),
        },
        "workerGroupSpecs": [_worker_group(launch, group) for group in node_groups(launch)],
    }


def _head_pod(launch: LaunchConfig, config_map: str | None) -> Manifest:
    head = launch.cluster.head
    pod = _pod(launch, "ray-head", cpus=head.cpus, memory_gb=head.memory_gb, shm_gb=2, selector=head.node_selector)
    container = pod["spec"]["containers"][0]
    container["ports"] = [{"name": name, "containerPort": port} for name, port in _HEAD_PORTS.items()]
    if config_map is not None:
        container["volumeMounts"].append({"name": "config", "mountPath": str(CONFIG_FOLDER), "readOnly": True})
        pod["spec"]["volumes"].append({"name": "config", "configMap": {"name": config_map}})
    return pod


def _worker_group(launch: LaunchConfig, group: GroupConfig) -> Manifest:
    pod = _pod(
        launch,
        "ray-worker",
        cpus=group.cpus,
        memory_gb=group.memory_gb,
        shm_gb=group.shm_gb,
        gpus=group.gpus,
        selector=group.node_selector,
    )
    if group.tolerations:
        pod["spec"]["tolerations"] = [{"key": key, "operator": "Exists"} for key in group.tolerations]
    num_nodes = group.min_nodes if launch.cluster.autoscaling else group.max_nodes
    return {
        "groupName": group.name,
        "replicas": num_nodes,
        "minReplicas": num_nodes,
        "maxReplicas": group.max_nodes,
        "labels": group.ray_labels(),
        "rayStartParams": {},
        "template": pod,
    }


def _pod(
    launch: LaunchConfig,
    name: str,
    *,
    cpus: int,
    memory_gb: int,
    shm_gb: int,
    gpus: int = 0,
    selector: dict[str, str] | None = None,
) -> Manifest:
    cluster, storage = launch.cluster, _storage(launch)
    resources = {"cpu": str(cpus), "memory": f"{memory_gb}G", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    container = {
        "name": name,
        "image": _image(cluster),
        "resources": {"limits": resources, "requests": resources},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}, {"name": "storage", "mountPath": str(storage)}],
    }
    if cluster.env_secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in cluster.env_secrets]
    spec: Manifest = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER_ID, "fsGroup": _USER_ID},
        "containers": [container],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shm_gb}G"}},
            {"name": "storage", "persistentVolumeClaim": {"claimName": _claim_name(cluster)}},
        ],
    }
    if selector:
        spec["nodeSelector"] = dict(selector)
    if cluster.pull_secret is not None:
        spec["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    return {"metadata": {"labels": {"app.kubernetes.io/part-of": cluster.name}}, "spec": spec}


def _storage_claim(launch: LaunchConfig) -> list[Manifest]:
    cluster = launch.cluster
    if cluster.storage_claim is not None:
        return []
    spec = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": f"{cluster.storage_size_gb}G"}},
        **({} if cluster.storage_class is None else {"storageClassName": cluster.storage_class}),
    }
    metadata = _metadata(_claim_name(cluster))
    return [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}]


def _claim_name(cluster: ClusterConfig) -> str:
    return cluster.storage_claim or f"{cluster.name}-storage"


def _metadata(name: str) -> Manifest:
    return {"name": name, "labels": {"app.kubernetes.io/name": "taskheat"}}


def _image(cluster: ClusterConfig) -> str:
    if cluster.image is None:
        raise ConfigError(
            "launch.cluster.image: not set; build one from the Dockerfile, push it, and give its name: "
            "launch.cluster.image=registry.example/taskheat:0.1"
        )
    return cluster.image


def _storage(launch: LaunchConfig) -> Path:
    if launch.storage is None:
        raise ConfigError(
            "launch.storage: not set; name the folder where the shared claim is mounted, such as /mnt/shared"
        )
    return launch.storage
