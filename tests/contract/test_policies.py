"""What every policy and every prior promises, for each member of their unions.

A new member fails here until it has an example.
"""

import dataclasses
import json
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from scheduler.engine import HeatEngine
from scheduler.policies import Evidence, Hold, Target, decide
from scheduler.prior import prior_weights
from scheduler.setup import (
    ExplicitPrior,
    HeatPolicy,
    Policy,
    Prior,
    ProportionalPrior,
    StaticPolicy,
    TemperaturePrior,
    UniformPrior,
)
from tests.unit.scheduler.made import evaluate, setup

POLICIES: list[Any] = [
    StaticPolicy(),
    HeatPolicy(),
    HeatPolicy(strength=0.0, long_tail_boost=0.0),
    HeatPolicy(strength=20.0, long_tail_boost=5.0),
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

every_policy = pytest.mark.parametrize("policy", POLICIES, ids=repr)
every_prior = pytest.mark.parametrize("prior", PRIORS, ids=repr)


def members(union: Any) -> set[type]:
    return set(get_args(get_args(union)[0]))


def evidence(seed: int = 0, num_tasks: int = 8) -> Evidence:
    """Random evidence in which some tasks have no prior, some were never measured, some are long-tail."""
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(num_tasks)) * (rng.random(num_tasks) > 0.2)
    measured = rng.random(num_tasks) > 0.3
    measured[0] = True
    return Evidence(
        prior=prior / prior.sum(),
        heat=rng.random(num_tasks) * measured,
        learnability=rng.uniform(0.1, 1.0, num_tasks),
        gap=rng.random(num_tasks) * measured,
        long_tail=rng.random(num_tasks) > 0.5,
        measured=measured,
        fresh=int(measured.sum()),
    )


def asked(policy: Any, seen: Evidence) -> np.ndarray:
    outcome = decide(policy, seen)
    assert isinstance(outcome, Target)
    return outcome.logits


def test_every_policy_and_every_prior_has_an_example() -> None:
    assert members(Policy) == {type(policy) for policy in POLICIES}
    assert members(Prior) == {type(prior) for prior in PRIORS}


@every_policy
def test_a_policy_survives_json(policy: Any) -> None:
    adapter = TypeAdapter(Policy)
    assert adapter.validate_python(json.loads(json.dumps(adapter.dump_python(policy, mode="json")))) == policy


@every_policy
@pytest.mark.parametrize("seed", range(10))
def test_a_policy_asks_for_a_finite_number_per_task_or_says_why_it_holds(policy: Any, seed: int) -> None:
    outcome = decide(policy, evidence(seed))
    match outcome:
        case Target(logits=logits):
            assert logits.shape == (8,)
            assert np.isfinite(logits).all()
        case Hold(reason=reason):
            assert reason


@every_policy
def test_a_policy_without_fresh_evidence_holds_or_asks_for_the_prior(policy: Any) -> None:
    unmeasured = dataclasses.replace(evidence(), fresh=0, measured=np.zeros(8, dtype=bool), heat=np.zeros(8))
    outcome = decide(policy, unmeasured)
    if isinstance(outcome, Target):
        assert np.ptp(outcome.logits - np.log(np.maximum(unmeasured.prior, 1e-30))) == pytest.approx(0.0)


@every_policy
def test_a_policy_is_a_pure_function(policy: Any) -> None:
    seen, untouched = evidence(3), evidence(3)
    first, second = asked(policy, seen), asked(policy, seen)
    assert first.tolist() == second.tolist()
    for field in dataclasses.fields(Evidence):
        assert np.array_equal(getattr(seen, field.name), getattr(untouched, field.name))


@every_policy
def test_a_policy_does_not_care_for_the_order_of_tasks(policy: Any) -> None:
    seen, order = evidence(4), np.random.default_rng(0).permutation(8)
    columns = {f.name: getattr(seen, f.name)[order] for f in dataclasses.fields(Evidence) if f.name != "fresh"}
    shuffled = dataclasses.replace(seen, **columns)
    np.testing.assert_allclose(asked(policy, shuffled), asked(policy, seen)[order], rtol=1e-12)


@every_policy
def test_tasks_that_look_the_same_are_treated_the_same(policy: Any) -> None:
    columns = {
        f.name: np.repeat(getattr(evidence(5), f.name), 2) for f in dataclasses.fields(Evidence) if f.name != "fresh"
    }
    logits = asked(policy, Evidence(**columns, fresh=4))
    assert logits[0::2].tolist() == logits[1::2].tolist()


@every_policy
@pytest.mark.parametrize("num_tasks", [1, 2, 500])
def test_every_policy_drives_an_engine_of_any_size(policy: Any, num_tasks: int) -> None:
    names = [f"t{index}" for index in range(num_tasks)]
    engine = HeatEngine(setup(names, policies=(policy, policy)))
    for step in (0, 25, 50):
        fields = {name: {"score": (index * 7 + step) % 11 / 10} for index, name in enumerate(names[:100])}
        evaluate(engine, step, fields)
        weights = np.array(engine.plan.weights)
        assert abs(weights.sum() - 1) <= 1e-12
        assert np.all((weights >= engine.guards.floor) & (weights <= engine.guards.ceiling))


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
