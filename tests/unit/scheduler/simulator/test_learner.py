from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import ConfigError
from scheduler.simulator import Learner
from tests.unit.scheduler.simulator.described import learner

PLAIN = {"a": {}}


def trained(tasks: dict[str, Any], intervals: list[list[int]], **fields: Any) -> Learner:
    """A learner after intervals of 10 steps with so many samples per task."""
    made = Learner(learner(tasks, **fields))
    for counts in intervals:
        made.advance(np.array(counts), num_steps=10)
    return made


def test_the_loss_is_the_power_law_of_the_samples_served() -> None:
    law = {"start_loss": 3.0, "floor_loss": 0.5, "scale_samples": 100, "exponent": 0.5}
    made = trained({"a": {"curve": {"type": "power_law", **law}}}, [[200], [100]])
    assert made.truth().loss[0] == pytest.approx(0.5 + 2.5 * (1 + 300 / 100) ** -0.5)


@given(counts=st.lists(st.integers(0, 5000), min_size=1, max_size=8), sharpness=st.floats(0.3, 5))
def test_without_overfitting_more_exposure_never_makes_anything_worse(counts: list[int], sharpness: float) -> None:
    made = Learner(learner({"a": {"curve": {"type": "power_law", "sharpness": sharpness}}}))
    for count in counts:
        before = made.truth()
        made.advance(np.array([count]), num_steps=10)
        after = made.truth()
        assert after.score[0] >= before.score[0]
        assert after.loss[0] <= before.loss[0]
        assert after.format_compliance[0] >= before.format_compliance[0]


def test_a_noise_task_never_learns_but_learns_the_format() -> None:
    made = trained({"a": {"curve": {"type": "noise", "loss": 1.6, "chance_score": 0.25}}}, [[100_000]])
    truth = made.truth()
    assert (truth.score[0], truth.loss[0], truth.train_loss[0]) == (0.25, 1.6, 1.6)
    assert truth.format_compliance[0] > 0.99


def test_a_saturated_task_is_at_its_best_before_any_sample() -> None:
    before = Learner(learner({"a": {"curve": {"type": "saturated", "loss": 0.1, "score": 0.9}}})).truth()
    assert (before.score[0], before.loss[0], before.mastery[0], before.format_compliance[0]) == (0.9, 0.1, 1.0, 1.0)


def test_after_its_epochs_the_held_out_loss_rises_while_the_training_loss_falls() -> None:
    tasks = {"a": {"rows": 100, "effects": [{"type": "overfit", "after_epochs": 2, "loss_per_epoch": 0.5}]}}
    within, past = trained(tasks, [[200]]).truth(), trained(tasks, [[600]]).truth()
    plain = trained(PLAIN, [[200]]).truth()
    assert within.loss[0] == plain.loss[0]
    assert past.loss[0] > within.loss[0]
    assert past.train_loss[0] < within.train_loss[0]


def test_a_task_is_learnt_only_as_far_as_what_it_needs() -> None:
    tasks = {"b": {"effects": [{"type": "prerequisites", "tasks": ["a"], "needed": 0.8}]}, "a": {}}
    alone = trained(tasks, [[5000, 0]] * 3)
    assert alone.truth().score[0] == 0.0
    after = trained(tasks, [[0, 5000], [5000, 0]])
    assert after.truth().score[0] > 0.8
    halfway = trained(tasks, [[0, 200]] + [[5000, 0]] * 9).truth().mastery
    assert halfway[0] == pytest.approx(halfway[1] / 0.8)


def test_a_chain_of_prerequisites_opens_from_its_beginning() -> None:
    needs = {name: [{"type": "prerequisites", "tasks": [before]}] for name, before in (("c", "b"), ("b", "a"))}
    made = trained({"c": {"effects": needs["c"]}, "b": {"effects": needs["b"]}, "a": {}}, [[300, 300, 300]] * 3)
    c, b, a = made.truth().mastery
    assert 0 < c < b < a


def test_a_plateau_holds_the_score_and_not_the_loss_until_it_jumps() -> None:
    tasks = {"a": {"effects": [{"type": "plateau", "at_samples": 2000, "width_samples": 50}]}}
    still, over = trained(tasks, [[1500]]).truth(), trained(tasks, [[2500]]).truth()
    assert still.score[0] < 0.01
    assert still.loss[0] == trained(PLAIN, [[1500]]).truth().loss[0]
    assert over.score[0] == pytest.approx(trained(PLAIN, [[2500]]).truth().score[0], abs=0.01)


def test_a_task_no_longer_served_is_forgotten_with_its_half_life() -> None:
    tasks = {"a": {"effects": [{"type": "forgetting", "half_life_steps": 10}]}}
    served = trained(tasks, [[1000]])
    exposure = served.exposure[0]
    served.advance(np.array([0]), num_steps=10)
    assert served.exposure[0] == pytest.approx(exposure / 2)
    assert exposure == pytest.approx(1000 * 0.5 / np.log(2))


def test_a_long_interval_forgets_as_two_short_ones_do() -> None:
    config = learner({"a": {"effects": [{"type": "forgetting", "half_life_steps": 30}]}})
    long, short = Learner(config), Learner(config)
    long.advance(np.array([600]), num_steps=20)
    short.advance(np.array([300]), num_steps=10)
    short.advance(np.array([300]), num_steps=10)
    assert long.exposure[0] == pytest.approx(short.exposure[0])


def test_transfer_counts_another_tasks_samples_and_interference_takes_away_from_zero_at_least() -> None:
    tasks = {"a": {}, "b": {}}
    helped = trained(tasks, [[100, 400]], transfer={"a": {"b": 0.5}})
    assert helped.exposure.tolist() == [300.0, 400.0]
    hurt = trained(tasks, [[100, 400]], transfer={"a": {"b": -0.5}})
    assert hurt.exposure.tolist() == [0.0, 400.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": {}}, "learner.tasks is empty"),
        ({"transfer": {"a": {"x": 1.0}}}, "'x' is not a task of learner.tasks"),
        ({"transfer": {"a": {"a": 2.0}}}, "counts 1 for itself"),
        ({"tasks": {"a": {"effects": [{"type": "prerequisites", "tasks": ["x"]}]}}}, "'x' is not a task"),
        (
            {
                "tasks": {
                    "a": {"effects": [{"type": "prerequisites", "tasks": ["b"]}]},
                    "b": {"effects": [{"type": "prerequisites", "tasks": ["a"]}]},
                }
            },
            "round in a circle",
        ),
    ],
)
def test_a_learner_that_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    config = learner().model_validate({"tasks": PLAIN, **fields})
    with pytest.raises(ConfigError, match=message):
        Learner(config)
