"""What agrees until when is what the engine, the stages and the learning rate really do; plans share it and no more."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import RunConfig
from cluster.sweep.sharing import Origin, SharingPlan, Trunk, plan_sharing, unshared
from cluster.sweep.timeline import agree_until, timeline
from scheduler.engine import HeatEngine
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport, TaskSignal
from scheduler.task import TaskSpec
from tests.unit.cluster.sweep.configs import run_config, stages
from train.schedule import learning_rate

INTERVAL, STEPS = 10, 100
STEP_50: dict[str, Any] = {"type": "step", "step": 50}


def agree(one: RunConfig, other: RunConfig) -> int:
    return agree_until(timeline(one), timeline(other))


def with_stages(until: dict[str, Any] | None, **second: Any) -> RunConfig:
    return run_config(stages=stages(until, **second))


@pytest.mark.parametrize(
    ("changed", "until"),
    [
        ({"stages": stages({"type": "step", "step": 80})}, 40),
        ({"stages": stages({"type": "step", "step": 41})}, 90),
        ({"stages": stages({"type": "fraction", "fraction": 0.3})}, 20),
        ({"stages": stages(None)}, 40),
        ({"stages": stages(STEP_50, policy={"type": "odm"})}, 40),
        ({"stages": stages(STEP_50, learning_rate=0.1)}, 50),
        ({"stages": stages(STEP_50, warmup_steps=3)}, 50),
        ({"stages": stages(STEP_50, first={"max_grad_norm": 3})}, 0),
        ({"stages": stages(STEP_50, arrangement={"contrast": 1})}, 0),
        ({"stages": stages(STEP_50, difficulty={"last": 2})}, 0),
        ({"train": {"steps": 120}}, 0),
        ({"train": {"learning_rate": 0.1}}, 0),
        ({"train": {"keep_checkpoints": 7}}, 90),
        ({"mixture": {"policy": {"type": "odm"}}}, 0),
        ({"mixture": {"guards": {"ceiling": 0.5}}}, 0),
        ({"seed": 3}, 0),
        ({"output": {"name": "other"}}, 90),
    ],
)
def test_what_a_changed_setting_leaves_in_common(changed: dict[str, Any], until: int) -> None:
    assert agree(run_config(), run_config(**changed)) == until


def test_the_runs_policy_matters_from_where_a_stage_without_its_own_begins() -> None:
    own = stages(STEP_50, first={"policy": {"type": "heat"}})
    assert agree(run_config(stages=own), run_config(stages=own, mixture={"policy": {"type": "odm"}})) == 40


def test_a_capability_boundary_is_shared_until_it_could_come() -> None:
    asked = {"type": "capability", "min_steps": 35, "evaluations": 2}
    assert agree(with_stages(asked), with_stages(asked, policy={"type": "odm"})) == 30
    assert agree(with_stages(asked), with_stages({**asked, "min_steps": 65})) == 30
    assert agree(with_stages(asked), with_stages({**asked, "at_least": 0.5})) == 0
    soon = {"type": "capability", "evaluations": 3}
    assert agree(with_stages(soon), with_stages(soon, policy={"type": "odm"})) == 20


def test_nothing_is_shared_where_equal_runs_need_not_be_equal() -> None:
    one, other = (run_config(mixture={"mode": "async"}, output={"name": name}) for name in ("a", "b"))
    assert agree(one, other) == 0


POLICIES = [{"type": "heat"}, {"type": "odm"}, {"type": "static"}]
UNTILS = [
    None,
    *({"type": "step", "step": step} for step in (7, 30, 31, 55, 95)),
    {"type": "fraction", "fraction": 0.3},
    {"type": "capability", "metric": "score", "at_least": 0.4, "evaluations": 2, "min_steps": 25},
    {"type": "capability", "metric": "score", "at_least": 0.4, "evaluations": 2, "min_steps": 45},
    {"type": "capability", "metric": "score", "at_least": 0.7, "evaluations": 1},
    {"type": "capability", "at_least": 1.0, "max_steps": 30},
]


def some(**options: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each option one of its values, or left out."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in options.items()})


IN_COMMON = st.shared(
    st.tuples(some(policy=POLICIES[:2], learning_rate=[0.1]), st.sampled_from(["lag1", "sync"])), key="in common"
)


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    """Runs of one example have stage 1 and the mode in common, so that they agree for a while."""
    first, mode = draw(IN_COMMON)
    second = draw(some(policy=POLICIES, learning_rate=[0.1, 0.2], warmup_steps=[3]))
    return run_config(
        stages=stages(draw(st.sampled_from(UNTILS)), first=first, **second),
        mixture={"interval_steps": INTERVAL, "mode": mode, **draw(some(policy=POLICIES[:2]))},
    )


def setup_of(config: RunConfig) -> EngineSetup:
    first, last = config.stages[0], config.stages[-1]
    return EngineSetup(
        tasks=tuple(TaskSpec(name=name) for name in "abc"),
        num_rows=(50, 60, 70),
        seed=config.seed,
        total_steps=config.train.steps,
        global_batch_size=6,
        mixture=config.mixture,
        boundary=first.until,
        stage_policies=(first.policy or config.mixture.policy, last.policy or config.mixture.policy),
    )


def signals(step: int) -> list[TaskSignal]:
    """Scores that rise at their own pace, the same whatever was trained."""
    return [
        TaskSignal(
            task=name,
            attempt=0,
            step=step,
            plan_version=0,
            num_probes=20,
            score=min(1.0, (step + 10) * pace / STEPS),
            loss=2.0 / (1 + step * pace),
            sampled_score=0.5,
            score_variance=0.1,
            num_rejected=1,
            num_reviewed=6,
            format_compliance=min(1.0, step / 40),
        )
        for name, pace in zip("abc", (0.5, 1.0, 2.0), strict=True)
    ]


def played(config: RunConfig) -> list[tuple[Any, ...]]:
    """At every boundary: step, plan in force, state in the checkpoint, the interval's learning rates."""
    setup = setup_of(config)
    engine, told, plans = HeatEngine(setup), [], []
    training = [stage.training(config.train) for stage in (config.stages[0], config.stages[-1])]

    def evaluate(step: int) -> None:
        for signal in signals(step):
            engine.observe(signal)
        plans.append(engine.decide(step)[0].plan)

    for step in range(0, STEPS, INTERVAL):
        if setup.mode == "sync":
            evaluate(step)
        elif step > 0:
            evaluate(step - INTERVAL)
        plan = max((one for one in plans if one.effective_from_step <= step), key=lambda p: p.version, default=None)
        plan = plan or HeatEngine(setup).plan
        counts = tuple(2 * step for _ in range(3))
        engine.observe_interval(
            IntervalReport(
                attempt=0, step=step, plan_version=0, num_samples=counts, num_tokens=counts,
                train_loss=(1.0, None, 0.5), sequence_hash=0, num_arranged=(6 * step, 0, 0), num_own_answers=0,
            )
        )  # fmt: skip
        rates = [
            learning_rate(
                training[plan.stage - 1],
                step=at,
                stage_start_step=plan.stage_start_step,
                total_steps=STEPS,
                final_lr_ratio=0.1,
            )
            for at in range(step, step + INTERVAL)
        ]
        told.append((step, plan, engine.state_dict(), rates, setup.seed, setup.mode))
    return told


