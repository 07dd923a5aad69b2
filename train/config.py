"""Settings of the work: what is read, what is trained, how."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, FiniteFloat, model_validator

from scheduler.config_model import ConfigModel, PathLike, Url
from scheduler.selection import SelectionRule

SplitName = Literal["probe", "selection", "test", "train"]

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
"""In the order in which they claim content that several tasks hold."""

Parallelism = Literal["ddp", "fsdp2"]
"""How the workers share the model: each holds all of it, or a part."""


class SourceConfig(ConfigModel):
    """A file of rows, or a folder of such files, local or at a URL (`s3://bucket/rows.jsonl`, read through fsspec).

    The task of a row is `task`, or the value of its column `task_column`, or (neither given) the stem of its file, or
    with `task_from: folder` the name of the folder its file lies in. `columns` maps our names (instruction, input,
    output, system, history, id, ...) to the file's, where they differ: `{instruction: question, output: answer}`.
    `lineage` states what holds for every row and no column says: `{licence: MIT, annotator: team A}`. `split: auto`
    holds rows out by their content; any other value puts all rows of the source into that set.
    """

    path: Path | Url
    task: str | None = None
    task_column: str | None = None
    task_from: Literal["file", "folder"] = "file"
    columns: dict[str, str] = Field(default_factory=dict)
    lineage: dict[str, str] = Field(default_factory=dict)
    split: Literal["auto"] | SplitName = "auto"
    max_rows: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_way_to_name_the_task(self) -> "SourceConfig":
        if self.task is not None and self.task_column is not None:
            raise ValueError("give task or task_column, not both")
        return self


class NearDuplicateConfig(ConfigModel):
    """What happens to rows of a task that say nearly the same.

    Two rows are near duplicates when the character n-grams of their texts have a Jaccard similarity of at least
    `threshold`. `refuse` keeps the first; `keep_together` keeps all, in one set, so that none is trained on while
    another is held out.
    """

    threshold: float = Field(default=0.9, gt=0, le=1)
    action: Literal["refuse", "keep_together"] = "keep_together"


class DifficultyWeights(ConfigModel):
    """What each of the four `difficulty_factors` of a row counts in its difficulty, relative to the others."""

    knowledge_breadth: FiniteFloat = Field(default=1.0, ge=0)
    reasoning_steps: FiniteFloat = Field(default=1.0, ge=0)
    constraints: FiniteFloat = Field(default=1.0, ge=0)
    ambiguity: FiniteFloat = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _something_counts(self) -> "DifficultyWeights":
        if not self.knowledge_breadth + self.reasoning_steps + self.constraints + self.ambiguity > 0:
            raise ValueError("all four weights of the difficulty factors are 0; give at least one of them a weight")
        return self

    def score(self, factors: tuple[float, float, float, float]) -> float:
        """Difficulty of a row: the weighted mean of its factors, in their unit."""
        weights = (self.knowledge_breadth, self.reasoning_steps, self.constraints, self.ambiguity)
        return sum(weight * factor for weight, factor in zip(weights, factors, strict=True)) / sum(weights)


class DataConfig(ConfigModel):
    """Which rows, how they are checked, and how each task's rows are split.

    Three sets are held out of training by content hash: `probes_per_task` rows feed the engine during the run,
    `selection_per_task` rows choose between checkpoints, `test_per_task` rows are read once, at the end. A small task
    gives up at most `max_held_out_ratio` of its distinct rows to each. `loss_on` says which assistant turns of a
    conversation are supervised. With `require_review` only rows whose `review_status` is one of
    `accepted_review_status`, and which name their reviewer, are used.
    """

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    tasks_file: Path | None = None
    max_length: int = Field(default=512, ge=8, description="tokens of prompt and answer; a longer row is refused")
    max_line_bytes: int = Field(default=1 << 20, ge=1024, description="a longer line or record is refused unread")
    loss_on: Literal["last_answer", "every_answer"] = "last_answer"
    require_review: bool = False
    accepted_review_status: tuple[str, ...] = Field(default=("approved", "accepted", "signed_off"), min_length=1)
    near_duplicates: NearDuplicateConfig | None = None
    max_refused_ratio: float = Field(default=0.0, ge=0, le=1)
    probes_per_task: int = Field(default=32, ge=2)
    selection_per_task: int = Field(default=0, ge=0)
    test_per_task: int = Field(default=32, ge=0)
    max_held_out_ratio: float = Field(default=0.2, gt=0, le=0.5)
    difficulty_weights: DifficultyWeights = DifficultyWeights()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`data: [a.jsonl, b.jsonl]` means one source a file, the task named by the file."""
        if isinstance(value, list):
            value = {"sources": value}
        if isinstance(value, dict) and isinstance(value.get("sources"), (list, tuple)):
            sources = [{"path": item} if isinstance(item, (str, Path)) else item for item in value["sources"]]
            value = {**value, "sources": sources}
        return value


