"""A small run played through the real engine and keeper: four tasks, a late plan, a restart, a change of stage."""

import tempfile
from pathlib import Path

from evalsvc.report.model import RowCounts, RunFacts
from scheduler.keeper import HeatKeeper
from scheduler.plan import MixturePlan
from scheduler.records import Record, from_json
from scheduler.setup import EngineSetup, HeatPolicy, MixtureConfig, StepBoundary
from scheduler.signals import IntervalReport, TaskSignal
from scheduler.task import TaskSpec

TASKS = ("lcr", "qa", "style", "safety")
INTERVAL, TOTAL, BATCH = 25, 150, 16
CHECKPOINT_STEP, CRASH_STEP, LATE_STEP, STAGE_STEP = 50, 100, 125, 100

FACTS = RunFacts(
    run_name="demo <1>",
    model="tiny llama, 2 layers of 64",
    num_workers=2,
    wall_seconds={"prepare": 3.5, "train": 125.0},
    test_scores={"lcr": 0.55, "qa": 0.81},
    rows={name: RowCounts(train=1000, probe=32, test=16) for name in TASKS},
)


def setup() -> EngineSetup:
    tiers = {"lcr": "long_tail", "qa": "core", "style": "standard", "safety": "core"}
    specs = [{"name": name, "tier": tiers[name], "kind": "logic" if name == "lcr" else "general"} for name in TASKS]
    return EngineSetup(
        tasks=tuple(TaskSpec.model_validate(spec) for spec in specs),
        num_rows=(200, 1000, 600, 400),
        seed=7,
        total_steps=TOTAL,
        global_batch_size=BATCH,
        mixture=MixtureConfig(interval_steps=INTERVAL),
        boundary=StepBoundary(step=STAGE_STEP),
        stage_policies=(HeatPolicy(strength=1.0), HeatPolicy()),
    )


def signal(task: str, *, attempt: int, step: int, version: int) -> TaskSignal:
    """A measurement that improves with the step, differs between tasks and (slightly) between attempts."""
    index = TASKS.index(task)
    score = min(0.95, 0.05 + 0.1 * index + step / 200 * (0.4 + 0.2 * index)) + 0.01 * attempt
    return TaskSignal(
        task=task,
        attempt=attempt,
        step=step,
        plan_version=version,
        num_probes=32,
        score=score,
        loss=2.5 - 1.5 * score,
        sampled_score=score,
        score_variance=0.04,
        num_rejected=3 - index,
        num_reviewed=24,
        format_compliance=0.9,
    )


class Workers:
    """Serves samples by greatest deficit, as the stream does, and reports boundaries."""

    def __init__(self, keeper: HeatKeeper, attempt: int) -> None:
        self.keeper, self.attempt = keeper, attempt
        self.counts = [0] * len(TASKS)
        self.owed = [0.0] * len(TASKS)

    def train(self, plan: MixturePlan) -> None:
        for _ in range(INTERVAL * BATCH):
            self.owed = [owed + weight for owed, weight in zip(self.owed, plan.weights, strict=True)]
            hungriest = max(range(len(TASKS)), key=lambda index: self.owed[index] - self.counts[index])
            self.counts[hungriest] += 1

    def report(self, step: int, version: int) -> None:
        loss = (None, None, None, None) if step == 0 else tuple(2.0 / (1 + step / 50) + 0.1 * i for i in range(4))
        self.keeper.observe_interval(
            IntervalReport(
                attempt=self.attempt,
                step=step,
                plan_version=version,
                num_samples=tuple(self.counts),
                num_tokens=tuple(4 * count for count in self.counts),
                train_loss=loss,
                sequence_hash=step,
            )
        )


def simulated_records() -> list[Record]:
    """Attempt 0 trains to `CRASH_STEP` and dies; attempt 1 resumes from `CHECKPOINT_STEP` and ends the run."""
    with tempfile.TemporaryDirectory() as directory:
        keeper = HeatKeeper.open(Path(directory) / "ledger.jsonl", setup())
        checkpoint = _train(keeper, start=0, stop=CRASH_STEP, counts=None)
        keeper.note_restart("evaluator", "killed by signal 9")
        _train(keeper, start=CHECKPOINT_STEP, stop=TOTAL, counts=checkpoint)
        keeper.end(TOTAL, "finished")
        return [from_json(line) for line in keeper.lines]


def _train(
    keeper: HeatKeeper, *, start: int, stop: int, counts: tuple[list[int], list[float]] | None
) -> tuple[list[int], list[float]]:
    attempt = keeper.begin_attempt(f"start at {start}", start)
    workers = Workers(keeper, attempt)
    if counts is not None:
        workers.counts, workers.owed = list(counts[0]), list(counts[1])
    saved = (list(workers.counts), list(workers.owed))
    for step in range(start, stop + 1, INTERVAL):
        late = step == LATE_STEP
        plan = keeper.keep_late_plan(step) if late else keeper.memory.plan_in_force(step)
        workers.report(step, plan.version)
        if late:
            _evaluate(keeper, attempt, step - INTERVAL)
        if step == CHECKPOINT_STEP and attempt == 0:
            keeper.checkpoint(step)
            saved = (list(workers.counts), list(workers.owed))
        if step + INTERVAL != LATE_STEP:
            _evaluate(keeper, attempt, step)
        if step < stop:
            workers.train(plan)
    return saved


def _evaluate(keeper: HeatKeeper, attempt: int, step: int) -> None:
    for name in TASKS:
        keeper.observe(signal(name, attempt=attempt, step=step, version=keeper.memory.engine.plan.version))
    if step == 75:
        keeper.observe(signal("qa", attempt=attempt - 1, step=step, version=0))
    keeper.evaluation_done(attempt, step)
