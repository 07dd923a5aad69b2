"""A real run inside this process: the real worker loop, stream, engine, ledger and evaluator, called one after another.

    boundary s   the plan decided on the evaluation at s − interval comes into force (`lag1`, as in a run by default)
                 the snapshot is judged on the probes, the engine decides; then on the selection rows, for the curve
    the end      the selection rows and, once, the test rows; never those of random labels

A run of one worker that differs from `taskheat run` in nothing but who carries the messages: no Ray, no second process,
no checkpoints, and no evaluation of the last snapshot on the probes, on which nothing would be decided any more. With a
`script` of weights there is no engine and no probe is read.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from bench.policies.compute import Meter
from bench.policies.shadows import Shadows, decided_by
from bench.policies.trace import Array, Mask, Trace
from cluster.config import RunConfig
from cluster.setup import Inputs
from evalsvc.cost import FORWARD
from evalsvc.evaluator import Evaluator, make_evaluator
from evalsvc.probes import Probe, read_probes
from scheduler.engine import HeatEngine
from scheduler.exposure import stage_exposure
from scheduler.keeper import HeatKeeper
from scheduler.ledger import LEDGER_FILE
from scheduler.plan import MixturePlan
from scheduler.selection import Ranked, SelectionRule
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport
from train.checkpoint_storage import storage_at
from train.coordination import PlanAnswer
from train.data.store import TokenStore
from train.loop import Worker
from train.model import build_model, load_snapshot
from train.stream.batch import add_hashes, slots_hash
from train.stream.opening import open_stream
from train.worker_job import WorkerJob

_NO_CHECKPOINTS = 1_000_000


def play(
    config: RunConfig,
    inputs: Inputs,
    *,
    random_tasks: tuple[str, ...],
    script: Sequence[Array] | None = None,
    shadows: Mapping[str, EngineSetup] | None = None,
) -> Trace:
    """One run from start to end; equal arguments give equal traces but for the clock.

    Args:
        config: A run of one stage in mode `lag1`.
        inputs: Of this configuration.
        random_tasks: Tasks with random labels.
        script: Weights [K] of each interval, the last for all that follow; None: the engine decides.
        shadows: Other arms' engines, by name, whose settings differ in what the engine alone reads; those that decide
            the same all along are named in the trace.
    """
    started_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        shadowing = Shadows(shadows or {}, Path(folder) / "shadows")
        outside = _Outside(config, inputs, Path(folder) / LEDGER_FILE, script, random_tasks, shadowing)
        worker = Worker(_job(config, inputs, Path(folder), outside))
        outside.training = Meter(worker.model)
        worker.run()
    return outside.trace(cpu_s=time.process_time() - started_s)


def _job(config: RunConfig, inputs: Inputs, folder: Path, outside: "_Outside") -> WorkerJob:
    training = config.stages[0].training(config.train)
    storage_at(folder / "checkpoints").make()
    return WorkerJob(
        setup=inputs.engine,
        model=config.model,
        train=config.train.model_copy(update={"checkpoint_every_intervals": _NO_CHECKPOINTS}),
        stages=(training, training),
        initial_plan=outside.plan,
        store=inputs.prepared.store_path,
        tokenizer=inputs.prepared.tokenizer_path,
        export_to=folder / "result",
        checkpoints=str(folder / "checkpoints"),
        staging=folder / "staging",
        journal=folder / "checkpoints.jsonl",
        has_selection_rows=False,
        coordinator=outside,
    )


@dataclass
class _Outside:
    """All that a worker talks to, in its own process: factory and `train.coordination.Coordinator` in one."""

    config: RunConfig
    inputs: Inputs
    ledger: Path
    script: Sequence[Array] | None
    random_tasks: tuple[str, ...]
    shadows: Shadows
    training: Meter | None = None
    steps: list[int] = field(default_factory=list)
    weights: list[tuple[float, ...]] = field(default_factory=list)
    given_up: list[Mask] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs, config = self.inputs, self.config
        tokenizer = inputs.prepared.tokenizer
        store = TokenStore.open(inputs.prepared.store_path)
        self.keeper = HeatKeeper.open(self.ledger, inputs.engine) if self.script is None else None
        self.plan = HeatEngine(inputs.engine).plan if self.script is None else _scripted(self.script, inputs.engine, 0)
        self.model: Any = build_model(config.model, tokenizer, device=torch.device("cpu"), seed=config.seed)
        self.probing = Meter(self.model)
        self.evaluator: Evaluator = make_evaluator(
            tokenizer, store, tasks=inputs.tasks, config=config.evaluation, seed=config.seed
        )
        num_tasks = len(inputs.tasks)
        self.selection = self._scored(read_probes(store, num_tasks=num_tasks, split="selection"))
        self.test = self._scored(read_probes(store, num_tasks=num_tasks, split="test"))

    def _scored(self, rows: Sequence[tuple[Probe, ...]]) -> list[tuple[Probe, ...]]:
        """Without the rows of random labels, which no score counts."""
        return [
            () if task.name in self.random_tasks else own for task, own in zip(self.inputs.tasks, rows, strict=True)
        ]

    def open(self) -> "_Outside":
        return self

    def begin(self, step: int, engine_state: dict[str, Any] | None, refused: tuple[str, ...]) -> int:
        if self.keeper is None:
            return 0
        self.shadows.require_decided(decided_by(self.keeper))
        self.shadows.tell(lambda keeper: keeper.begin_attempt("only", step))
        return self.keeper.begin_attempt("only", step, engine_state, refused)

    def plan_for(self, step: int) -> PlanAnswer:
        if self.keeper is not None:
            plan = self.keeper.ready_plan(step)
            assert plan is not None, f"no decision before step {step}"
            self.plan = plan
        elif self.script is not None:
            self.plan = _scripted(self.script, self.inputs.engine, step)
        return PlanAnswer(plan=self.plan, stop=False)

    def settle(self) -> None:
        """A snapshot is evaluated as soon as it is handed over."""

    def ranking(self, rule: SelectionRule) -> list[Ranked]:
        """Nothing is chosen by the selection set here: the bench reads it itself."""
        del rule
        return []

    def note_export(self, step: int, why: str) -> None:
        """The result of a run on the bench is its curve."""
        del step, why

    def note_storage(self, step: int, text: str) -> None:
        """No checkpoint is taken."""
        del step, text

    def publish(
        self,
        *,
        step: int,
        attempt: int,
        plan_version: int,
        weights: Mapping[str, torch.Tensor],
        for_selection: bool = False,
    ) -> None:
        del for_selection
        load_snapshot(self.model, weights)
        self.model.eval()
        self.steps.append(step)
        if step < self.config.train.steps:
            self.weights.append(self.plan.weights)
            if self.keeper is not None:
                self._decide(self.keeper, step=step, attempt=attempt, plan_version=plan_version)
        if step == 0:
            return  # all arms begin with the same weights
        self.probing.paused = True
        selection = self._judge("selection", self.selection)
        if step == self.config.train.steps:
            self._judge("test", self.test)
        self.probing.paused = False
        self.curve.append((self.train_units + self.probe_units, selection))

    def _decide(self, keeper: HeatKeeper, *, step: int, attempt: int, plan_version: int) -> None:
        probes = keeper.probes_for(step)
        self.shadows.require_probes(step, probes)
        for signal in self.evaluator.evaluate(
            self.model, probes, step=step, attempt=attempt, plan_version=plan_version
        ):
            keeper.observe(signal)
            self.shadows.tell(lambda other, told=signal: other.observe(told))
        keeper.evaluation_done(attempt, step)
        self.shadows.tell(lambda other: other.evaluation_done(attempt, step))
        self.shadows.require_decided(decided_by(keeper))
        self.given_up.append(keeper.memory.engine.heat.learnability.given_up)

    def _judge(self, split: str, rows: Sequence[Sequence[Probe]]) -> float:
        """Score the snapshot, remember it by task; the mean over tasks."""
        self.scores[split] = self.evaluator.scores(self.model, rows)
        return fmean(self.scores[split].values())

    def report_served(self, report: IntervalReport) -> None:
        if self.keeper is not None:
            self.keeper.observe_served(report)
            self.shadows.tell(lambda keeper: keeper.observe_served(report))

    def report(self, report: IntervalReport) -> None:
        if self.keeper is not None:
            self.keeper.observe_interval(report)
            self.shadows.tell(lambda keeper: keeper.observe_interval(report))

    def checkpoint(self, step: int) -> dict[str, Any]:
        raise NotImplementedError(f"a run inside one process writes no checkpoints, and was asked for one at {step}")

    def pulse(self, *, step: int, loss: float, samples_per_s: float) -> None:
        """Nobody watches."""

    def finish(self, *, step: int, reason: str) -> None:
        if self.keeper is not None:
            self.keeper.end(step, reason)

    @property
    def train_units(self) -> float:
        return float(self.training.tokens) if self.training is not None else 0.0

    @property
    def probe_units(self) -> float:
        return self.probing.tokens * FORWARD

    def trace(self, *, cpu_s: float) -> Trace:
        setup = self.inputs.engine
        return Trace(
            tasks=tuple(task.name for task in self.inputs.tasks),
            random_tasks=self.random_tasks,
            num_steps=np.diff(self.steps).tolist(),
            weights=np.array(self.weights),
            given_up=np.array(self.given_up) if self.given_up else None,
            floor=None if self.keeper is None else floor_of(setup),
            curve=self.curve,
            train_units=self.train_units,
            probe_units=self.probe_units,
            selection=self.scores["selection"],
            test=self.scores["test"],
            cpu_s=cpu_s,
            alike=self.shadows.names,
        )


def rows_served(script: Sequence[Array], setup: EngineSetup) -> int:
    """63-bit hash of which row is in which slot of which step under a script: equal hashes, equal runs."""
    stream = open_stream(setup)
    found = 0
    for step in range(setup.total_steps):
        if step % setup.interval_steps == 0:
            stream.follow(_scripted(script, setup, step))
        batch = stream.next_batch()
        slots = np.arange(len(batch.tasks))
        found = add_hashes(found, slots_hash(batch.step, slots, batch.tasks, batch.rows, batch.arrangements))
    return found


def floor_of(setup: EngineSetup) -> float:
    """Least weight of a task under the run's guards."""
    return setup.mixture.guards.floor_ratio / len(setup.tasks)


def _scripted(script: Sequence[Array], setup: EngineSetup, step: int) -> MixturePlan:
    """The plan of the interval that begins at `step`."""
    place = step // setup.interval_steps
    return MixturePlan(
        version=place,
        source_step=step - 1,
        effective_from_step=step,
        stage=1,
        stage_start_step=0,
        weights=tuple(script[min(place, len(script) - 1)].tolist()),
        **stage_exposure(setup, stage=1)._asdict(),
    )
