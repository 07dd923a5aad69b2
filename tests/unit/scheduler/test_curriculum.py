"""The curriculum: when a task's levels move, by which numbers, and in which order its levels come."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scheduler.curriculum import Curriculum, rescored, wilson
from scheduler.curriculum_config import CurriculumConfig
from scheduler.errors import StateError
from scheduler.evaluation import Evaluation
from scheduler.records import LevelMove
from tests.unit.scheduler.made import evaluation, signal

GOOD, BAD = (10.0, 9.0, 10.0), (1.0, 0.0, 0.0)


def curriculum(num_levels: tuple[int, ...] = (3,), **settings: Any) -> Curriculum:
    names = tuple("abcdef"[: len(num_levels)])
    return Curriculum(CurriculumConfig(**settings), names=names, num_levels=num_levels)


def measured(*right: float, num_probes: int = 10, task: str = "a") -> Evaluation:
    """An evaluation of one task with so many right answers among `num_probes` of every level."""
    counts = (num_probes,) * len(right)
    return evaluation(signal(task, num_probes=sum(counts), level_probes=counts, level_successes=right))


def feed(climbing: Curriculum, one: Evaluation, times: int = 1, progress: float = 0.0) -> list[LevelMove]:
    return [move for _ in range(times) for move in climbing.observe(one, progress=progress)]


def test_wilson_bounds_are_those_of_the_textbook() -> None:
    z = NormalDist().inv_cdf(0.975)
    lower, upper = wilson(np.array([8.0, 0.0, 10.0, 0.0]), np.array([10, 10, 10, 0]), z)
    assert lower == pytest.approx([0.4902, 0.0, 0.7225, 0.0], abs=1e-4)
    assert upper == pytest.approx([0.9433, 0.2775, 1.0, 1.0], abs=1e-4)


def test_a_task_goes_from_low_mid_to_mid_high_to_high_and_stays_there() -> None:
    climbing = curriculum()
    windows = [climbing.windows()]
    for _ in range(3):
        feed(climbing, measured(*GOOD), times=5)
        windows.append(climbing.windows())
    assert windows == [((0, 1),), ((1, 2),), ((2, 2),), ((2, 2),)]


def test_a_promotion_needs_five_evaluations_in_a_row_and_says_its_numbers() -> None:
    climbing = curriculum()
    assert feed(climbing, measured(*GOOD), times=4) == []
    assert feed(climbing, measured(*BAD)) == []
    assert feed(climbing, measured(*GOOD), times=4) == []
    (move,) = feed(climbing, measured(*GOOD))
    assert (move.task, move.kind, move.window, move.order) == ("a", "promoted", (1, 2), (0, 1, 2))
    assert (move.num_successes, move.num_probes, move.num_evaluations, move.threshold) == (19.0, 20, 5, 0.7)
    lower, _ = wilson(np.array([19.0]), np.array([20]), NormalDist().inv_cdf(0.95))
    assert move.bound == lower[0] > 0.7
    assert feed(climbing, measured(*GOOD), times=4) == []


def test_only_probes_of_open_levels_count() -> None:
    climbing = curriculum()
    (move,) = feed(climbing, measured(10.0, 10.0, 0.0), times=5)
    assert move.window == (1, 2)
    assert feed(climbing, measured(10.0, 10.0, 0.0), times=20) == []
    climbing = curriculum()
    assert feed(climbing, measured(0.0, 10.0, 10.0), times=20) == []


@pytest.mark.parametrize(
    "nothing",
    [
        evaluation(None),
        evaluation(signal("a")),
        evaluation(signal("a", num_probes=4, level_probes=(0, 0, 4), level_successes=(0.0, 0.0, 4.0))),
    ],
    ids=["no signal", "no counts", "no probe of an open level"],
)
@pytest.mark.parametrize(("kind", "one", "phase"), [("promoted", GOOD, 0), ("demoted", BAD, 1)])
def test_what_measured_nothing_neither_continues_nor_breaks_a_row(
    nothing: Evaluation, kind: str, one: tuple[float, ...], phase: int
) -> None:
    climbing = curriculum()
    climbing.phase[0] = phase
    if phase == 1 and nothing.signals:
        nothing = evaluation(signal("a", num_probes=4, level_probes=(4, 0, 0), level_successes=(4.0, 0.0, 0.0)))
    feed(climbing, measured(*one), times=3)
    assert feed(climbing, nothing, times=9) == []
    assert feed(climbing, measured(*one)) == []
    (move,) = feed(climbing, measured(*one))
    assert (move.kind, move.num_evaluations) == (kind, 5)


def test_a_demotion_has_its_own_lower_threshold_and_row() -> None:
    climbing = curriculum(demote_evaluations=3)
    feed(climbing, measured(*GOOD), times=5)
    assert feed(climbing, measured(5.0, 5.0, 5.0), times=50) == []
    assert feed(climbing, measured(*BAD), times=2) == []
    (move,) = feed(climbing, measured(*BAD))
    assert (move.kind, move.window, move.threshold, move.num_evaluations) == ("demoted", (0, 1), 0.3, 3)
    assert (move.num_successes, move.num_probes) == (0.0, 20)
    assert move.bound < 0.3
    assert feed(climbing, measured(*BAD), times=50) == []


def test_after_a_promotion_a_level_that_is_measured_easier_comes_first() -> None:
    climbing = curriculum((4,))
    (move,) = feed(climbing, measured(10.0, 10.0, 0.0, 9.0), times=5)
    assert (move.order_before, move.order, move.window) == ((0, 1, 2, 3), (0, 1, 3, 2), (1, 2))
    assert climbing.orders() == ((0, 1, 3, 2),)
    (second,) = feed(climbing, measured(10.0, 10.0, 0.0, 9.0), times=5)
    assert (second.window, second.num_successes) == ((2, 3), 19.0)
    assert feed(climbing, measured(10.0, 10.0, 0.0, 9.0), times=5) == []
    fixed = curriculum((4,), rescore=False)
    (move,) = feed(fixed, measured(10.0, 10.0, 0.0, 9.0), times=5)
    assert move.order == (0, 1, 2, 3)


def test_levels_change_places_only_where_the_difference_is_beyond_doubt() -> None:
    def bounds(*right: float, num_probes: int = 10) -> tuple[np.ndarray, np.ndarray]:
        return wilson(np.array(right), np.full(len(right), num_probes), 1.645)

    assert rescored((0, 1, 2), *bounds(5, 6, 7)) == (0, 1, 2)
    assert rescored((0, 1, 2), *bounds(0, 5, 10)) == (2, 1, 0)
    assert rescored((2, 1, 0), *bounds(0, 5, 10)) == (2, 1, 0)
    assert rescored((0, 1, 2), *bounds(5, 6, 7, num_probes=0)) == (0, 1, 2)


def test_late_in_the_run_every_window_reaches_the_hardest_level() -> None:
    climbing = curriculum((3, 1, 2), open_all_after=0.5)
    assert climbing.observe(Evaluation(3, 3), progress=0.49) == ()
    moves = climbing.observe(Evaluation(3, 3), progress=0.5)
    assert [(move.task, move.kind, move.window) for move in moves] == [("a", "opened", (0, 2))]
    assert climbing.windows() == ((0, 2), (0, 0), (0, 1))
    assert climbing.observe(Evaluation(3, 3), progress=0.9) == ()
    assert curriculum(open_all_after=None).observe(Evaluation(1, 3), progress=1.0) == ()


def test_its_state_comes_back_and_a_foreign_one_is_refused() -> None:
    climbing, other = curriculum((4,)), curriculum((4,))
    feed(climbing, measured(10.0, 10.0, 0.0, 9.0), times=8)
    other.load_state_dict(climbing.state_dict())
    assert other.state_dict() == climbing.state_dict()
    assert feed(other, measured(10.0, 10.0, 0.0, 9.0), 2) == feed(climbing, measured(10.0, 10.0, 0.0, 9.0), 2)
    state = climbing.state_dict()
    for wrong in (
        {"phase": [4]},
        {"phase": [0, 0]},
        {"passes": [-1]},
        {"orders": [[0, 1, 1, 2]]},
        {"orders": [[0, 1, 2, 3], [0]]},
        {"more": 1},
    ):
        with pytest.raises(StateError, match="curriculum state"):
            other.load_state_dict(state | wrong)
    assert other.state_dict() == state


def test_thresholds_that_leave_no_room_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"demote_at 0.7 is not below promote_at 0.7"):
        CurriculumConfig(demote_at=0.7)
