"""The overfit guard's `freeze`: who is taken out, where its weight goes, and that it stays there."""

import json
from typing import Any

import pytest

from scheduler.engine import HeatEngine
from scheduler.records import DecisionRecord
from tests.unit.scheduler.made import evaluate, setup

GUARDS = {"overfit_action": "freeze", "overfit_patience": 3, "floor_ratio": 0.3, "max_change": 0.2}
WORSE, FINE = {"score": 0.3, "loss": 2.0}, {"score": 0.3, "loss": 1.0}


def engine(**changes: Any) -> HeatEngine:
    return HeatEngine(setup(cards={"a": {"tier": "core"}}, guards=GUARDS | changes))


def drive(driven: HeatEngine, losses_of_a: list[dict[str, float]], *, first: int = 0) -> list[DecisionRecord]:
    steps = range(25 * first, 25 * (first + len(losses_of_a)), 25)
    others = {"b": FINE, "c": FINE}
    return [evaluate(driven, step, {"a": own, **others}) for step, own in zip(steps, losses_of_a, strict=True)]


def test_a_task_past_its_peak_goes_to_its_floor_and_stays_there_whatever_its_loss_does() -> None:
    decisions = drive(engine(), [FINE, WORSE, WORSE, WORSE, *[FINE] * 6])
    assert [len(decision.frozen) for decision in decisions] == [0, 0, 0, 1, *[0] * 6]
    (freeze,) = decisions[3].frozen
    assert (freeze.task, freeze.loss, freeze.best_loss, freeze.num_evaluations) == ("a", 2.0, 1.0, 3)
    assert decisions[2].plan.weights[0] > 0.3
    assert [decision.plan.weights[0] for decision in decisions[-3:]] == pytest.approx([0.1] * 3)
    assert decisions[-1].tasks[0].held_by == "overfit freeze"
    said = [sentence for decision in decisions for sentence in decision.sentences if "is frozen:" in sentence]
    assert said == [
        "a is frozen: its held-out loss, 2.000, was above its best, 1.000, in 3 evaluations in a row; "
        "its weight goes to its floor and stays there."
    ]


def test_it_goes_there_by_the_step_limit_and_the_others_take_its_share() -> None:
    decisions = drive(engine(max_change=0.05, late_max_change=0.05), [FINE, *[WORSE] * 12])
    weights = [decision.plan.weights for decision in decisions[3:]]
    assert weights[0][0] - weights[1][0] == pytest.approx(0.05)
    assert weights[-1][0] == pytest.approx(0.1)
    assert weights[-1][1] == pytest.approx(weights[-1][2])


def test_under_cool_no_task_is_frozen() -> None:
    decisions = drive(engine(overfit_action="cool"), [FINE, *[WORSE] * 8, *[FINE] * 8])
    assert not any(decision.frozen for decision in decisions)
    assert decisions[-1].plan.weights[0] > 0.3


def test_with_every_task_frozen_the_mixture_is_still_one() -> None:
    driven = engine()
    for step in range(0, 500, 25):
        one = FINE if step == 0 else WORSE
        evaluate(driven, step, {"a": one, "b": one, "c": one})
    assert driven.progression.frozen_tasks.all()
    assert sum(driven.plan.weights) == pytest.approx(1.0)
    assert min(driven.plan.weights) >= 0.1


def test_what_is_frozen_is_part_of_the_state_and_a_fork_that_only_cools_thaws_it() -> None:
    driven, again, cooling = engine(), engine(), engine(overfit_action="cool")
    drive(driven, [FINE, WORSE, WORSE, WORSE])
    state = json.loads(json.dumps(driven.state_dict()))
    again.load_state_dict(state)
    assert drive(again, [FINE] * 3, first=4) == drive(driven, [FINE] * 3, first=4)
    cooling.take_over(state, of=driven.setup)
    assert not cooling.progression.frozen_tasks.any()
