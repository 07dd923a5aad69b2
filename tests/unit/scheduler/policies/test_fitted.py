"""ADO and the Aioli corrector: that they recover laws and effects they are shown, and keep still without them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scheduler.errors import ConfigError
from scheduler.policies import Evidence, Target, resolve
from scheduler.policies.ado import AdoRule
from scheduler.policies.aioli import AioliRule, counted_evaluations, default_forgetting
from scheduler.policy_config import AdoPolicy, AioliPolicy, HeatPolicy, StaticPolicy, TargetGapPolicy
from scheduler.setup import EngineSetup
from tests.unit.scheduler.made import setup
from tests.unit.scheduler.policies.made import asked, evidence, last_asked

TWO, THREE = setup(("a", "b")), setup(("a", "b", "c"))
OFFSET = 100


def on_a_law(served: float) -> Evidence:
    """Losses 4 · (0.2 + 0.8 x^-0.5) and 2 · (0.6 + 0.4 x^-0.3) at x = 1 + served / 100."""
    x = 1.0 + served / OFFSET
    left = np.array([0.2 + 0.8 * x**-0.5, 0.6 + 0.4 * x**-0.3])
    return evidence(2, loss=left * [4.0, 2.0], first_loss=[4.0, 2.0], served=[served, served])


def test_ado_recovers_the_slope_of_the_law_that_losses_follow() -> None:
    rule = resolve(AdoPolicy(offset_samples=OFFSET), TWO)
    assert isinstance(rule, AdoRule)
    seen = [on_a_law(served) for served in range(0, 1000, 100)]
    _, memory = last_asked(rule, seen)
    x = 10.0
    slopes = [0.5 * 0.8 * x**-1.5 / OFFSET, 0.3 * 0.4 * x**-1.3 / OFFSET]
    assert rule.speed(seen[-1].served, rule.law(seen[-1].served), memory).tolist() == pytest.approx(slopes, rel=1e-6)


def test_ado_prefers_slopes_and_mixes_them_with_the_mean_of_all_targets() -> None:
    rule = resolve(AdoPolicy(offset_samples=OFFSET, mixing=0.25, min_points=10), TWO)
    shares, _ = last_asked(rule, [on_a_law(served) for served in range(0, 1000, 100)])
    x = 10.0
    slopes = np.array([0.5 * 0.8 * x**-1.5, 0.3 * 0.4 * x**-1.3])
    # the mean of the nine targets before the law was used, and of the prior, is the prior
    assert shares.tolist() == pytest.approx((0.25 * slopes / slopes.sum() + 0.75 * 0.5).tolist(), rel=1e-6)


def test_ado_keeps_to_the_prior_until_it_has_enough_points_or_where_nothing_falls() -> None:
    rule = resolve(AdoPolicy(min_points=5), TWO)
    assert last_asked(rule, [on_a_law(served) for served in (0, 100, 200, 300)])[0].tolist() == [0.5, 0.5]
    rising = [evidence(2, loss=[1.0 + 0.1 * n, 1.0], served=[100.0 * n] * 2) for n in range(8)]
    assert last_asked(rule, rising)[0].tolist() == pytest.approx([0.5, 0.5])


def by_token(made: EngineSetup, *mean_tokens: float) -> EngineSetup:
    """The same run, whose weights are shares of supervised tokens."""
    mixture = made.mixture.model_copy(update={"weight_unit": "tokens"})
    return made.model_copy(update={"mixture": mixture, "mean_supervised_tokens": mean_tokens})


def test_ado_sees_the_same_law_whether_samples_or_their_tokens_are_counted() -> None:
    policy, tokens = AdoPolicy(offset_samples=OFFSET), np.array([40.0, 5.0])
    by_sample, by_tokens = resolve(policy, TWO), resolve(policy, by_token(TWO, *tokens))
    assert isinstance(by_sample, AdoRule)
    assert isinstance(by_tokens, AdoRule)
    seen = [on_a_law(served) for served in range(0, 1000, 100)]
    counted = [dataclasses.replace(one, served=one.served * tokens) for one in seen]
    last, same = seen[-1].served, counted[-1].served
    np.testing.assert_allclose(by_tokens.law(same), by_sample.law(last), rtol=1e-12)
    speeds = by_sample.speed(last, by_sample.law(last), last_asked(by_sample, seen)[1])
    per_token = by_tokens.speed(same, by_tokens.law(same), last_asked(by_tokens, counted)[1])
    np.testing.assert_allclose(per_token, speeds / tokens, rtol=1e-9)


def test_ado_says_what_it_counts() -> None:
    for made, unit in ((TWO, "1000 more samples"), (by_token(TWO, 7.0, 7.0), "1000 more supervised tokens")):
        outcome = resolve(AdoPolicy(), made).step(on_a_law(0.0), resolve(AdoPolicy(), made).first_memory(2)).outcome
        assert isinstance(outcome, Target)
        assert outcome.driver is not None
        assert outcome.driver.label.endswith(unit)


EFFECTS = np.array([[0.30, 0.10, 0.00], [0.05, 0.20, 0.00], [0.00, 0.10, 0.05]])


def intervals(num: int, *, noise: float, moves: float = 0.3, seed: int = 0) -> list[Evidence]:
    """Relative falls of the losses that `EFFECTS` of varying shares give."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        shares = 1 / 3 + moves * (rng.dirichlet(np.ones(3)) - 1 / 3)
        fall = EFFECTS @ shares + noise * rng.standard_normal(3)
        found.append(evidence(3, previous_loss=np.ones(3), loss=1.0 - fall, exposure=100.0 * shares, heat=np.zeros(3)))
    return found


