"""Which checkpoint is best by scores on the selection set."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.selection import SelectionRule, ranking

SCORES = {
    10: {"a": 0.9, "b": 0.2},
    20: {"a": 0.6, "b": 0.5},
    30: {"a": 0.7, "b": 0.5},
    40: {"a": 0.7, "b": 0.5},
}


def steps(rule: SelectionRule) -> list[int]:
    return [ranked.step for ranked in ranking(SCORES, rule)]


def test_the_worst_task_decides_then_the_mean_then_the_earlier_step() -> None:
    assert steps("worst") == [30, 40, 20, 10]
    assert steps("macro") == [30, 40, 20, 10]
    assert steps("last") == [40, 30, 20, 10]


def test_the_reason_names_the_worst_task_and_its_score() -> None:
    assert ranking(SCORES, "worst")[0].why.startswith("its worst task b scores 0.500, the mean is 0.600")


@given(st.dictionaries(st.integers(1, 99), st.dictionaries(st.sampled_from("abc"), st.floats(0, 1))))
def test_no_other_step_has_a_better_worst_task(scores: dict[int, dict[str, float]]) -> None:
    measured = {step: min(own.values()) for step, own in scores.items() if own}
    ranked = ranking(scores, "worst")
    assert len(ranked) == len(measured)
    assert not ranked or measured[ranked[0].step] == max(measured.values())
