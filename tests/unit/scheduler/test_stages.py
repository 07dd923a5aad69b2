"""When stage 2 begins, as sequences of evaluations."""

from collections.abc import Sequence

import numpy as np
import pytest

from scheduler.engine import HeatEngine
from scheduler.errors import StateError
from scheduler.setup import Boundary, CapabilityBoundary, FractionBoundary, StepBoundary
from scheduler.stages import StageMachine
from tests.unit.scheduler.made import evaluate, setup

EVERY = 10


def machine(boundary: Boundary | None, *, total_steps: int = 200) -> StageMachine:
    return StageMachine(setup(boundary=boundary, total_steps=total_steps))


def start_of_stage_2(stages: StageMachine, course: Sequence[Sequence[float]]) -> tuple[int, str] | None:
    """Feed a course of compliances (and equal scores), one evaluation every ten steps; where and why stage 2 began."""
    for index, values in enumerate(course):
        found = np.array(values)
        transition = stages.observe(effective_step=index * EVERY, scores=found, compliance=found)
        if transition is not None:
            assert (stages.stage, stages.stage_start_step) == (2, transition.step)
            return transition.step, transition.reason
    assert stages.stage == 1
    return None


def test_a_run_of_one_stage_never_leaves_it() -> None:
    assert start_of_stage_2(machine(None), [[1.0]] * 50) is None


def test_a_step_boundary_is_the_first_plan_not_before_it() -> None:
    assert start_of_stage_2(machine(StepBoundary(step=35)), [[0.0]] * 10) == (40, "step 35 reached")


def test_a_fraction_boundary_is_met_exactly_where_it_falls_on_a_plan() -> None:
    begun = start_of_stage_2(machine(FractionBoundary(fraction=0.07), total_steps=1000), [[0.0]] * 20)
    assert begun == (70, "7% of 1000 steps done")


def test_stage_2_begins_once() -> None:
    stages = machine(StepBoundary(step=10))
    assert start_of_stage_2(stages, [[0.0]] * 3) is not None
    assert stages.observe(effective_step=50, scores=np.zeros(1), compliance=np.zeros(1)) is None
    assert stages.stage_start_step == 10


def test_capability_needs_its_evaluations_in_a_row() -> None:
    boundary = CapabilityBoundary(at_least=0.9, evaluations=2, max_steps=200)
    begun = start_of_stage_2(machine(boundary), [[0.95], [0.5], [0.95], [0.92], [1.0]])
    assert begun == (30, "mean format compliance 0.92 >= 0.90 in 2 evaluations in a row")


def test_an_evaluation_that_measured_nothing_neither_counts_nor_breaks_the_row() -> None:
    boundary = CapabilityBoundary(at_least=0.9, evaluations=3, max_steps=200)
    begun = start_of_stage_2(machine(boundary), [[0.95], [], [0.95], [], [0.95]])
    assert begun is not None
    assert begun[0] == 40


def test_the_worst_task_counts_when_asked_to() -> None:
    course = [[1.0, 0.8, 1.0]] * 3 + [[1.0, 0.91, 1.0]]
    boundary = CapabilityBoundary(metric="score", over="worst", evaluations=1, max_steps=200)
    assert start_of_stage_2(machine(boundary), course) == (30, "worst score 0.91 >= 0.90 in 1 evaluations in a row")


def test_capability_does_not_end_the_stage_before_min_steps() -> None:
    boundary = CapabilityBoundary(evaluations=1, min_steps=50, max_steps=200)
    assert start_of_stage_2(machine(boundary), [[1.0]] * 20) == (
        50,
        "mean format compliance 1.00 >= 0.90 in 6 evaluations in a row",
    )


def test_capability_ends_the_stage_at_max_steps_whatever_was_reached() -> None:
    boundary = CapabilityBoundary(at_least=0.9, max_steps=60)
    assert start_of_stage_2(machine(boundary), [[0.4]] * 20) == (
        60,
        "max_steps 60 reached with mean format compliance at 0.40; 0.90 was asked for",
    )


def test_without_max_steps_half_of_the_run_is_the_limit_but_never_before_min_steps() -> None:
    assert start_of_stage_2(machine(CapabilityBoundary()), [[0.0]] * 30)[0] == 100  # pyright: ignore[reportOptionalSubscript]
    late = start_of_stage_2(machine(CapabilityBoundary(min_steps=150)), [[0.0]] * 30)
    assert late is not None
    assert late[0] == 150


def test_a_mean_of_equal_values_reaches_that_value_despite_rounding() -> None:
    assert np.mean([0.7] * 3) < 0.7
    boundary = CapabilityBoundary(at_least=0.7, evaluations=1, max_steps=200)
    begun = start_of_stage_2(machine(boundary), [[0.7] * 3])
    assert begun is not None
    assert begun[0] == 0


def test_a_task_never_measured_has_not_shown_the_capability() -> None:
    engine = HeatEngine(setup(("a", "b"), boundary=CapabilityBoundary(over="worst", evaluations=1, max_steps=900)))
    evaluate(engine, 0, {"a": {"format_compliance": 1.0}})
    assert engine.stages.stage == 1
    evaluate(engine, 25, {"b": {"format_compliance": 1.0}})
    assert engine.stages.stage == 2


def test_state_of_other_keys_is_refused() -> None:
    stages = machine(None)
    with pytest.raises(StateError, match="passes_in_a_row"):
        stages.load_state_dict({"stage": 2})
