"""What the engine hands to a policy: history, realised exposure, and a memory that lives as long as its policy."""

import dataclasses

import numpy as np
import pytest

from scheduler.arrays import packed
from scheduler.engine import HeatEngine
from scheduler.errors import StateError
from scheduler.policies.history import History
from scheduler.policy_config import Exp3Policy, GroupDroPolicy, Policy
from scheduler.setup import StepBoundary
from tests.unit.scheduler.made import evaluate, evaluation, report, setup, signal

DRO, OTHER_DRO = GroupDroPolicy(), GroupDroPolicy(rate=0.1)
FIELDS = {"a": {"score": 0.1}, "b": {"score": 0.5}, "c": {"score": 0.9}}


def tilt_after(policies: tuple[Policy, Policy], steps: tuple[int, ...]) -> list[float]:
    engine = HeatEngine(setup(boundary=StepBoundary(step=50), policies=policies, mode="sync"))
    for step in steps:
        evaluate(engine, step, FIELDS)
    return engine.policy_memory["tilt"].tolist()


def test_a_policy_that_goes_on_into_stage_2_keeps_its_memory() -> None:
    assert tilt_after((DRO, DRO), (0, 25, 50)) != tilt_after((DRO, DRO), (50,))


def test_a_policy_that_begins_with_stage_2_begins_with_an_empty_memory() -> None:
    assert tilt_after((OTHER_DRO, DRO), (0, 25, 50)) == tilt_after((DRO, DRO), (50,))
    assert tilt_after((Exp3Policy(), DRO), (0, 25, 50)) == tilt_after((DRO, DRO), (50,))


def test_exposure_is_what_was_served_between_the_last_two_signals_of_a_task() -> None:
    history = History.new(2)
    history.observe_interval(counted=[10, 20], train_loss=[None, None])
    history.fold(evaluation(signal("a"), signal("b")))
    assert np.isnan(history.exposure).all()
    history.observe_interval(counted=[15, 40], train_loss=[None, None])
    history.fold(evaluation(signal("a"), None))
    history.observe_interval(counted=[16, 90], train_loss=[None, None])
    history.fold(evaluation(signal("a"), signal("b")))
    assert history.exposure.tolist() == [1.0, 70.0]
    assert history.total_exposure.tolist() == [51.0, 76.0]
    assert history.span.tolist() == [1.0, 2.0]


def test_a_training_loss_counts_for_one_evaluation_only_and_one_that_is_no_loss_for_none() -> None:
    history = History.new(4)
    history.observe_interval(counted=[1] * 4, train_loss=[2.0, None, float("nan"), -1.0])
    history.fold(evaluation(None, None, None, None))
    assert history.train_loss[0] == 2.0
    assert np.isnan(history.train_loss[1:]).all()
    history.fold(evaluation(None, None, None, None))
    assert np.isnan(history.train_loss).all()
    history.observe_interval(counted=[1] * 4, train_loss=[1.5] * 4)
    history.fold(evaluation(None, None, None, None))
    assert history.previous_train_loss[0] == 2.0
    assert history.first_train_loss.tolist() == [2.0, 1.5, 1.5, 1.5]


def test_first_and_previous_measurements_are_kept_while_a_task_is_not_measured() -> None:
    history = History.new(1)
    for step, loss in enumerate((3.0, 2.0, 1.0)):
        history.fold(evaluation(signal("a", step=step, loss=loss, score=step / 4)))
    history.fold(evaluation(None))
    assert (history.first_loss[0], history.previous_loss[0], history.loss[0]) == (3.0, 2.0, 1.0)
    assert (history.first_score[0], history.previous_score[0], history.score[0]) == (0.0, 0.25, 0.5)


@pytest.mark.parametrize(("unit", "counted"), [("samples", [4, 8, 12]), ("tokens", [16, 32, 48])])
def test_exposure_is_counted_in_what_weights_are_shares_of(unit: str, counted: list[float]) -> None:
    made = setup()
    mixture = made.mixture.model_copy(update={"weight_unit": unit})
    engine = HeatEngine(made.model_copy(update={"mixture": mixture}))
    engine.observe_interval(report([4, 8, 12], step=25))
    assert engine.history.counted.tolist() == counted


@pytest.mark.parametrize("column", ["num_tokens", "train_loss"])
def test_a_report_with_a_column_for_another_number_of_tasks_is_refused(column: str) -> None:
    engine = HeatEngine(setup())
    odd = dataclasses.replace(report([1, 2, 3], step=25), **{column: (1, 2)})
    with pytest.raises(StateError, match="on 2 tasks; this run has 3"):
        engine.observe_interval(odd)


def test_history_with_unknown_or_missing_keys_is_refused() -> None:
    state = History.new(2).state_dict()
    with pytest.raises(StateError, match="history state has the keys"):
        History.new(2).load_state_dict({**state, "more": packed(np.zeros(2))})
    with pytest.raises(StateError, match=r"no array of the shape \(2,\)"):
        History.new(2).load_state_dict({**state, "loss": packed(np.zeros(3))})


def test_a_decision_says_which_statistic_of_the_policy_moved_a_weight() -> None:
    engine = HeatEngine(setup(policies=(DRO, DRO), mode="sync"))
    decision = evaluate(engine, 0, FIELDS)
    assert decision.sentences[0].endswith("error 0.9 (mean of all tasks 0.5).")
    assert decision.sentences[1].endswith("error 0.1 (mean of all tasks 0.5).")