def test_aioli_recovers_the_effects_and_tilts_by_their_normalised_column_sums() -> None:
    rule = resolve(AioliPolicy(strength=0.5), THREE)
    assert isinstance(rule, AioliRule)
    shares, memory = last_asked(rule, intervals(12, noise=0.0))
    effects = rule.estimate(memory, np.ones(3, dtype=bool))
    assert effects is not None
    np.testing.assert_allclose(effects.matrix, EFFECTS, atol=1e-9)
    # columns 0.35, 0.40, 0.05 of a sum of 0.8; the least entry is 0
    odds = np.exp(0.5 * np.array([0.35, 0.40, 0.05]) / 0.8)
    assert shares.tolist() == pytest.approx((odds / odds.sum()).tolist())


def test_aioli_standard_errors_are_those_of_least_squares() -> None:
    rule = resolve(AioliPolicy(forgetting=1.0), THREE)
    assert isinstance(rule, AioliRule)
    seen = intervals(20, noise=0.02, seed=3)
    _, memory = last_asked(rule, seen)
    effects = rule.estimate(memory, np.ones(3, dtype=bool))
    design = np.array([one.exposure / 100.0 for one in seen])
    total = np.array([(one.previous_loss - one.loss).sum() for one in seen])
    found, residual, _, _ = np.linalg.lstsq(design, total)
    centre = np.eye(3) - 1 / 3
    covariance = centre @ np.linalg.inv(design.T @ design) @ centre * residual[0] / 17
    assert effects is not None
    np.testing.assert_allclose(effects.matrix.sum(axis=0), found, rtol=1e-8)
    np.testing.assert_allclose(effects.standard_errors, np.sqrt(np.diag(covariance)), rtol=1e-6)


@pytest.mark.parametrize(
    "seen",
    [intervals(3, noise=0.0), intervals(20, noise=0.5), intervals(20, noise=0.0, moves=0.0)],
    ids=["too few", "too noisy", "shares that never move"],
)
def test_aioli_leaves_the_base_alone_while_it_cannot_tell_effects_apart(seen: list[Evidence]) -> None:
    rule = resolve(AioliPolicy(base=StaticPolicy()), THREE)
    assert last_asked(rule, seen)[0].tolist() == pytest.approx([1 / 3] * 3)


def test_aioli_does_not_use_an_evaluation_that_missed_a_task() -> None:
    rule = resolve(AioliPolicy(), THREE)
    memory = rule.first_memory(3)
    partial = evidence(3, fresh=[True, True, False])
    gap = evidence(3, span=[1.0, 2.0, 1.0])
    for one in (partial, gap):
        assert float(rule.step(one, memory).memory["points"]) == 0.0


