"""What every policy and every prior promises, for each member of their unions.

A new member fails here until it has an example.
"""

import dataclasses
import json
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from scheduler.arrays import packed, unpacked
from scheduler.policies import Evidence, Hold, Memory, Target, answer, resolve
from scheduler.policy_config import (
    AdaptivePolicy,
    AdoPolicy,
    AioliPolicy,
    Exp3Policy,
    ExplicitPrior,
    GradientPolicy,
    GroupDroPolicy,
    HeatPolicy,
    OdmPolicy,
    Policy,
    Prior,
    ProgressPolicy,
    ProportionalPrior,
    SchedulePolicy,
    SkillItPolicy,
    StaticPolicy,
    TargetGapPolicy,
    TemperaturePrior,
    UniformPrior,
)
from scheduler.prior import prior_weights
from scheduler.setup import EngineSetup
from tests.unit.scheduler.made import setup

POLICIES: list[Any] = [
    StaticPolicy(),
    SchedulePolicy(after=UniformPrior(), shape="cosine", begins=0.2, ends=0.6),
    SchedulePolicy(before=UniformPrior(), after=ProportionalPrior(), shape="step", begins=0.8),
    HeatPolicy(),
    HeatPolicy(strength=0.0, long_tail_boost=0.0),
    HeatPolicy(strength=20.0, long_tail_boost=5.0),
    ProgressPolicy(),
    ProgressPolicy(strength=20.0, rate=1.0, exploration=0.0, measure="score", min_measured_ratio=0.0),
    TargetGapPolicy(),
    TargetGapPolicy(strength=20.0, target_losses={"t0": 0.1}, min_measured_ratio=0.0),
    GroupDroPolicy(),
    GroupDroPolicy(badness="loss", rate=10.0, anchor=0.0, size_adjustment=1.0, reference_losses={"t0": 0.3}),
    Exp3Policy(),
    Exp3Policy(measure="train_loss", rate=10.0, share=0.0, exploration=0.0, min_measured_ratio=0.0),
    OdmPolicy(),
    OdmPolicy(measure="score", rate=1.0, reward_scale=1000.0, min_exploration=0.0),
    AdoPolicy(min_points=4),
    AdoPolicy(measure="train_loss", mixing=1.0, min_points=4, min_measured_ratio=0.0),
    SkillItPolicy(),
    SkillItPolicy(effects={"t0": {"t0": 3.0}}, strength=20.0, window=1, min_measured_ratio=0.0),
    GradientPolicy(),
    GradientPolicy(form="alignment", rate=10.0, anchor=0.0, min_measured_ratio=0.0),
    AioliPolicy(),
    AioliPolicy(base=TargetGapPolicy(), forgetting=0.98),
    AioliPolicy(base=StaticPolicy(), strength=20.0, min_z=0.0, forgetting=1.0, min_measured_ratio=0.0),
]
PRIORS: list[Any] = [
    ProportionalPrior(),
    UniformPrior(),
    TemperaturePrior(tau=1.0),
    TemperaturePrior(tau=5.0),
    ExplicitPrior(weights={"t0": 1.0}),
    ExplicitPrior(weights={"t0": 3.0, "t1": 1e-9, "t2": 1e9}),
]
NAMES = ("t0", "t1", "t2", "t3")
NUM_TASKS = 8
NOT_PER_TASK = {"step", "progress"}
BY_THE_CLOCK = (StaticPolicy, SchedulePolicy)

every_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)
every_adaptive_policy = pytest.mark.parametrize(
    "policy", [policy for policy in POLICIES if isinstance(policy, AdaptivePolicy)], ids=repr
)
every_prior = pytest.mark.parametrize("prior", PRIORS, ids=repr)


def members(union: Any) -> set[type]:
    return set(get_args(get_args(union)[0]))


