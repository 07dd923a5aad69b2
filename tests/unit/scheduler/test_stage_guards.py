"""Guards that change with the stage or with a fork: which hold when, and how the weights come to be within them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from scheduler.engine import HeatEngine
from scheduler.explain import BROUGHT_WITHIN_BOUNDS
from scheduler.records import DecisionRecord
from scheduler.setup import EngineSetup, GuardConfig, StageGuards, StaticPolicy
from tests.unit.scheduler.made import INTERVAL, evaluate, setup

SKEWED = {"a": {"base_weight": 0.6}, "b": {"base_weight": 0.3}, "c": {"base_weight": 0.1}}
STATIC = (StaticPolicy(), StaticPolicy())
FINE, WORSE = {"score": 0.5, "loss": 1.0}, {"score": 0.4, "loss": 2.0}


def two_stages(*stage_guards: Any, policies: Any = STATIC, **mixture: Any) -> EngineSetup:
    boundary = {"type": "step", "step": 4 * INTERVAL}
    return setup(cards=SKEWED, boundary=boundary, policies=policies, stage_guards=stage_guards, **mixture)


def course(engine: HeatEngine, count: int, *, first: int = 0, **signals: Any) -> list[DecisionRecord]:
    steps = range(first * INTERVAL, (first + count) * INTERVAL, INTERVAL)
    return [evaluate(engine, step, {task: signals.get(task, FINE) for task in "abc"}) for step in steps]


def test_a_stage_has_the_runs_guards_but_for_its_own() -> None:
    run = GuardConfig(floor_ratio=0.1, ceiling=0.5)
    assert StageGuards(ceiling=0.7, hold_core=False).over(run) == GuardConfig(
        floor_ratio=0.1, ceiling=0.7, hold_core=False
    )
    assert StageGuards().over(run) == run


def test_floor_and_ceiling_of_a_stage_hold_from_its_first_plan_on_as_near_to_the_old_weights_as_can_be() -> None:
    engine = HeatEngine(two_stages({}, {"floor_ratio": 0.6, "ceiling": 0.45, "max_change": 0.01}))
    decisions = course(engine, 8)
    first = next(index for index, decision in enumerate(decisions) if decision.plan.stage == 2)
    before, begins = decisions[first - 1].plan.weights, decisions[first].plan.weights
    assert before == pytest.approx([0.6, 0.3, 0.1])
    assert begins == pytest.approx([0.45, 0.35, 0.2])
    assert [BROUGHT_WITHIN_BOUNDS in decision.sentences for decision in decisions] == [
        index == first for index in range(len(decisions))
    ]


def test_the_step_limit_of_a_stage_bounds_its_plans_and_only_its() -> None:
    prior = {"type": "uniform"}
    policies = ({"type": "static"}, {"type": "heat", "strength": 20.0})
    engine = HeatEngine(two_stages({"max_change": 0.2}, {"max_change": 0.03}, policies=policies, prior=prior))
    decisions = course(engine, 10, b={"score": 0.0, "loss": 3.0})
    plans = [(decision.plan.stage, np.array(decision.plan.weights)) for decision in decisions]
    moves = [(stage, 0.5 * np.abs(now - before).sum()) for (_, before), (stage, now) in pairwise(plans)]
    assert 0.02 < max(move for stage, move in moves if stage == 2) <= 0.03 + 1e-12


def test_a_stage_may_freeze_where_the_run_cools() -> None:
    own = {"overfit_action": "freeze", "overfit_patience": 2}
    engine = HeatEngine(two_stages({}, own))
    first, rest = course(engine, 1), course(engine, 9, first=1, a=WORSE)
    frozen = [decision for decision in (*first, *rest) if decision.frozen]
    assert [decision.plan.stage for decision in frozen] == [2]
    state = engine.state_dict()
    again = HeatEngine(engine.setup)
    again.load_state_dict(state)
    assert again.progression.frozen_tasks.tolist() == [True, False, False]


def test_an_epoch_cap_of_a_stage_is_its_own() -> None:
    tight = {"max_epochs": 1.0, "max_change": 1.0, "late_max_change": 1.0, "floor_ratio": 0.0, "ceiling": 1.0}
    made = setup(
        cards=SKEWED,
        num_rows=[10, 100_000, 100_000],
        boundary={"type": "step", "step": 4 * INTERVAL},
        policies=STATIC,
        stage_guards=({}, tight),
    )
    decisions = course(HeatEngine(made), 8)
    assert {decision.plan.weights[0] < 0.05 for decision in decisions if decision.plan.stage == 1} == {False}
    assert {decision.plan.weights[0] < 0.05 for decision in decisions if decision.plan.stage == 2} == {True}


def test_a_fork_with_tighter_bounds_is_within_them_from_its_first_plan_on() -> None:
    parent = HeatEngine(setup(cards=SKEWED, policies=STATIC))
    course(parent, 2)
    guards = {"floor_ratio": 0.9, "ceiling": 0.4, "max_change": 0.01}
    child_setup = setup(cards=SKEWED, policies=STATIC, guards=guards)
    child = HeatEngine(child_setup)
    child.take_over(parent.state_dict(), of=parent.setup)
    decision = course(child, 1, first=2)[0]
    assert decision.plan.weights == pytest.approx([0.4, 0.3, 0.3])
    assert BROUGHT_WITHIN_BOUNDS in decision.sentences
