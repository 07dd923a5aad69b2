"""The two configurations: RunConfig says what to train, LaunchConfig says where.

Each package owns the settings of its own part; this module puts them together and checks what only the whole can know.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cluster.jobs.config import JobConfig
from cluster.manifests.config import ACCELERATOR_LABEL, ClusterConfig, LabelKey, LabelValue
from evalsvc.config import EvaluationConfig
from scheduler.config_model import ConfigModel, Url
from scheduler.policy_config import GradientPolicy
from scheduler.setup import (
    Arrangement,
    Boundary,
    CapabilityBoundary,
    DifficultyWindow,
    MixtureConfig,
    Policy,
    StageGuards,
    StepBoundary,
)
from scheduler.task import TaskCard
from train.config import DataConfig, ModelConfig, Parallelism, PretrainedModel, TrainConfig
from train.micro_batches import MicroBatchLimits
from train.schedule import StageTraining


class StageConfig(ConfigModel):
    """One stage's own settings; what is left out is taken from `train` and `mixture`.

    `until` ends the stage; the last stage has none. `max_length` bounds rows in context (chains, contrasts), which may
    be longer than a row alone: a chain loses its furthest ancestors, and a row whose context does not fit is trained
    alone. `micro_batch_size` or `micro_batch_tokens` then keep the stage within the memory there is.
    """

    name: str
    until: Boundary | None = Field(default=None, discriminator="type")
    policy: Policy | None = None
    arrangement: Arrangement = Arrangement()
    difficulty: DifficultyWindow | None = None
    guards: StageGuards = StageGuards()
    learning_rate: float | None = Field(default=None, gt=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    micro_batch_size: int | None = Field(default=None, ge=1)
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=8)

    def training(self, train: TrainConfig) -> StageTraining:
        """Optimisation settings of this stage."""
        return StageTraining(
            learning_rate=train.learning_rate if self.learning_rate is None else self.learning_rate,
            warmup_steps=train.warmup_steps if self.warmup_steps is None else self.warmup_steps,
            max_grad_norm=train.max_grad_norm if self.max_grad_norm is None else self.max_grad_norm,
            micro_batches=self._micro_batches(train),
            max_length=self.max_length,
        )

    def _micro_batches(self, train: TrainConfig) -> MicroBatchLimits:
        """What the stage says, in either unit, goes before what `train` says in the other."""
        tokens = train.micro_batch_tokens if self.micro_batch_size is None else None
        return MicroBatchLimits(
            num_samples=self.micro_batch_size or train.micro_batch_size,
            max_tokens=self.micro_batch_tokens or tokens,
        )


class OutputConfig(ConfigModel):
    """Where runs are kept: in `dir/name`; without a name it is made from the config's folder and the time.

    Checkpoints are kept in the run's directory, or with `storage` in `storage/name/checkpoints`: a folder, or a URL
    that fsspec can write (`s3://bucket/runs`; credentials come from where that file system looks for them).
    """

    dir: Path = Path("runs")
    storage: Path | Url | None = None
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


def schedule_fault(stages: Sequence[StageConfig], mixture: MixtureConfig, *, steps: int) -> str | None:
    """Why stages and interval do not fit into a run of so many steps, or None."""
    first, last = stages[0], stages[-1]
    if last.until is not None:
        return f"stages: the last stage, {last.name!r}, has an `until`; remove it: it lasts to the end of the run"
    if len(stages) == 2 and first.until is None:
        return f"stages: {first.name!r} needs an `until`, or the stage after it never begins"
    if isinstance(first.until, StepBoundary) and first.until.step >= steps:
        return f"stages.0.until.step {first.until.step} is not before train.steps {steps}; stage 2 would never begin"
    if (mixture.interval_steps or 0) > steps:
        return (
            f"mixture.interval_steps {mixture.interval_steps} is more than train.steps {steps}: "
            "nothing would be measured; lower it"
        )
    return None


def _off_the_boundaries(train: TrainConfig, mixture: MixtureConfig) -> str | None:
    """Which step that must be an interval boundary inside the run is none, or None."""
    interval = mixture.interval_of(train.steps)
    named = [("train.checkpoint_at", step) for step in train.checkpoint_at]
    named += [] if train.stop_after is None else [("train.stop_after", train.stop_after)]
    for name, step in named:
        if step % interval or step >= train.steps:
            return (
                f"{name} {step} is no interval boundary before the end: give a multiple of {interval} "
                f"(mixture.interval_steps) below train.steps {train.steps}"
            )
    return None


class RunConfig(ConfigModel):
    """What to train. The smallest useful one names a model and two files of rows."""

    model: ModelConfig
    data: DataConfig
    tasks: dict[str, TaskCard] = Field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    stages: tuple[StageConfig, ...] = Field(
        default=(StageConfig(name="instruction", until=CapabilityBoundary()), StageConfig(name="tasks")),
        min_length=1,
        max_length=2,
    )
    mixture: MixtureConfig = MixtureConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: OutputConfig = OutputConfig()
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "RunConfig":
        fault = schedule_fault(self.stages, self.mixture, steps=self.train.steps)
        fault = fault or _off_the_boundaries(self.train, self.mixture) or self._curriculum_fault()
        fault = fault or self._export_fault()
        if fault is not None:
            raise ValueError(fault)
        if self.train.influence is None and self._goes_by_gradients():
            raise ValueError(
                "policy.type gradient goes by each task's gradient, and train.influence: null switches its measuring "
                "off; leave train.influence at its default, or take another policy"
            )
        return self

    def _goes_by_gradients(self) -> bool:
        policies = [self.mixture.policy if stage.policy is None else stage.policy for stage in self.stages]
        return any(isinstance(policy, GradientPolicy) for policy in policies)

    @property
    def difficulty_windows(self) -> list[str]:
        """The settings that give a stage a window of difficulty levels."""
        return [f"stages.{number}.difficulty" for number, stage in enumerate(self.stages) if stage.difficulty]

    def _curriculum_fault(self) -> str | None:
        """Why the curriculum would do nothing, or None."""
        windows = self.difficulty_windows
        if self.mixture.curriculum is None or len(windows) < len(self.stages):
            return None
        return (
            "mixture.curriculum would do nothing: every stage has a difficulty window of its own "
            f"({', '.join(windows)}), which it leaves alone; remove the window of a stage, or set mixture.curriculum "
            "to null"
        )

    def _export_fault(self) -> str | None:
        """Why the result cannot be what `train` asks for, or None."""
        if self.train.export == "best" and (self.train.select_by == "last" or not self.data.selection_per_task):
            return (
                "train.export best needs scores to choose by: set data.selection_per_task (32, say) and leave "
                "train.select_by at worst or macro"
            )
        if self.train.export_merged and (not isinstance(self.model, PretrainedModel) or self.model.lora is None):
            return "train.export_merged: this model is trained whole, there is no adapter to merge; leave it out"
        return None


class ElasticWorkers(ConfigModel):
    """Any number of workers from `min` to `max`; every `resize_every_s` seconds Ray looks whether more can be had.

    What is trained does not depend on the number; a change costs a restart from the newest checkpoint.
    """

    min: int = Field(ge=1)
    max: int = Field(ge=1)
    resize_every_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "ElasticWorkers":
        if self.min > self.max:
            raise ValueError(f"num_workers: min {self.min} is more than max {self.max}")
        return self


Labels = dict[LabelKey, LabelValue]
Amounts = dict[str, Annotated[float, Field(gt=0)]]


class StageLaunch(ConfigModel):
    """The workers of one stage; what is left out is the launch's own.

    Where the stages' workers differ, those of stage 1 end at the boundary with a checkpoint, and those of stage 2 go on
    from it: another number of them, on other nodes, under another parallelism. What is trained stays the same.
    """

    num_workers: Annotated[int, Field(ge=1)] | ElasticWorkers | None = Field(
        default=None, description="training processes of the stage"
    )
    parallelism: Parallelism | None = Field(default=None, description="how they share the model")
    cpus_per_worker: float | None = Field(default=None, gt=0, description="CPUs each reserves; its compute threads")
    gpus_per_worker: float | None = Field(default=None, ge=0, description="GPUs, or a part of one, each reserves")
    resources_per_worker: Amounts | None = Field(default=None, description="what else each reserves")
    accelerator_type: LabelValue | None = Field(default=None, description="accelerators of their nodes")
    worker_labels: Labels | None = Field(default=None, description="labels of their nodes")


class LaunchConfig(ConfigModel):
    """Where to run.

    `address: null` starts Ray on this machine; otherwise the address of a cluster ("auto": the one this machine is in).
    `num_workers: null` means one per GPU, or up to two on CPUs; `{min: 1, max: 4}` goes on with as many as there are
    when nodes come and go. `parallelism: ddp` gives every worker the whole model;
    `fsdp2` gives each a part of parameters, gradients and optimiser state, for models that one worker cannot hold, and
    gathers a layer when it is needed. A checkpoint of either, on any number of workers, is gone on from under the
    other; `stages` may so give each stage workers of its own. On a cluster of several machines `output.dir` must lie on
    storage that every node can read and write; `storage` names it, for `taskheat submit`, `doctor` and `manifest`. A
    checkpoint waits in `staging_dir`, on each node's own disk, until it is durable.
    """

    address: str | None = None
    storage: Path | None = Field(
        default=None, description="folder that every node reads and writes under the same path, such as `/mnt/shared`"
    )
    num_workers: Annotated[int, Field(ge=1)] | ElasticWorkers | None = None
    parallelism: Parallelism = "ddp"
    cpus_per_worker: float = Field(default=1.0, gt=0)
    gpus_per_worker: float | None = Field(default=None, ge=0, description="null: 0.75 where there are GPUs, else 0")
    resources_per_worker: Amounts = Field(
        default_factory=dict, description="what else a worker reserves: `memory` in bytes, or resources of your own"
    )
    accelerator_type: LabelValue | None = Field(
        default=None, description="workers run on nodes with these accelerators, as Ray names them: `H100`"
    )
    worker_labels: Labels = Field(
        default_factory=dict, description="workers run on nodes with these labels: `{pool: throughput}`"
    )
    stages: tuple[StageLaunch, ...] = Field(
        default=(), max_length=2, description="workers of stage 1, and of stage 2, where they differ"
    )
    evaluation_cpus: float = Field(default=0.0, ge=0, description="0: shares the workers' cores")
    evaluation_gpus: float | None = Field(default=None, ge=0, description="null: 0.25 where there are GPUs, else 0")
    evaluation_resources: Amounts = Field(
        default_factory=dict, description="what else the evaluation reserves, as `resources_per_worker`"
    )
    evaluation_labels: Labels = Field(
        default_factory=dict, description="the evaluation runs on a node with these labels: `{pool: evaluation}`"
    )
    engine_labels: Labels = Field(
        default_factory=dict,
        description="the heat engine, which writes the ledger, runs on a node with these labels; without any, beside "
        "the driver",
    )
    max_failures: int = Field(default=3, ge=0)
    worker_start_timeout_s: float | None = Field(
        default=None, gt=0, description="null: 120, elastic 30, and 900 where `cluster.groups` grow by themselves"
    )
    sigterm_grace_s: float = Field(default=60.0, gt=0, description="a worker told to end does so by then")
    staging_dir: Path | None = Field(default=None, description="null: the node's folder of temporary files")
    dashboard: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    trackers: tuple[Literal["wandb", "mlflow", "trackio"], ...] = Field(
        default=(),
        description="also written to these, beside TensorBoard; each is an extra: `pip install taskheat[wandb]`",
    )
    cluster: ClusterConfig = Field(
        default=ClusterConfig(), description="the cluster that `taskheat manifest` describes"
    )
    job: JobConfig = Field(default=JobConfig(), description="how `taskheat submit` hands the run over")

    @model_validator(mode="after")
    def _gpus_are_a_part_or_whole(self) -> "LaunchConfig":
        for name in ("gpus_per_worker", "evaluation_gpus"):
            number = getattr(self, name)
            if number is not None and number > 1 and number != int(number):
                raise ValueError(f"{name} {number:g}: more than one GPU must be a whole number of them")
        return self

    @model_validator(mode="after")
    def _resources_have_one_place(self) -> "LaunchConfig":
        named = {"resources_per_worker": self.resources_per_worker, "evaluation_resources": self.evaluation_resources}
        named |= {
            f"stages.{place}.resources_per_worker": stage.resources_per_worker or {}
            for place, stage in enumerate(self.stages)
        }
        for setting, amounts in named.items():
            for kind in ("CPU", "GPU"):
                if kind in amounts:
                    other = "evaluation_{}s" if setting.startswith("evaluation") else "{}s_per_worker"
                    raise ValueError(f"{setting}: {kind} is set by {other.format(kind.lower())}; remove it here")
        return self

    def for_stage(self, stage: int) -> "LaunchConfig":
        """The launch with the settings of this stage, 1 or 2, as its own."""
        own = self.stages[stage - 1 : stage]
        changed = {name: value for one in own for name, value in one if value is not None}
        return self.model_copy(update={**changed, "stages": ()})

    def by_stages(self) -> dict[tuple[int, ...], "LaunchConfig"]:
        """The launch of each group of workers, by the stages it trains: one group for both where nothing differs."""
        first, second = self.for_stage(1), self.for_stage(2)
        return {(1, 2): first} if first == second else {(1,): first, (2,): second}

    @property
    def worker_selector(self) -> dict[str, str]:
        """Labels of the nodes on which workers may run."""
        accelerator = {} if self.accelerator_type is None else {ACCELERATOR_LABEL: self.accelerator_type}
        return {**self.worker_labels, **accelerator}

    @property
    def grows(self) -> bool:
        """Nodes that are not there yet come when they are asked for."""
        return self.address is not None and bool(self.cluster.groups) and self.cluster.autoscaling
