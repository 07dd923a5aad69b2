"""What a run's memory makes of a decision to go back, where it cannot."""

from typing import Any

from scheduler.memory import RunMemory
from scheduler.records import DecisionRecord, RollbackRecord
from tests.unit.scheduler.made import INTERVAL, setup, signal

FINE, WORSE = {"score": 0.3, "loss": 1.0}, {"score": 0.3, "loss": 2.0}


def memory(num_evaluations: int, **guards: Any) -> RunMemory:
    made = RunMemory(
        setup(total_steps=num_evaluations * INTERVAL, guards={"overfit_action": "roll_back", **guards}, mode="lag1")
    )
    made.begin_attempt(0, 0)
    return made


def decide(made: RunMemory, number: int, loss_of_a: dict[str, float]) -> tuple[DecisionRecord, list[Any]]:
    for task, values in {"a": loss_of_a, "b": FINE, "c": FINE}.items():
        assert made.refusal(signal(task, step=number * INTERVAL, **values)) is None
    return made.decide(number * INTERVAL), list(made.due)


def test_a_task_found_past_its_peak_by_the_last_evaluation_sends_nobody_back_and_the_decision_says_so() -> None:
    made = memory(5, overfit_patience=3)
    decisions = [decide(made, number, FINE if number < 2 else WORSE) for number in range(5)]
    decision, due = decisions[-1]
    assert [freeze.task for freeze in decision.frozen] == ["a"]
    assert decision.sentences[-1] == "The run does not go back before the peak: it is over before it could."
    assert due == []
    assert made.rollback is None


def test_a_checkpoint_from_before_a_long_patience_is_still_known() -> None:
    made = memory(40, overfit_patience=20)
    for number in range(23):
        if number:
            made.take_checkpoint(number * INTERVAL)
        _, due = decide(made, number, FINE | {"loss": 1.0 - 0.1 * number} if number < 3 else WORSE)
    (rollback,) = due
    assert isinstance(rollback, RollbackRecord)
    assert rollback.to_step == 2 * INTERVAL
    assert rollback.tasks == ("a",)