def evidence(seed: int = 0, num_tasks: int = NUM_TASKS) -> Evidence:
    """Random evidence in which some tasks have no prior, some were never measured, some not this time."""
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(num_tasks)) * (np.arange(num_tasks) != 5)
    measured = rng.random(num_tasks) > 0.2
    measured[:4] = True
    fresh = measured & ((rng.random(num_tasks) > 0.2) | (np.arange(num_tasks) < 4))

    def column(scale: float, known: np.ndarray = measured) -> np.ndarray:
        return np.where(known, scale * rng.random(num_tasks), np.nan)

    twice = measured & (rng.random(num_tasks) > 0.1)
    exposure = column(1000.0, twice)
    return Evidence(
        prior=prior / prior.sum(),
        previous=rng.dirichlet(np.ones(num_tasks)),
        num_rows=rng.integers(1, 10**6, num_tasks).astype(float),
        heat=rng.random(num_tasks) * measured,
        learnability=rng.uniform(0.1, 1.0, num_tasks),
        given_up=rng.random(num_tasks) > 0.8,
        gap=rng.random(num_tasks) * measured,
        long_tail=rng.random(num_tasks) > 0.5,
        measured=measured,
        fresh=fresh,
        span=np.where(twice, rng.integers(1, 4, num_tasks), np.nan),
        score=column(1.0),
        first_score=column(1.0),
        best_score=column(1.0),
        previous_score=column(1.0, twice),
        loss=column(4.0),
        first_loss=column(4.0),
        best_loss=column(4.0),
        previous_loss=column(4.0, twice),
        train_loss=column(4.0),
        previous_train_loss=column(4.0, twice),
        first_train_loss=column(4.0),
        gradient_squared=column(2.0),
        gradient_variance=column(50.0),
        gradient_pull=column(1.0) - 0.3,
        gradient_fresh=measured & (rng.random(num_tasks) > 0.5),
        served=1000.0 * rng.random(num_tasks),
        exposure=exposure,
        total_exposure=np.where(twice, float(np.nansum(exposure)), np.nan),
        step=25 * (seed + 1),
        progress=min(0.04 * seed, 1.0),
    )


def reordered(seen: Evidence, order: Any) -> Evidence:
    names = [field.name for field in dataclasses.fields(Evidence) if field.name not in NOT_PER_TASK]
    return dataclasses.replace(seen, **{name: getattr(seen, name)[order] for name in names})


def run_setup(num_tasks: int = NUM_TASKS, *, names: Any = None, policy: Any = None, **mixture: Any) -> EngineSetup:
    policies = {} if policy is None else {"policies": (policy, policy)}
    return setup(names or [f"t{index}" for index in range(num_tasks)], **policies, **mixture)


def play(policy: Any, seen: list[Evidence], made: EngineSetup | None = None) -> tuple[list[Any], Memory]:
    """Outcomes of the policy on one evaluation after the other, and its memory in the end."""
    rule = resolve(policy, made or run_setup(len(seen[0].prior)))
    memory, outcomes = rule.first_memory(len(seen[0].prior)), []
    for one in seen:
        answered = answer(policy, rule, one, memory)
        memory = answered.memory
        outcomes.append(answered.outcome)
    return outcomes, memory


def shares(outcome: Any) -> np.ndarray:
    assert isinstance(outcome, Target)
    odds = np.exp(outcome.logits - outcome.logits.max())
    return odds / odds.sum()


def test_every_policy_and_every_prior_has_an_example() -> None:
    assert members(Policy) == {type(policy) for policy in POLICIES}
    assert members(Prior) == {type(prior) for prior in PRIORS}


@every_policy
def test_a_policy_survives_json(policy: Any) -> None:
    adapter = TypeAdapter(Policy)
    assert adapter.validate_python(json.loads(json.dumps(adapter.dump_python(policy, mode="json")))) == policy


@every_policy
@pytest.mark.parametrize("seed", range(5))
def test_a_policy_asks_for_a_finite_number_per_task_or_says_why_it_holds(policy: Any, seed: int) -> None:
    outcomes, _ = play(policy, [evidence(8 * seed + index) for index in range(8)])
    for outcome in outcomes:
        match outcome:
            case Target(logits=logits):
                assert logits.shape == (NUM_TASKS,)
                assert np.isfinite(logits).all()
            case Hold(reason=reason):
                assert reason
    assert any(isinstance(outcome, Target) for outcome in outcomes)