class LoraConfig(ConfigModel):
    """Low-rank adapters (peft). `target_modules: all-linear` means every linear layer but the LM head.

    `rslora` scales an adapter by alpha / sqrt(rank) instead of alpha / rank, so that a high rank does not learn slower
    (Kalajdzievski 2023, arXiv:2312.03732). `dora` learns the length of every output's weight vector apart from its
    direction (Liu et al. 2024, arXiv:2402.09353): closer to training all weights, and slower per step. They may be
    combined.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    rslora: bool = False
    dora: bool = False


class PretrainedModel(ConfigModel):
    """A Hugging Face causal LM from a local path or a hub id; safetensors only.

    `lora: null` trains all weights. `dtype` is what forward and backward compute in, and what frozen weights are kept
    in; weights that are trained, adapters or all, are always kept in float32, and so is the loss. `auto` is bfloat16 on
    a GPU that has instructions for it, else float32; a CPU that can compute in bfloat16 does so if told to, and the log
    says that it can. Without instructions bfloat16 is emulated, ten times slower and more: the log warns of it.
    """

    type: Literal["pretrained"] = "pretrained"
    path: Annotated[str, PathLike]
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    lora: LoraConfig | None = LoraConfig()
    trust_remote_code: bool = False
    chat_template: Literal["auto", "none"] = "auto"
    gradient_checkpointing: bool = False


class TinyModel(ConfigModel):
    """A small llama built from these sizes, with a byte-level tokenizer trained on the run's own training rows.

    Needs no download; for demos, tests and policy experiments. Digits are kept apart as single tokens.
    """

    type: Literal["tiny"] = "tiny"
    hidden_size: int = Field(default=128, ge=16)
    num_layers: int = Field(default=2, ge=1)
    num_heads: int = Field(default=4, ge=1)
    vocab_size: int = Field(default=1024, ge=300)
    max_position_embeddings: int = Field(default=512, ge=32)

    @property
    def trust_remote_code(self) -> bool:
        """No code comes with it."""
        return False

    @model_validator(mode="after")
    def _heads_divide(self) -> "TinyModel":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        return self


ModelConfig = Annotated[PretrainedModel | TinyModel, Field(discriminator="type")]


class InfluenceConfig(ConfigModel):
    """Measuring which task moves the model: gradient norm per task and its cosine with the applied update.

    At the last step of every interval a few tasks, in turn, are measured on `rows` of their training rows each;
    `max_cost_ratio` is the share of the trained samples that may be spent on it. Training is the same, bit for bit,
    with and without (see `train.influence`).

    Attributes:
        rows: Training rows a measurement, in two halves.
        max_cost_ratio: Measured rows for every trained sample, at most.
    """

    rows: int = Field(default=8, ge=2, multiple_of=2)
    max_cost_ratio: float = Field(default=0.01, gt=0, le=1)


class TrainConfig(ConfigModel):
    """The optimisation. A step is one optimiser step over `global_batch_size` samples, whatever the number of workers.

    The batch is cut into micro-batches of `micro_batch_size` samples, or of at most `micro_batch_tokens` tokens, that
    are shared out among the workers; the rest is accumulated. By tokens they cost alike, so that no worker waits for
    another and memory is bounded whatever the rows. Rates and limits may be set per stage. `packing` lays the rows of a
    micro-batch end to end, which trains the same and wastes nothing on padding: `auto` where the model allows it, `on`
    or an error, `off` never. `compile` has torch.compile make kernels for forward and backward, all but the attention
    of packed rows: minutes before the first step, for cheaper steps. Without a compiler, and under fsdp2, training goes
    on without it, with a warning. A step whose loss or gradient is not a finite number changes nothing and is recorded
    with its rows; more than `max_skipped_steps` of them in a run end it with a diagnosis.

    The newest `keep_checkpoints` stay and, where `data.selection_per_task` holds rows out for it, the best: that whose
    worst task scores highest on them (`select_by: worst`), or whose mean over tasks does (`macro`); `last` measures
    none. `export: best` makes it the result, the last weights being a candidate too. `export_merged` also writes the
    base model with the adapter merged into it.

    Checkpoints go to `output.storage` in the background. While it fails training goes on; after
    `max_undurable_checkpoints` of them in a row without a durable one the run stops (null: never). A start waits up to
    `storage_patience_s` for storage to be read, and an end for the last checkpoint to be stored.

    Attributes:
        checkpoint_at: Steps, each an interval boundary, whose checkpoint is taken and kept whatever the two settings
            above say; places to fork from later.
        stop_after: End the run at this interval boundary, with a checkpoint, while learning rate and guards still
            follow `steps`; null: train all of them.
    """

    steps: int = Field(default=1000, ge=1)
    global_batch_size: int = Field(default=32, ge=1)
    micro_batch_size: int = Field(default=16, ge=1)
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    packing: Literal["auto", "on", "off"] = "auto"
    compile: bool = False
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup_steps: int = Field(default=20, ge=0)
    final_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    adam_betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_skipped_steps: int = Field(default=3, ge=0)
    checkpoint_every_intervals: int = Field(default=5, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    checkpoint_at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    stop_after: int | None = Field(default=None, ge=1)
    select_by: SelectionRule = "worst"
    export: Literal["last", "best"] = "last"
    export_merged: bool = False
    max_undurable_checkpoints: int | None = Field(default=10, ge=2)
    storage_patience_s: float = Field(default=120.0, ge=0)
    influence: InfluenceConfig | None = Field(
        default=InfluenceConfig(), description="how each task's influence on the model is measured; null: not at all"
    )

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> "TrainConfig":
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of "
                f"micro_batch_size {self.micro_batch_size}"
            )
        return self

    @property
    def last_step(self) -> int:
        """Where the run ends: `stop_after` or `steps`."""
        return self.steps if self.stop_after is None else min(self.steps, self.stop_after)
