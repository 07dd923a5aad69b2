"""Small setups, signals and drives of the engine, for the tests of the decision."""

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.engine import HeatEngine
from scheduler.evaluation import Evaluation
from scheduler.records import DecisionRecord
from scheduler.setup import EngineSetup, HeatPolicy, MixtureConfig, Policy, StageGuards
from scheduler.signals import IntervalReport, TaskSignal
from scheduler.task import TaskSpec

INTERVAL = 25


def setup(
    names: Sequence[str] = ("a", "b", "c"),
    *,
    cards: Mapping[str, Mapping[str, Any]] | None = None,
    num_rows: Sequence[int] | None = None,
    total_steps: int = 1000,
    batch_size: int = 16,
    boundary: Any = None,
    policies: tuple[Policy, Policy] = (HeatPolicy(), HeatPolicy()),
    stage_guards: Any = ({}, {}),
    **mixture: Any,
) -> EngineSetup:
    return EngineSetup(
        tasks=tuple(TaskSpec.model_validate({"name": name, **(cards or {}).get(name, {})}) for name in names),
        num_rows=tuple(num_rows or [1000] * len(names)),
        seed=0,
        total_steps=total_steps,
        global_batch_size=batch_size,
        mixture=MixtureConfig.model_validate({"interval_steps": INTERVAL, **mixture}),
        boundary=boundary,
        stage_policies=policies,
        stage_guards=tuple(map(StageGuards.model_validate, stage_guards)),
    )


def signal(task: str = "a", *, step: int = 0, **fields: Any) -> TaskSignal:
    """A task half solved, steady and well formed; `fields` say what is different."""
    usual = {
        "attempt": 0,
        "plan_version": 0,
        "num_probes": 64,
        "score": 0.5,
        "loss": 1.0,
        "score_variance": 0.0,
        "num_rejected": 0,
        "num_reviewed": 16,
        "format_compliance": 1.0,
    }
    usual |= fields
    usual.setdefault("sampled_score", usual["score"])
    return TaskSignal(task=task, step=step, **usual)


def evaluation(*signals: TaskSignal | None) -> Evaluation:
    """Signals of task 0, 1, …; None for a task that was not measured."""
    num_levels = max(3, *(len(one.level_probes) for one in signals if one is not None), 0)
    made = Evaluation(len(signals), num_levels)
    for index, one in enumerate(signals):
        if one is not None:
            made.add(index, one)
    return made


def report(served: Sequence[int], *, step: int, attempt: int = 0, plan_version: int = 0) -> IntervalReport:
    return IntervalReport(
        attempt=attempt,
        step=step,
        plan_version=plan_version,
        num_samples=tuple(served),
        num_tokens=tuple(4 * count for count in served),
        train_loss=(None,) * len(served),
        sequence_hash=step,
    )


def evaluate(engine: HeatEngine, step: int, fields: Mapping[str, Mapping[str, Any]]) -> DecisionRecord:
    """One evaluation at `step` of the tasks named, with these fields, and the decision on it."""
    for task, own in fields.items():
        assert engine.observe(signal(task, step=step, **own)) is None
    return engine.decide(step)[0]
