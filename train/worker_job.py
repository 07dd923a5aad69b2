"""What a training worker is given, and what it gives back."""

from dataclasses import dataclass
from pathlib import Path

from scheduler.plan import MixturePlan
from scheduler.setup import EngineSetup
from train.config import ModelConfig, Parallelism, TrainConfig
from train.coordination import CoordinatorFactory
from train.schedule import StageTraining


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """All a worker needs; paths must be readable from every node.

    `setup` is the engine's own, `initial_plan` the plan in force before the first decision; `stages` has the settings
    of stage 1 and 2. `checkpoints` is the folder or URL of the run's checkpoints, `staging` a folder on each node's own
    disk that no other run has (a relative one lies in the node's folder of temporary files), `journal` the file that
    says when each checkpoint was durable. `trains` are the stages that this group of workers trains: where the plan in
    force is of another, it ends with a checkpoint, handed over.
    """

    setup: EngineSetup
    model: ModelConfig
    train: TrainConfig
    stages: tuple[StageTraining, StageTraining]
    initial_plan: MixturePlan
    store: Path
    tokenizer: Path
    export_to: Path
    checkpoints: str
    staging: Path
    journal: Path
    has_selection_rows: bool
    coordinator: CoordinatorFactory
    parallelism: Parallelism = "ddp"
    trains: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """How the loop ended, from rank 0: `finished`, `stopped`, `storage_lost` or `failed` at `step`; `handed_over` or
    `rolled_back` where another group is to go on, with the next stage or from a checkpoint before.

    `stage` is that of the plan in force there; a group that was handed over to goes on with it.
    `train_s` and `plan_wait_s` are the seconds it trained and waited for plans. `storage_problem` says what is not
    durable and why, or is empty. `diagnosis` says why it failed: what would happen again, so that starting the workers
    anew is no remedy.
    """

    step: int
    reason: str
    num_workers: int
    train_s: float
    plan_wait_s: float
    stage: int = 1
    diagnosis: str = ""
    storage_problem: str = ""
