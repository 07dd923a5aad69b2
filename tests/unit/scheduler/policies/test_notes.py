"""What is said of policies that a run is too short for, or may be frozen before."""

from typing import Any

import pytest

from scheduler.engine import HeatEngine
from scheduler.policies import policy_notes
from scheduler.policy_config import AioliPolicy, HeatPolicy, OdmPolicy
from tests.unit.scheduler.made import INTERVAL, evaluate, setup

HEAT, ODM, AIOLI = HeatPolicy(), OdmPolicy(), AioliPolicy()
STEP_100 = {"type": "step", "step": 100}


def notes(num_tasks: int, own: Any, *, steps: int, **fields: Any) -> tuple[str, ...]:
    names = [f"t{index}" for index in range(num_tasks)]
    return policy_notes(setup(names, total_steps=steps, **{"policies": (own, own), **fields}))


def test_nothing_is_said_where_a_policy_has_the_time_it_needs() -> None:
    assert notes(16, AIOLI, steps=500) == notes(40, ODM, steps=1000) == notes(500, HEAT, steps=26) == ()


def test_odm_is_said_to_ask_for_the_prior_alone_until_the_run_decides_last() -> None:
    # 40 ln 40 = 147.6
    assert notes(40, ODM, steps=151) == ()
    (note,) = notes(40, ODM, steps=150, policy=ODM)
    assert note.startswith("mixture.policy: odm asks for the prior alone in the first K ln K steps, 148 with 40 tasks")
    assert "decides last at step 125" in note


def test_aioli_is_said_to_leave_its_base_alone_without_more_evaluations_than_tasks() -> None:
    assert notes(7, AIOLI, steps=226) == ()
    (note,) = notes(7, AIOLI, steps=200, policy=AIOLI)
    assert note.startswith("mixture.policy: aioli corrects nothing before more evaluations count than the 7 tasks")
    assert "the run's 7 with a gain" in note
    assert "evaluate more often (mixture.interval_steps)" in note
    assert "mixture.policy.forgetting to 1" in notes(7, AIOLI, steps=201, policy=AIOLI)[0]


@pytest.mark.parametrize(
    ("policies", "boundary", "places"),
    [
        ((AIOLI, HEAT), STEP_100, ["stages.0.policy"]),
        ((HEAT, AIOLI), STEP_100, []),
        ((HEAT, AIOLI), {"type": "fraction", "fraction": 0.9}, ["stages.1.policy"]),
        ((AIOLI, HEAT), {"type": "capability"}, []),
        ((AIOLI, HEAT), {"type": "capability", "max_steps": 100}, ["stages.0.policy"]),
        ((HEAT, AIOLI), {"type": "capability", "min_steps": 900}, ["stages.1.policy"]),
        ((AIOLI, AIOLI), STEP_100, []),
        ((HEAT, AIOLI), None, []),
    ],
)
def test_only_the_evaluations_of_the_stages_that_have_the_policy_count(
    policies: Any, boundary: Any, places: list[str]
) -> None:
    found = notes(6, AIOLI, steps=1000, policies=policies, boundary=boundary)
    assert [note.split(":")[0] for note in found] == places


@pytest.mark.parametrize(
    ("frozen_after", "boundary", "step"),
    [
        (0.5, {"type": "capability"}, 500),
        (0.501, {"type": "capability"}, None),
        (0.7, {"type": "capability", "max_steps": 690}, 700),
        (0.7, {"type": "capability", "max_steps": 675}, None),
        (0.7, {"type": "capability", "min_steps": 800}, 800),
        (None, {"type": "capability", "max_steps": 950}, None),
        (0.7, STEP_100, None),
        (0.7, None, None),
    ],
)
def test_a_freeze_before_a_capability_must_be_there_is_noted_with_both_steps(
    frozen_after: float | None, boundary: Any, step: int | None
) -> None:
    found = notes(3, HEAT, steps=1000, boundary=boundary, states={"frozen_after": frozen_after})
    if step is None:
        assert found == ()
    else:
        (note,) = found
        assert note.startswith(f"mixture.states.frozen_after {frozen_after}: the mixture is frozen from step ")
        assert f"stage 1 may last to step {step} (stages.0.until.max_steps)" in note


def test_a_capability_that_is_never_there_leaves_stage_2_out_exactly_where_it_is_noted() -> None:
    for max_steps in range(640, 720, 5):
        boundary = {"type": "capability", "metric": "score", "max_steps": max_steps}
        made = setup(boundary=boundary, states={"frozen_after": 0.68})
        engine = HeatEngine(made)
        stages = {evaluate(engine, step, {"a": {"score": 0.1}}).plan.stage for step in range(0, 1000, INTERVAL)}
        assert (stages == {1}) == bool(policy_notes(made))
