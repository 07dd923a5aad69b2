"""Settings of the cluster that a launch asks for."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from scheduler.config_model import ConfigModel

KubernetesName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=42)]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9]+([-.][a-z0-9]+)*/)?[A-Za-z0-9]+([-_.]+[A-Za-z0-9]+)*$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]+([-_.]+[A-Za-z0-9]+)*)?$", max_length=63)]
ACCELERATOR_LABEL = "ray.io/accelerator-type"


class HeadConfig(ConfigModel):
    """The head: Ray's control plane and the run's driver. It offers no CPUs, so that no training lands on it.

    Attributes:
        cpus: CPUs of the machine.
        memory_gb: Its memory; the driver prepares the data there.
        node_selector: Kubernetes labels of the machines it may run on; choose ones that are not taken away.
        node_config: The cloud's own description of the machine, for `ray up`.
    """

    cpus: int = Field(default=4, ge=1)
    memory_gb: int = Field(default=16, ge=2)
    node_selector: dict[str, str] = Field(default_factory=dict)
    node_config: dict[str, Any] = Field(default_factory=dict)


class GroupConfig(ConfigModel):
    """A group of equal nodes, of which the autoscaler keeps between `min_nodes` and `max_nodes`.

    Attributes:
        name: What the group is called.
        cpus: CPUs of a node.
        memory_gb: Memory of a node, the shared memory included.
        gpus: GPUs of a node.
        accelerator_type: What Ray calls them, such as `H100`; becomes the label `ray.io/accelerator-type`.
        shm_gb: Shared memory of a node; containers have 64 MB otherwise.
        min_nodes: Nodes that stay.
        max_nodes: Nodes there may be.
        labels: Ray's labels of a node, such as `{pool: throughput}`.
        node_selector: Kubernetes labels of the machines it may run on.
        tolerations: Keys of Kubernetes taints that it tolerates.
        node_config: The cloud's own description of the machine, for `ray up`.
    """

    name: KubernetesName
    cpus: int = Field(default=8, ge=1)
    memory_gb: int = Field(default=32, ge=2)
    gpus: int = Field(default=0, ge=0)
    accelerator_type: LabelValue | None = None
    shm_gb: int = Field(default=8, ge=1)
    min_nodes: int = Field(default=0, ge=0)
    max_nodes: int = Field(default=4, ge=1)
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    node_config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sizes_fit(self) -> "GroupConfig":
        if self.min_nodes > self.max_nodes:
            raise ValueError(f"min_nodes {self.min_nodes} is more than max_nodes {self.max_nodes}; raise max_nodes")
        if self.shm_gb >= self.memory_gb:
            raise ValueError(f"shm_gb {self.shm_gb} is part of memory_gb {self.memory_gb} and must be less; lower it")
        if self.accelerator_type is not None and self.gpus == 0:
            raise ValueError(f"accelerator_type {self.accelerator_type!r} without gpus; give gpus, or remove it")
        return self

    def ray_labels(self) -> dict[str, str]:
        """The labels that Ray's scheduler and autoscaler see."""
        accelerator = {} if self.accelerator_type is None else {ACCELERATOR_LABEL: self.accelerator_type}
        return {**accelerator, **self.labels}


class RayUpConfig(ConfigModel):
    """What only `ray up` needs, in Ray's own words.

    Attributes:
        provider: Where the machines come from: `{type: aws, region: us-west-2}`, or `{type: local, head_ip: …,
            worker_ips: […]}`.
        auth: How they are reached: `{ssh_user: ubuntu}`.
        setup_commands: Run on each machine before Ray is started; mount the shared storage here.
    """

    provider: dict[str, Any]
    auth: dict[str, Any] = Field(default_factory=dict)
    setup_commands: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_its_type(self) -> "RayUpConfig":
        if not isinstance(self.provider.get("type"), str):
            raise ValueError("provider needs a `type`, such as aws, gcp, azure or local")
        return self


class ClusterConfig(ConfigModel):
    """The cluster that `taskheat manifest` describes.

    Attributes:
        name: Name of the cluster or job.
        image: Image of every container, built from the Dockerfile.
        pull_secret: Name of the secret with which the image is pulled.
        head: The head's machine.
        groups: Groups of nodes; without any, one that fits the launch.
        autoscaling: Whether groups grow and shrink between their limits; else they have `max_nodes`.
        idle_timeout_s: Seconds after which an idle node goes.
        storage_claim: An existing claim for `launch.storage`; null: a new one is described.
        storage_class: Storage class of the new claim; it must offer ReadWriteMany.
        storage_size_gb: Size of the new claim.
        token_secret: Secret whose key `auth_token` is the cluster's token; null: KubeRay makes one.
        env_secrets: Secrets whose entries become environment variables, for other tokens.
        retries: How often a RayJob is started again; it goes on from its last checkpoint.
        ray_up: What only `ray up` needs.
    """

    name: KubernetesName = "taskheat"
    image: str | None = None
    pull_secret: str | None = None
    head: HeadConfig = HeadConfig()
    groups: tuple[GroupConfig, ...] = ()
    autoscaling: bool = True
    idle_timeout_s: int = Field(default=300, ge=1)
    storage_claim: str | None = None
    storage_class: str | None = None
    storage_size_gb: int = Field(default=200, ge=1)
    token_secret: str | None = None
    env_secrets: tuple[str, ...] = ()
    retries: int = Field(default=2, ge=0)
    ray_up: RayUpConfig | None = None

    @model_validator(mode="after")
    def _groups_have_names_of_their_own(self) -> "ClusterConfig":
        names = [group.name for group in self.groups]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"groups: {', '.join(twice)} is the name of two groups; rename one")
        return self