@every_policy
def test_a_run_begins_with_shares_that_the_policy_asks_for_without_evidence(policy: Any) -> None:
    made = run_setup()
    prior = prior_weights(made)
    weights = resolve(policy, made).first_weights(prior)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0.0).all()
    if not isinstance(policy, SchedulePolicy):
        assert weights.tolist() == prior.tolist()


@every_policy
def test_a_policy_without_fresh_evidence_goes_by_the_clock_or_holds(policy: Any) -> None:
    nothing = np.zeros(NUM_TASKS, dtype=bool)
    outcomes, memory = play(policy, [dataclasses.replace(evidence(), fresh=nothing)])
    if isinstance(policy, BY_THE_CLOCK):
        assert isinstance(outcomes[0], Target)
    else:
        assert outcomes == [Hold("no task was measured in this evaluation")]
        empty = resolve(policy, run_setup()).first_memory(NUM_TASKS)
        assert all(np.array_equal(memory[name], empty[name], equal_nan=True) for name in empty)


@every_adaptive_policy
def test_an_evaluation_that_measured_too_little_moves_nothing_and_says_so(policy: Any) -> None:
    policy = policy.model_copy(update={"min_measured_ratio": 0.5})
    seen = dataclasses.replace(evidence(), prior=np.full(NUM_TASKS, 1 / NUM_TASKS), fresh=np.arange(NUM_TASKS) < 3)
    outcomes, memory = play(policy, [evidence(1), seen])
    _, before = play(policy, [evidence(1)])
    assert outcomes[1] == Hold(
        "the tasks measured in this evaluation hold 38% of the prior; 50% are asked for (min_measured_ratio)"
    )
    assert all(np.array_equal(memory[name], before[name], equal_nan=True) for name in memory)
    enough = dataclasses.replace(seen, fresh=np.arange(NUM_TASKS) < 4)
    assert isinstance(play(policy, [enough])[0][0], Target)


@every_adaptive_policy
def test_a_task_that_was_never_measured_keeps_its_prior_share(policy: Any) -> None:
    unknown = np.arange(NUM_TASKS) == 3
    gone = ("span", "score", "first_score", "best_score", "previous_score", "loss", "first_loss", "best_loss")
    gone += ("gradient_squared", "gradient_variance", "gradient_pull")
    gone += ("previous_loss", "train_loss", "previous_train_loss", "first_train_loss", "exposure", "total_exposure")
    seen = []
    for seed in range(8):
        one = dataclasses.replace(evidence(seed), prior=evidence(0).prior)
        columns = {name: np.where(unknown, np.nan, getattr(one, name)) for name in gone}
        seen.append(dataclasses.replace(one, measured=one.measured & ~unknown, fresh=one.fresh & ~unknown, **columns))
    outcomes, _ = play(policy, seen)
    for outcome in outcomes:
        assert shares(outcome)[3] == pytest.approx(evidence(0).prior[3], rel=1e-9)


@every_policy
def test_a_prior_of_zero_stays_zero_as_far_as_the_policy_is_concerned(policy: Any) -> None:
    seen = [dataclasses.replace(evidence(seed), prior=evidence(0).prior) for seed in range(8)]
    made = run_setup(cards={"t5": {"base_weight": 0.0}})
    for outcome in play(policy, seen, made)[0]:
        assert shares(outcome)[5] < 1e-15


@every_policy
def test_a_policy_is_a_pure_function(policy: Any) -> None:
    seen, untouched = [evidence(seed) for seed in range(6)], [evidence(seed) for seed in range(6)]
    first, second = play(policy, seen), play(policy, seen)
    for one, other in zip(first[0], second[0], strict=True):
        assert shares(one).tolist() == shares(other).tolist()
    assert all(packed(first[1][name]) == packed(second[1][name]) for name in first[1])
    for one, other in zip(seen, untouched, strict=True):
        for field in dataclasses.fields(Evidence):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name), equal_nan=True)