@given(configs(), configs())
def test_two_runs_have_the_same_state_at_the_checkpoint_they_agree_until(one: RunConfig, other: RunConfig) -> None:
    until = agree(one, other)
    for left, right in zip(played(one), played(other), strict=True):
        if until == 0 or left[0] > until:
            break
        assert repr(left[1:3]) == repr(right[1:3])
        if left[0] < until:
            assert left[3:] == right[3:]


@given(configs(), configs(), configs())
def test_agreement_is_an_ultrametric(one: RunConfig, other: RunConfig, third: RunConfig) -> None:
    assert agree(one, other) == agree(other, one)
    assert agree(one, third) >= min(agree(one, other), agree(other, third))


@given(st.lists(configs(), min_size=1, max_size=8), st.integers(1, 60))
def test_every_trial_descends_from_runs_that_agree_with_it_and_nothing_costs_more(
    drawn: list[RunConfig], min_saved: int
) -> None:
    lines = [timeline(config) for config in drawn]
    plan = plan_sharing(lines, min_saved_steps=min_saved)
    assert plan.trained_steps(lines) <= unshared(len(lines)).trained_steps(lines)
    for number, trunk in enumerate(plan.trunks):
        assert trunk.origin is None or trunk.origin.trunk < number
        assert trunk.forks[-1] == trunk.stop
        assert trunk.forks[0] > (trunk.origin.step if trunk.origin else 0)
    for trial, begins in enumerate(plan.origins):
        below, origin = STEPS, begins
        while origin is not None:
            trunk = plan.trunks[origin.trunk]
            assert 0 < origin.step < below
            assert origin.step in trunk.forks
            assert origin.step % INTERVAL == 0
            agreed = agree_until(lines[trunk.representative], lines[trial])
            assert trunk.representative == trial or agreed >= origin.step
            below, origin = origin.step, trunk.origin


def test_four_boundaries_and_three_policies_cost_one_trunk_and_the_tails() -> None:
    lines = [
        timeline(with_stages({"type": "step", "step": step}, policy=policy))
        for step in (50, 60, 70, 80)
        for policy in POLICIES
    ]
    plan = plan_sharing(lines)
    assert plan.trunks == (Trunk(representative=9, origin=None, stop=70, forks=(40, 50, 60, 70)),)
    assert plan.origins == tuple(Origin(0, step) for step in (40, 50, 60, 70) for _ in POLICIES)
    assert plan.trained_steps(lines) == 70 + 3 * (60 + 50 + 40 + 30)


def test_forks_start_from_forks_where_trials_part_twice() -> None:
    lines = [
        timeline(with_stages({"type": "step", "step": step}, learning_rate=rate))
        for step in (30, 80)
        for rate in (0.1, 0.2)
    ]
    plan = plan_sharing(lines)
    assert plan == SharingPlan(
        trunks=(Trunk(2, None, 80, (20, 80)), Trunk(0, Origin(0, 20), 30, (30,))),
        origins=(Origin(1, 30), Origin(1, 30), Origin(0, 80), Origin(0, 80)),
    )


def test_too_small_a_saving_is_left() -> None:
    lines = [timeline(with_stages({"type": "step", "step": 30}, policy=policy)) for policy in POLICIES[:2]]
    assert plan_sharing(lines, min_saved_steps=21).trunks == ()
    assert len(plan_sharing(lines, min_saved_steps=20).trunks) == 1


def test_the_first_learning_rate_of_stage_2_is_not_trained_before_the_fork() -> None:
    rates = np.array([played(with_stages(STEP_50, learning_rate=rate))[4][3] for rate in (0.1, 0.2)])
    assert np.array_equal(rates[0], rates[1])