def test_no_two_weights_are_corrected_against_each_other_by_more_than_the_strength_allows() -> None:
    rule = resolve(AioliPolicy(base=StaticPolicy(), strength=0.2, min_z=0.0), THREE)
    for seed in range(10):
        shares, _ = last_asked(rule, intervals(8, noise=0.3, seed=seed))
        assert shares.max() / shares.min() <= np.exp(0.2) + 1e-12


def many(num_tasks: int, **fields: Any) -> EngineSetup:
    return setup([f"t{index}" for index in range(num_tasks)], **fields)


@pytest.mark.parametrize("num_tasks", [9, 12, 16])
def test_aioli_opens_its_gate_for_as_many_tasks_as_it_takes_by_default(num_tasks: int) -> None:
    rule = resolve(AioliPolicy(base=StaticPolicy()), many(num_tasks))
    rng, effects = np.random.default_rng(0), np.diag(np.linspace(0.0, 0.5, num_tasks))
    seen = []
    for _ in range(19):
        shares = rng.dirichlet(np.ones(num_tasks))
        fall, ones = effects @ shares, np.ones(num_tasks)
        seen.append(evidence(num_tasks, previous_loss=ones, loss=ones - fall, exposure=100.0 * shares))
    asked_for, _ = last_asked(rule, seen)
    assert asked_for[-1] > 1.01 * asked_for[0]


def test_forgetting_rises_with_the_tasks_and_leaves_room_in_a_run_of_twenty_evaluations() -> None:
    assert [default_forgetting(num_tasks) for num_tasks in (1, 3, 5)] == [0.9] * 3
    for num_tasks in range(6, 17):
        assert default_forgetting(num_tasks) > default_forgetting(num_tasks - 1)
    for num_tasks in range(1, 17):
        assert counted_evaluations(default_forgetting(num_tasks), 19) > num_tasks + 1
        assert counted_evaluations(default_forgetting(num_tasks)) >= 1.25 * num_tasks


@pytest.mark.parametrize(("num_tasks", "forgetting"), [(9, 0.9), (16, 0.9), (16, 0.945), (3, 0.5)])
def test_aioli_that_forgets_too_fast_for_its_tasks_is_refused(num_tasks: int, forgetting: float) -> None:
    policy = AioliPolicy(forgetting=forgetting)
    with pytest.raises(ConfigError, match=f"forgetting: at {forgetting} .* of {num_tasks} tasks .* set it to") as error:
        resolve(policy, many(num_tasks))
    remedy = float(str(error.value).split("set it to ")[1].split()[0])
    resolve(AioliPolicy(forgetting=remedy), many(num_tasks))


def test_tasks_without_a_prior_do_not_count_for_how_fast_aioli_may_forget() -> None:
    cards = {f"t{index}": {"base_weight": 0.0} for index in range(8, 12)}
    resolve(AioliPolicy(forgetting=0.9), many(12, cards=cards))


def test_aioli_is_refused_where_evaluations_leave_tasks_out() -> None:
    adaptive = {"type": "adaptive", "max_gap_evaluations": 2}
    made = THREE.model_copy(
        update={"mixture": THREE.mixture.model_validate({"allocation": adaptive}), "num_probes": (32,) * 3}
    )
    with pytest.raises(ConfigError, match=r"max_gap_evaluations: at 2 evaluations leave tasks out.*set it to 1"):
        resolve(AioliPolicy(), made)
    every = made.mixture.model_validate({"allocation": {"type": "adaptive"}})
    resolve(AioliPolicy(), made.model_copy(update={"mixture": every}))


def test_a_ratio_asked_for_in_the_base_of_aioli_is_refused_where_it_would_be_ignored() -> None:
    for base in (HeatPolicy(min_measured_ratio=0.5), TargetGapPolicy(min_measured_ratio=0.0)):
        with pytest.raises(ValidationError, match=r"base.min_measured_ratio .* would be ignored"):
            AioliPolicy(base=base)
    AioliPolicy(base=HeatPolicy(min_measured_ratio=0.5), min_measured_ratio=0.5)
    AioliPolicy(min_measured_ratio=0.5)


def test_asked_shares_sum_to_one() -> None:
    assert asked(resolve(StaticPolicy(), TWO).step(evidence(2), {})).sum() == pytest.approx(1.0)