@every_policy
def test_a_memory_is_never_changed_in_place(policy: Any) -> None:
    rule = resolve(policy, run_setup())
    memory = rule.first_memory(NUM_TASKS)
    for seed in range(6):
        before = {name: packed(array) for name, array in memory.items()}
        newer = answer(policy, rule, evidence(seed), memory).memory
        assert {name: packed(array) for name, array in memory.items()} == before
        memory = newer


@every_policy
def test_a_memory_goes_through_json_and_later_answers_are_the_same_bit_for_bit(policy: Any) -> None:
    rule = resolve(policy, run_setup())
    memory = play(policy, [evidence(seed) for seed in range(6)])[1]
    written = json.loads(json.dumps({name: packed(array) for name, array in memory.items()}, allow_nan=False))
    loaded = unpacked(written, {name: array.shape for name, array in memory.items()}, what="policy")
    for seed in range(6, 9):
        one, other = (answer(policy, rule, evidence(seed), state) for state in (memory, loaded))
        assert shares(one.outcome).tolist() == shares(other.outcome).tolist()
        memory, loaded = one.memory, other.memory


@every_policy
def test_a_policy_does_not_care_for_the_order_of_tasks(policy: Any) -> None:
    order = np.random.default_rng(0).permutation(NUM_TASKS)
    names = [f"t{index}" for index in range(NUM_TASKS)]
    cards = {name: {"base_weight": 1.0 + index} for index, name in enumerate(names)}
    seen = [evidence(seed) for seed in range(6)]
    straight, _ = play(policy, seen, run_setup(names=names, cards=cards))
    made = run_setup(names=[names[index] for index in order], cards=cards)
    shuffled, _ = play(policy, [reordered(one, order) for one in seen], made)
    for one, other in zip(straight, shuffled, strict=True):
        np.testing.assert_allclose(shares(other), shares(one)[order], rtol=1e-8, atol=1e-13)


@every_policy
def test_tasks_that_look_the_same_are_treated_the_same(policy: Any) -> None:
    if isinstance(policy, SkillItPolicy | TargetGapPolicy | GroupDroPolicy):
        own = {"effects", "target_losses", "reference_losses"}
        policy = type(policy)(**policy.model_dump(exclude=own))
    twins = np.repeat(np.arange(NUM_TASKS), 2)
    for outcome in play(policy, [reordered(evidence(seed), twins) for seed in range(6)])[0]:
        np.testing.assert_allclose(shares(outcome)[0::2], shares(outcome)[1::2], rtol=1e-9)


@every_prior
def test_a_prior_survives_json(prior: Any) -> None:
    adapter = TypeAdapter(Prior)
    assert adapter.validate_python(json.loads(json.dumps(adapter.dump_python(prior, mode="json")))) == prior


@every_prior
@pytest.mark.parametrize("rows", [(1, 1, 1, 1), (1, 10, 10**3, 10**9)])
def test_a_prior_is_a_mixture(prior: Any, rows: tuple[int, ...]) -> None:
    weights = prior_weights(setup(NAMES, prior=prior, num_rows=rows))
    assert np.all(weights >= 0)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)


@every_prior
def test_a_prior_does_not_care_for_the_order_of_tasks(prior: Any) -> None:
    rows = (5, 50, 500, 5000)
    forward = prior_weights(setup(NAMES, prior=prior, num_rows=rows))
    backward = prior_weights(setup(NAMES[::-1], prior=prior, num_rows=rows[::-1]))
    assert forward.tolist() == pytest.approx(backward[::-1].tolist())


@every_prior
def test_under_any_prior_a_base_weight_of_zero_takes_a_task_out(prior: Any) -> None:
    weights = prior_weights(setup(NAMES, prior=prior, cards={"t1": {"base_weight": 0}}))
    assert weights[1] == 0.0


@every_prior
def test_under_any_prior_the_business_value_multiplies_the_odds(prior: Any) -> None:
    plain = prior_weights(setup(NAMES, prior=prior))
    valued = prior_weights(setup(NAMES, prior=prior, cards={"t0": {"business_value": 2.0}}))
    doubled = plain * [2.0, 1.0, 1.0, 1.0]
    assert valued.tolist() == pytest.approx((doubled / doubled.sum()).tolist())
