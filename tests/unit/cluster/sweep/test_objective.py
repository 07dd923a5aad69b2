"""Objectives, their intervals, and the Pareto front."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.sweep.objective import Score, objective, pareto_front
from scheduler.task import TaskSpec

TASKS = [TaskSpec(name="a", business_value=3.0), TaskSpec(name="b")]
SCORES = {"a": Score(0.5, 40), "b": Score(0.9, 10)}


def test_objectives_by_name() -> None:
    assert objective("worst", SCORES, TASKS).value == 0.5
    assert objective("macro", SCORES, TASKS).value == pytest.approx(0.7)
    assert objective("value_weighted", SCORES, TASKS).value == pytest.approx((3 * 0.5 + 0.9) / 4)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500)), min_size=1, max_size=6))
def test_an_interval_holds_its_value_and_stays_between_zero_and_one(drawn: list[tuple[float, int]]) -> None:
    tasks = [TaskSpec(name=str(number)) for number in range(len(drawn))]
    scores = {str(number): Score(*one) for number, one in enumerate(drawn)}
    for name in ("worst", "macro", "value_weighted"):
        found = objective(name, scores, tasks)
        assert 0 <= found.low <= found.value + 1e-12
        assert found.value - 1e-12 <= found.high <= 1


def test_more_rows_narrow_an_interval_and_a_score_of_one_is_not_certain() -> None:
    few, many = (objective("macro", {"a": Score(1.0, rows)}, TASKS[:1]) for rows in (10, 1000))
    assert few.low < many.low < 1


@given(st.dictionaries(st.text(min_size=1), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_a_point_is_on_the_front_unless_another_beats_it(points: dict[str, tuple[int, int]]) -> None:
    front = pareto_front(points)
    assert front
    for name, (x, y) in points.items():
        beaten = any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
        assert (name in front) == (not beaten)
