"""The states of a run as a sequence: what each holds, where each begins, and that none comes back."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scheduler.engine import HeatEngine
from scheduler.errors import StateError
from scheduler.records import DecisionRecord
from scheduler.setup import HeatPolicy, StaticPolicy
from scheduler.states import STATES, StateMachine, StatesConfig
from tests.unit.scheduler.made import evaluate, setup

TOTAL, INTERVAL = 1000, 25
FULL = {
    "warmup_evaluations": 3,
    "transition_intervals": 4,
    "transition_max_change": 0.01,
    "late_after": 0.7,
    "frozen_after": 0.9,
}


def run(**settings: Any) -> list[DecisionRecord]:
    """Every decision of a run whose tasks differ ever more, so that weights always want to move."""
    engine = HeatEngine(
        setup(
            boundary={"type": "step", "step": 400},
            policies=(HeatPolicy(strength=2.0), HeatPolicy(strength=6.0)),
            guards={"floor_ratio": 0.01, "ceiling": 0.99, "max_change": 0.05, "late_max_change": 0.02},
            states=settings,
        )
    )
    records = []
    for step in range(0, TOTAL, INTERVAL):
        swing = 0.5 + 0.45 * np.sin(step / 60)
        records.append(evaluate(engine, step, {"a": {"score": swing}, "b": {"score": 1 - swing}, "c": {"score": 0.5}}))
    return records


def change(decision: DecisionRecord) -> float:
    return 0.5 * sum(abs(task.weight_after - task.weight_before) for task in decision.tasks)


def test_a_run_goes_through_all_states_in_order_and_each_keeps_its_promise() -> None:
    decisions = run(**FULL)
    assert list(dict.fromkeys(decision.state for decision in decisions)) == list(STATES)
    begins = {state: next(d.plan.effective_from_step for d in decisions if d.state == state) for state in STATES}
    assert begins == {"warm-up": 25, "stage 1": 75, "transition": 400, "stage 2": 500, "late": 700, "frozen": 900}
    limits = {"warm-up": 0.0, "stage 1": 0.05, "transition": 0.01, "stage 2": 0.05, "late": 0.02, "frozen": 0.0}
    for decision in decisions:
        assert change(decision) <= limits[decision.state] + 1e-12
        assert (decision.held is not None) == (decision.state in ("warm-up", "frozen"))
    for state in ("stage 1", "transition", "stage 2", "late"):
        assert sum(change(decision) for decision in decisions if decision.state == state) > 0
    assert decisions[0].held == "warm-up, 1 of 3 evaluations have measured something"
    assert decisions[-1].held == "the mixture is frozen from 0.9 of the run on"


def test_every_new_state_is_said_once() -> None:
    said = [sentence for decision in run(**FULL) for sentence in decision.sentences if "in the state" in sentence]
    assert said[1] == (
        "From step 400 on the run is in the state transition: the policy of stage 2 moves the weights, "
        "by small steps only."
    )
    assert [sentence.split(":")[0].rsplit("state ")[-1] for sentence in said] == list(STATES[1:])


def test_without_settings_the_states_are_the_stages_and_hold_nothing() -> None:
    plain = run()
    assert list(dict.fromkeys(decision.state for decision in plain)) == ["stage 1", "stage 2"]
    assert all(decision.held is None for decision in plain)


def test_an_evaluation_without_a_signal_does_not_end_the_warm_up_but_the_clock_does() -> None:
    def machine(**settings: Any) -> StateMachine:
        return StateMachine(StatesConfig(**settings), total_steps=TOTAL, interval_steps=INTERVAL)

    warming = machine(warmup_evaluations=2)
    for step, anything, state in ((25, True, "warm-up"), (50, False, "warm-up"), (75, True, "stage 1")):
        warming.observe(effective_step=step, stage=1, stage_start_step=0, anything_measured=anything)
        assert warming.state == state
    starved = machine(warmup_evaluations=2, warmup_ends_by=0.1)
    starved.observe(effective_step=100, stage=1, stage_start_step=0, anything_measured=False)
    assert starved.state == "stage 1"


def test_a_stage_that_begins_in_the_warm_up_ends_it_and_none_begins_in_the_freeze() -> None:
    states = {"warmup_evaluations": 99, "warmup_ends_by": 1.0, "transition_intervals": 1}
    engine = HeatEngine(setup(boundary={"type": "step", "step": 50}, states=states))
    assert [evaluate(engine, step, {"a": {}}).state for step in (0, 25, 50)] == ["warm-up", "transition", "stage 2"]
    asked = {"type": "capability", "metric": "score", "at_least": 0.9, "max_steps": 950}
    engine = HeatEngine(setup(boundary=asked, states={"frozen_after": 0.9}))
    decisions = [evaluate(engine, step, {"a": {"score": 0.1}}) for step in range(0, TOTAL, INTERVAL)]
    assert {decision.plan.stage for decision in decisions} == {1}
    assert decisions[-1].state == "frozen"


def test_a_policy_of_stage_2_begins_with_an_empty_memory_even_where_the_state_holds_the_weights() -> None:
    policies = (HeatPolicy(), StaticPolicy())
    states = {"warmup_evaluations": 99, "warmup_ends_by": 1.0, "late_after": 0.1}
    engine = HeatEngine(setup(boundary={"type": "step", "step": 50}, policies=policies, states=states))
    for step in (0, 25, 50, 75):
        decision = evaluate(engine, step, {"a": {}})
    assert decision.state == "late"
    assert decision.held is None


def test_the_state_is_part_of_the_engines_and_a_foreign_one_is_refused() -> None:
    made = setup(states=FULL)
    engine, other = HeatEngine(made), HeatEngine(made)
    for step in (0, 25):
        evaluate(engine, step, {"a": {"score": 0.2}})
    other.load_state_dict(json.loads(json.dumps(engine.state_dict())))
    for step in (50, 75, 100):
        fields = {"a": {"score": 0.2}, "b": {"score": 0.9}}
        assert evaluate(other, step, fields) == evaluate(engine, step, fields)
    with pytest.raises(StateError, match="state of the run"):
        engine.progression.states.load_state_dict({"state": "asleep", "num_measured": 0})


def test_settings_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"frozen_after 0.5 lies before late_after 0.7"):
        StatesConfig(late_after=0.7, frozen_after=0.5)
    with pytest.raises(ValidationError, match=r"comes before stage 2, which begins at 0.5 of the run"):
        setup(boundary={"type": "step", "step": 500}, states={"frozen_after": 0.5})
