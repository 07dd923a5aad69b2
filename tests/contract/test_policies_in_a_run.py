"""What every policy promises while it drives an engine: sound plans, a memory that comes back, reasons in words."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scheduler.arrays import packed
from scheduler.engine import HeatEngine
from scheduler.errors import ConfigError, StateError
from scheduler.keeper import HeatKeeper, replay
from scheduler.ledger import read_ledger
from scheduler.plan import MixturePlan
from scheduler.policy_config import AioliPolicy, HeatPolicy
from scheduler.records import DecisionRecord, Record
from scheduler.signals import TaskGradient
from tests.contract.test_policies import every_policy, run_setup
from tests.unit.scheduler.made import evaluate, report, signal


@every_policy
@pytest.mark.parametrize("num_tasks", [1, 2, 500])
def test_every_policy_drives_an_engine_of_any_size(policy: Any, num_tasks: int) -> None:
    if isinstance(policy, AioliPolicy) and num_tasks > policy.max_tasks:
        with pytest.raises(ConfigError, match="500 tasks have 250000 effects"):
            HeatEngine(run_setup(num_tasks, policy=policy))
        return
    engine = HeatEngine(run_setup(num_tasks, policy=policy))
    for step in (0, 25, 50):
        fields = {f"t{index}": {"score": (index * 7 + step) % 11 / 10} for index in range(min(num_tasks, 100))}
        evaluate(engine, step, fields)
        weights = np.array(engine.plan.weights)
        assert abs(weights.sum() - 1) <= 1e-12
        assert np.all((weights >= engine.guards.floor) & (weights <= engine.guards.ceiling))


def gradients(names: list[str], step: int) -> tuple[TaskGradient, ...]:
    """Two of the tasks, in turn, as the workers measure them."""
    turn = step // 25
    return tuple(
        TaskGradient(task=name, step=step, num_rows=8, norm=1.0 + index, variance=2.0 + turn, cosine=0.1 * index - 0.1)
        for index, name in enumerate(names)
        if (index + turn) % 2
    )


def drive(keeper: HeatKeeper, steps: range) -> None:
    """Evaluate, decide and train: scores and losses of their own for every task, one task missing now and then."""
    names, attempt = list(keeper.memory.engine.index_of), keeper.memory.attempt
    for step in steps:
        for index, name in enumerate(names):
            if (step // 25 + index) % 5:
                score = min(1.0, 0.1 * index + step / 400)
                loss = (1 + index) * (1.2 - score)
                keeper.observe(signal(name, step=step, attempt=attempt, score=score, loss=loss))
        keeper.evaluation_done(attempt, step)
        after, version = step + 25, keeper.memory.engine.plan.version
        served = [4 * after + index * after for index in range(len(names))]
        boundary = report(served, step=after, attempt=attempt, plan_version=version)
        losses = tuple(2.0 / (1 + index + after / 50) if (after + index) % 3 else None for index in range(len(names)))
        keeper.observe_interval(dataclasses.replace(boundary, train_loss=losses, gradients=gradients(names, after)))


@every_policy
def test_a_rollback_restores_what_a_policy_remembers_and_a_replay_gives_every_plan_again(
    policy: Any, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.jsonl"
    keeper = HeatKeeper.open(path, run_setup(4, policy=policy, total_steps=400))
    keeper.begin_attempt("first", 0)
    drive(keeper, range(0, 150, 25))
    state = json.loads(json.dumps(keeper.checkpoint(150)))
    drive(keeper, range(150, 250, 25))
    plans = decided_plans(list(read_ledger(path)), since=150)
    keeper.begin_attempt("second", 150)
    assert json.loads(json.dumps(keeper.memory.engine.state_dict())) == state
    lines = len(keeper.lines)
    drive(keeper, range(150, 250, 25))
    assert decided_plans(list(read_ledger(path))[lines:], since=150) == plans
    assert replay(read_ledger(path)).engine.state_dict() == keeper.memory.engine.state_dict()


def decided_plans(records: list[Record], *, since: int) -> list[MixturePlan]:
    plans = [record.plan for record in records if isinstance(record, DecisionRecord)]
    return [plan for plan in plans if plan.source_step >= since]


@every_policy
def test_a_state_of_another_policy_is_refused(policy: Any) -> None:
    engine = HeatEngine(run_setup(4, policy=policy))
    state = engine.state_dict()
    with pytest.raises(StateError, match="policy state has the keys"):
        engine.load_state_dict({**state, "policy": {**state["policy"], "more": packed(np.zeros(4))}})
    for name, wrong in ((name, wrong) for name in state["policy"] for wrong in (packed(np.zeros(999)), [0.0] * 4)):
        with pytest.raises(StateError, match=f"policy.{name} is no array of the shape"):
            engine.load_state_dict({**state, "policy": {**state["policy"], name: wrong}})


@every_policy
def test_a_policy_names_the_statistic_that_moved_each_weight(policy: Any) -> None:
    engine = HeatEngine(run_setup(4, policy=policy, num_rows=(10, 100, 1000, 10000)))
    for step in range(0, 200, 25):
        fields = {
            f"t{index}": {"score": 0.05 * index + step / 500, "loss": 2.0 / (1 + index + step)} for index in range(4)
        }
        for name, own in fields.items():
            engine.observe(signal(name, step=step, **own))
        decision, _ = engine.decide(step)
        served = [4 * step + 10 * index * index * step // 25 for index in range(4)]
        boundary = dataclasses.replace(report(served, step=step), train_loss=(1.0 / (1 + step),) * 4)
        engine.observe_interval(dataclasses.replace(boundary, gradients=gradients(list(engine.index_of), step)))
        for task in decision.tasks:
            assert isinstance(policy, HeatPolicy | AioliPolicy) or task.driver or decision.held
        assert decision.held is None or step == 0
        for sentence in decision.sentences:
            assert sentence.endswith(".")
            assert "nan" not in sentence
