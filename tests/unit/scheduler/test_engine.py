"""One run's engine from signals to plans."""

import json

import numpy as np
import pytest

from scheduler.engine import HeatEngine
from scheduler.errors import StateError
from scheduler.setup import HeatPolicy, StaticPolicy, StepBoundary
from tests.unit.scheduler.made import evaluate, report, setup, signal


def test_the_first_plan_is_the_prior() -> None:
    engine = HeatEngine(setup(num_rows=(100, 100, 200), prior={"type": "proportional"}))
    assert engine.plan.weights == pytest.approx((0.25, 0.25, 0.5))
    assert (engine.plan.version, engine.plan.source_step, engine.plan.effective_from_step) == (0, -1, 0)


def test_a_hotter_task_gains_weight_and_the_words_say_why() -> None:
    engine = HeatEngine(setup())
    decision = evaluate(engine, 0, {"a": {"score": 0.1}, "b": {"score": 0.9}, "c": {"score": 0.9}})
    assert engine.plan.weights[0] > 1 / 3 > engine.plan.weights[1]
    assert decision.sentences[0].startswith("a rises 33.3% → ")
    assert "gap to target" in decision.sentences[0]


def test_a_long_tail_task_with_a_gap_rises_above_an_equal_standard_one() -> None:
    engine = HeatEngine(setup(("tail", "same"), cards={"tail": {"tier": "long_tail"}}))
    decision = evaluate(engine, 0, {"tail": {"score": 0.1}, "same": {"score": 0.1}})
    tail, same = decision.tasks
    assert tail.heat == same.heat
    assert tail.target_weight / same.target_weight == pytest.approx(np.exp(0.5 * tail.gap))


def test_identical_tasks_keep_identical_weights() -> None:
    engine = HeatEngine(setup(("a", "twin", "b")))
    for step in range(0, 500, 25):
        evaluate(engine, step, {"a": {"score": 0.2}, "twin": {"score": 0.2}, "b": {"score": 0.2 + step / 1000}})
    assert engine.plan.weights[0] == pytest.approx(engine.plan.weights[1], abs=1e-15)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_when_all_scores_are_equal_and_extreme_the_prior_stays(score: float) -> None:
    engine = HeatEngine(setup(num_rows=(1, 100, 10_000)))
    first = engine.plan.weights
    for step in range(0, 500, 25):
        evaluate(engine, step, {name: {"score": score} for name in ("a", "b", "c")})
    assert engine.plan.weights == pytest.approx(first)


def test_one_task_keeps_all_the_weight() -> None:
    engine = HeatEngine(setup(("only",)))
    for step in (0, 25):
        evaluate(engine, step, {"only": {"score": 0.1}})
    assert engine.plan.weights == (1.0,)


def test_a_task_that_was_never_measured_is_carried_along_at_the_mean_heat() -> None:
    engine = HeatEngine(setup())
    decision = evaluate(engine, 0, {"a": {"score": 0.1}, "b": {"score": 0.9}})
    low, high = sorted(task.target_weight for task in decision.tasks[:2])
    assert low < decision.tasks[2].target_weight < high


def test_an_evaluation_that_measured_nothing_keeps_the_weights_and_says_so() -> None:
    engine = HeatEngine(setup())
    evaluate(engine, 0, {"a": {"score": 0.1}})
    before = engine.plan
    decision = evaluate(engine, 25, {})
    assert engine.plan.weights == before.weights
    assert engine.plan.version == before.version + 1
    assert decision.sentences == ("Weights kept: no task was measured in this evaluation.",)


def test_signals_of_a_skipped_evaluation_are_dropped_with_the_next_decision() -> None:
    engine, clean = HeatEngine(setup()), HeatEngine(setup())
    engine.observe(signal("a", step=0, score=0.9))
    for one in (engine, clean):
        evaluate(one, 25, {"a": {"score": 0.1}})
    assert engine.state_dict() == clean.state_dict()


def test_signals_may_come_before_older_evaluations_are_decided() -> None:
    early, ordered = HeatEngine(setup()), HeatEngine(setup())
    early.observe(signal("a", step=25, score=0.7))
    evaluate(early, 0, {"a": {"score": 0.2}})
    evaluate(ordered, 0, {"a": {"score": 0.2}})
    ordered.observe(signal("a", step=25, score=0.7))
    assert early.decide(25) == ordered.decide(25)


def test_lag_one_plans_begin_an_interval_later_and_others_at_once() -> None:
    starts = {}
    for mode in ("lag1", "sync", "async"):
        engine = HeatEngine(setup(mode=mode))
        starts[mode] = evaluate(engine, 50, {"a": {}}).plan.effective_from_step
    assert starts == {"lag1": 75, "sync": 50, "async": 50}


def test_stage_2_begins_with_a_plan_of_its_own_policy() -> None:
    made = setup(boundary=StepBoundary(step=50), policies=(StaticPolicy(), HeatPolicy(strength=8.0)), mode="sync")
    engine = HeatEngine(made)
    fields = {"a": {"score": 0.0}, "b": {"score": 0.9}, "c": {"score": 0.9}}
    first = engine.plan.weights
    evaluate(engine, 0, fields)
    assert engine.plan.weights == first
    for name, own in fields.items():
        engine.observe(signal(name, step=50, **own))
    decision, stage = engine.decide(50)
    assert stage is not None
    assert (stage.stage, stage.step, stage.plan_version) == (2, 50, decision.plan.version)
    assert (decision.plan.stage, decision.plan.stage_start_step) == (2, 50)
    assert decision.plan.weights[0] > first[0]


def test_state_comes_back_through_json_in_the_middle_of_an_evaluation() -> None:
    engine, copy = HeatEngine(setup()), HeatEngine(setup())
    evaluate(engine, 0, {"a": {"score": 0.3}})
    engine.observe_interval(report([5, 6, 7], step=25))
    engine.observe(signal("b", step=25, score=0.1))
    copy.load_state_dict(json.loads(json.dumps(engine.state_dict())))
    assert copy.state_dict() == engine.state_dict()
    assert copy.decide(25) == engine.decide(25)


def test_state_of_another_run_is_refused_and_nothing_changes() -> None:
    engine = HeatEngine(setup())
    before, other = engine.state_dict(), HeatEngine(setup(("a", "b"))).state_dict()
    with pytest.raises(StateError, match="for 2 tasks; this run has 3"):
        engine.load_state_dict(other)
    with pytest.raises(StateError, match="keys"):
        engine.load_state_dict({**before, "more": 1})
    with pytest.raises(StateError, match="keys"):
        engine.load_state_dict({key: value for key, value in before.items() if key != "served"})
    stranger = {**before, "pending": [{"task": "ghost"}]}
    with pytest.raises(StateError, match="signals of \\['ghost'\\]"):
        engine.load_state_dict(stranger)
    assert engine.state_dict() == before


def test_ten_thousand_tasks_are_decided_on_and_stay_within_bounds() -> None:
    names = [f"t{index}" for index in range(10_000)]
    engine = HeatEngine(setup(names))
    before = np.array(engine.plan.weights)
    evaluate(engine, 0, {name: {"score": (index % 10) / 10} for index, name in enumerate(names)})
    weights = np.array(engine.plan.weights)
    assert abs(weights.sum() - 1.0) <= 1e-12
    assert np.all((weights >= engine.guards.floor) & (weights <= engine.guards.ceiling))
    assert 0.5 * np.abs(weights - before).sum() <= engine.guards.max_change(0.025) + 1e-12
