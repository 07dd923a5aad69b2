"""A whole run in this process: the real worker loop, engine, ledger and evaluation, called one after the other."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from ray.train.v2._internal.execution.train_fn_utils import LocalTrainFnUtils, set_train_fn_utils

from cluster.config import RunConfig
from cluster.setup import Inputs, gather_inputs
from evalsvc.evaluator import make_evaluator
from evalsvc.probes import read_probes
from scheduler.engine import HeatEngine
from scheduler.keeper import HeatKeeper
from scheduler.ledger import LEDGER_FILE
from scheduler.selection import Ranked, SelectionRule
from scheduler.signals import IntervalReport
from tests.tiny_tasks import write_tasks
from train.checkpoint_store import CheckpointStore
from train.coordination import PlanAnswer
from train.data.store import TokenStore
from train.loop import Worker
from train.model import build_model, load_snapshot
from train.worker_job import WorkerJob, WorkerResult

INTERVAL, STEPS, SEED = 3, 14, 0


class CrashError(Exception):
    """The worker dies here."""


@dataclass(frozen=True, slots=True)
class Disturbances:
    """What goes wrong, or is asked for, at which boundary.

    `stop_at`: a request to stop has come. `crash_at`: the worker dies before it gets its plan. `unreachable_at`: the
    engine does not answer. `late_at`: the evaluation of this step's snapshot is done only after the next boundary.
    """

    stop_at: int | None = None
    crash_at: int | None = None
    unreachable_at: int | None = None
    late_at: int | None = None


@dataclass(frozen=True, slots=True)
class LocalRun:
    """The inputs of a run and where it is kept; `start` it as often as it takes."""

    config: RunConfig
    inputs: Inputs
    folder: Path

    @property
    def ledger(self) -> Path:
        return self.folder / LEDGER_FILE

    @property
    def weights(self) -> bytes:
        return (self.folder / "result" / "model.safetensors").read_bytes()

    @property
    def checkpoints(self) -> list[int]:
        return self.store.steps()

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(self.checkpoint_folder, keep=self.config.train.keep_checkpoints)

    @property
    def checkpoint_folder(self) -> Path:
        return self.folder / "checkpoints"

    def start(self, disturbances: Disturbances | None = None, *, trains: tuple[int, ...] = (1, 2)) -> WorkerResult:
        """One worker group for these stages: from the last checkpoint, if there is one, until it ends."""
        set_train_fn_utils(LocalTrainFnUtils(experiment_name="local"))
        try:
            return Worker(replace(self.job(disturbances or Disturbances()), trains=trains)).run()
        finally:
            set_train_fn_utils(None)

    def job(self, disturbances: Disturbances) -> WorkerJob:
        config, prepared = self.config, self.inputs.prepared
        self.store.storage.make()
        return WorkerJob(
            setup=self.inputs.engine,
            model=config.model,
            train=config.train,
            stages=(config.stages[0].training(config.train), config.stages[-1].training(config.train)),
            initial_plan=HeatEngine(self.inputs.engine).plan,
            store=prepared.store_path,
            tokenizer=prepared.tokenizer_path,
            export_to=self.folder / "result",
            checkpoints=str(self.checkpoint_folder),
            staging=self.folder / "staging",
            journal=self.folder / "checkpoints.jsonl",
            has_selection_rows=any(prepared.num_rows["selection"]),
            coordinator=_Factory(self, disturbances),
        )


def local_run(folder: Path, name: str, data: list[Path], /, **settings: Any) -> LocalRun:
    """Two stages, fourteen steps, an evaluation every three; `settings` are laid over sections of the config."""
    sections: dict[str, Any] = {
        "model": {"type": "tiny", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300},
        "data": {"sources": [str(path) for path in data], "probes_per_task": 4, "test_per_task": 4},
        "train": {
            "steps": STEPS,
            "global_batch_size": 6,
            "micro_batch_size": 3,
            "learning_rate": 0.02,
            "warmup_steps": 2,
            "checkpoint_every_intervals": 2,
        },
        "mixture": {"interval_steps": INTERVAL},
        "evaluation": {"max_new_tokens": 4, "sampled_probes": 2, "samples_per_probe": 2},
        "output": {"dir": str(folder)},
    }
    sections["stages"] = [
        {"name": "first", "until": {"type": "step", "step": 2 * INTERVAL}},
        {"name": "last", "learning_rate": 0.01},
    ]
    config = RunConfig.model_validate(
        {**sections, **{key: _laid_over(sections.get(key), values) for key, values in settings.items()}, "seed": SEED}
    )
    return LocalRun(config=config, inputs=gather_inputs(config), folder=folder / name)


def _laid_over(section: Any, values: Any) -> Any:
    return {**section, **values} if isinstance(section, dict) and isinstance(values, Mapping) else values


def small_tasks(folder: Path) -> list[Path]:
    return write_tasks(folder, num_rows=40)


@dataclass(frozen=True, slots=True)
class _Factory:
    run: LocalRun
    disturbances: Disturbances

    def open(self) -> "_Coordinator":
        return _Coordinator(self.run, self.disturbances)


@dataclass
class _Coordinator:
    """`train.coordination.Coordinator` without processes: a snapshot is evaluated as soon as it is published."""

    run: LocalRun
    disturbances: Disturbances
    waiting: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        inputs, config = self.run.inputs, self.run.config
        tokenizer = inputs.prepared.tokenizer
        self.keeper = HeatKeeper.open(self.run.ledger, inputs.engine)
        self.model: Any = build_model(config.model, tokenizer, device=torch.device("cpu"), seed=config.seed)
        self.store = TokenStore.open(inputs.prepared.store_path)
        self.evaluator = make_evaluator(
            tokenizer, self.store, tasks=inputs.tasks, config=config.evaluation, seed=config.seed
        )

    def begin(self, step: int, engine_state: dict[str, Any] | None, refused: tuple[str, ...]) -> int:
        return self.keeper.begin_attempt(uuid.uuid4().hex, step, engine_state, refused)

    def plan_for(self, step: int) -> PlanAnswer | None:
        if step == self.disturbances.crash_at:
            raise CrashError
        if step == self.disturbances.unreachable_at:
            return None
        plan = self.keeper.ready_plan(step) or self.keeper.keep_late_plan(step)
        roll_back_to = self.keeper.rollback_for(step)
        return PlanAnswer(plan=plan, stop=step == self.disturbances.stop_at, roll_back_to=roll_back_to)

    def publish(self, **snapshot: Any) -> None:
        self.waiting.append(snapshot)
        if snapshot["step"] != self.disturbances.late_at:
            self._evaluate()

    def report_served(self, report: IntervalReport) -> None:
        self.keeper.observe_served(report)

    def report(self, report: IntervalReport) -> None:
        self.keeper.observe_interval(report)

    def checkpoint(self, step: int) -> dict[str, Any]:
        return self.keeper.checkpoint(step)

    def settle(self) -> None:
        self._evaluate()

    def ranking(self, rule: SelectionRule) -> list[Ranked]:
        return self.keeper.ranking(rule)

    def note_export(self, step: int, why: str) -> None:
        self.keeper.note_export(step, why)

    def note_storage(self, step: int, text: str) -> None:
        self.keeper.note_storage(step, text)

    def pulse(self, *, step: int, loss: float, samples_per_s: float) -> None:
        assert 0 < step <= self.run.config.train.steps
        assert loss > 0
        assert samples_per_s > 0

    def finish(self, *, step: int, reason: str) -> None:
        self._evaluate()
        self.keeper.end(step, reason)

    def _evaluate(self) -> None:
        for snapshot in self.waiting:
            load_snapshot(self.model, snapshot.pop("weights"))
            for_selection = snapshot.pop("for_selection")
            for signal in self.evaluator.evaluate(self.model.eval(), **snapshot):
                self.keeper.observe(signal)
            if for_selection:
                rows = read_probes(self.store, num_tasks=len(self.run.inputs.tasks), split="selection")
                scores = self.evaluator.scores(self.model, rows)
                self.keeper.observe_selection(snapshot["attempt"], snapshot["step"], scores)
            self.keeper.evaluation_done(snapshot["attempt"], snapshot["step"])
        self.waiting.clear()
