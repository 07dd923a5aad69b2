"""The arithmetic of the stateless and the multiplicative rules, on examples worked out by hand."""

import math
from typing import Any

import numpy as np
import pytest

from scheduler.errors import ConfigError
from scheduler.policies import resolve
from scheduler.policies.base import Driver, anchored, joined_average, mixed_with_prior, relative_drop, share_left
from scheduler.policies.heat import HeatRule
from scheduler.policy_config import (
    AioliPolicy,
    ExplicitPrior,
    GroupDroPolicy,
    HeatPolicy,
    ProgressPolicy,
    ProportionalPrior,
    SchedulePolicy,
    SkillItPolicy,
    TargetGapPolicy,
    UniformPrior,
)
from tests.unit.scheduler.made import setup
from tests.unit.scheduler.policies.made import asked, evidence, last_asked

TWO = setup(("a", "b"))
THREE = setup(("a", "b", "c"))


def test_anchored_tasks_share_their_part_of_the_prior_and_the_others_keep_theirs() -> None:
    prior = np.array([0.2, 0.3, 0.5])
    tilt = anchored(prior, np.array([math.log(2.0), 0.0, 9.0]), np.array([True, True, False]))
    # 0.2 · 2 : 0.3 · 1 of the half that both have together
    assert (prior * np.exp(tilt)).tolist() == pytest.approx([0.5 * 4 / 7, 0.5 * 3 / 7, 0.5])


def test_mixing_with_the_prior_mixes_the_shares() -> None:
    prior = np.array([0.25, 0.75])
    tilt = np.log(np.array([0.5, 0.5]) / prior)
    assert (prior * np.exp(mixed_with_prior(tilt, 0.4))).tolist() == pytest.approx([0.4, 0.6])


def test_a_relative_drop_is_bounded_on_both_sides() -> None:
    drops = relative_drop(np.array([2.0, 1.0, 0.0, 1e300]), np.array([1.0, 2.0, 5.0, 0.0]))
    assert drops.tolist() == [0.5, -0.5, -1.0, 1.0]


def test_the_share_of_a_loss_that_is_left_is_at_most_two() -> None:
    left = share_left(np.array([1.0, 9.0, 0.0, 1.7e308]), np.array([4.0, 1.0, 0.0, 1.7e308]))
    assert left.tolist() == [0.25, 2.0, 0.0, 1.0]


def test_a_task_that_joins_an_average_late_starts_from_the_mean_of_the_others() -> None:
    average = np.array([0.2, 0.4, np.nan])
    joined = joined_average(average, np.array([9.0, 9.0, 1.0]), fresh=np.array([False, False, True]), rate=0.5)
    assert joined.tolist() == pytest.approx([0.2, 0.4, 0.65])


def test_a_driver_shows_each_task_beside_the_mean_and_says_what_is_not_known() -> None:
    words = Driver("error", np.array([0.25, np.nan, 0.75])).words()
    assert words == ["error 0.25 (mean of all tasks 0.5)", "error not known yet", "error 0.75 (mean of all tasks 0.5)"]


@pytest.mark.parametrize(
    ("shape", "progress", "passed"),
    [
        ("linear", 0.1, 0.0),
        ("linear", 0.5, 0.5),
        ("linear", 0.35, 0.25),
        ("linear", 0.9, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 0.4, 0.5 - 0.5 * math.cos(math.pi / 3)),
        ("step", 0.19, 0.0),
        ("step", 0.2, 1.0),
    ],
)
def test_a_schedule_passes_from_one_mixture_to_the_other(shape: str, progress: float, passed: float) -> None:
    after = ExplicitPrior(weights={"a": 1.0})
    policy = SchedulePolicy.model_validate({"after": after, "begins": 0.2, "ends": 0.8, "shape": shape})
    shares = asked(resolve(policy, TWO).step(evidence(2, progress=progress), {}))
    assert shares.tolist() == pytest.approx([0.5 + 0.5 * passed, 0.5 - 0.5 * passed])


def test_a_cooldown_moves_in_the_last_part_of_the_run_only() -> None:
    policy = SchedulePolicy(before=ExplicitPrior(weights={"a": 3.0, "b": 1.0}), after=UniformPrior(), begins=0.9)
    shares = [asked(resolve(policy, TWO).step(evidence(2, progress=at), {}))[0] for at in (0.0, 0.9, 0.95, 1.0)]
    assert shares == pytest.approx([0.75, 0.75, 0.625, 0.5])


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({"before": UniformPrior()}, [0.5, 0.5]),
        ({}, [0.75, 0.25]),
        ({"before": UniformPrior(), "shape": "step", "begins": 0.5}, [0.5, 0.5]),
        ({"before": UniformPrior(), "shape": "step"}, [0.0, 1.0]),
        ({"before": UniformPrior(), "shape": "cosine"}, [0.5, 0.5]),
    ],
    ids=repr,
)
def test_a_schedule_begins_a_run_with_its_own_shares(fields: dict[str, Any], weights: list[float]) -> None:
    made = setup(("a", "b"), num_rows=(3000, 1000), prior=ProportionalPrior())
    policy = SchedulePolicy.model_validate({"after": ExplicitPrior(weights={"b": 1.0}), **fields})
    rule = resolve(policy, made)
    assert rule.first_weights(np.array([0.75, 0.25])).tolist() == weights
    at_once = asked(rule.step(evidence(2, progress=0.0), {}))
    assert at_once.tolist() == pytest.approx(weights)


def test_heat_tilts_the_prior_exponentially() -> None:
    rule = resolve(HeatPolicy(strength=2.0), THREE)
    shares = asked(rule.step(evidence(3, heat=[0.5, 0.0, 0.0]), {}))
    assert shares[0] / shares[1] == pytest.approx(math.e)


def test_progress_is_min_max_scaled_averaged_and_exploration_goes_to_the_prior() -> None:
    rule = resolve(ProgressPolicy(strength=4.0, rate=0.5, exploration=0.2), THREE)
    # drops 40 %, 20 %, 0 % → 1, ½, 0 → Q = ½, ¼, 0 → exponents 2, 1, 0
    seen = evidence(3, previous_loss=[1.0, 2.0, 3.0], loss=[0.6, 1.6, 3.0])
    shares, memory = last_asked(rule, [seen])
    odds = np.exp([2.0, 1.0, 0.0])
    assert memory["quality"].tolist() == pytest.approx([0.5, 0.25, 0.0])
    assert shares.tolist() == pytest.approx((0.8 * odds / odds.sum() + 0.2 / 3).tolist())


def test_progress_does_not_blow_up_differences_below_the_least_spread() -> None:
    rule = resolve(ProgressPolicy(rate=1.0, min_spread=0.1), TWO)
    _, memory = last_asked(rule, [evidence(2, previous_loss=[1.0, 1.0], loss=[0.99, 1.0])])
    assert memory["quality"].tolist() == pytest.approx([0.1, 0.0])


def test_progress_over_several_evaluations_is_spread_over_them() -> None:
    rule = resolve(ProgressPolicy(rate=1.0), TWO)
    shares, _ = last_asked(rule, [evidence(2, previous_loss=[1.0, 1.0], loss=[0.8, 0.6], span=[1.0, 2.0])])
    assert shares.tolist() == pytest.approx([0.5, 0.5])


def test_a_target_gap_reads_scores_or_the_way_to_a_loss_and_is_damped_by_learnability() -> None:
    rule = resolve(TargetGapPolicy(strength=2.0, target_losses={"b": 1.0}), THREE)
    # a: gap ½; b: from 3 to 1, now at 2: half of the way left; c: gap 1 that counts a quarter
    seen = evidence(
        3, gap=[0.5, 0.9, 1.0], first_loss=[1.0, 3.0, 1.0], loss=[1.0, 2.0, 1.0], learnability=[1.0, 1.0, 0.25]
    )
    shares = asked(rule.step(seen, {}))
    odds = np.exp([1.0, 1.0, 0.5])
    assert shares.tolist() == pytest.approx((odds / odds.sum()).tolist())


def test_a_task_at_or_below_its_target_loss_is_at_its_target() -> None:
    rule = resolve(TargetGapPolicy(target_losses={"a": 1.0, "b": 5.0}), TWO)
    assert asked(rule.step(evidence(2, first_loss=[3.0, 1.0], loss=[0.5, 1.0]), {})).tolist() == [0.5, 0.5]


def test_group_dro_multiplies_weights_up_by_error_and_leans_back_to_the_prior() -> None:
    rule = resolve(GroupDroPolicy(rate=1.0, anchor=0.5), TWO)
    seen = evidence(2, score=[0.0, 1.0])
    first = math.e / (1.0 + math.e)
    leaning = 0.5 * first + 0.25
    odds = leaning / (1.0 - leaning) * math.e
    shares, _ = last_asked(rule, [seen])
    assert shares.tolist() == pytest.approx([leaning, 1.0 - leaning])
    shares, _ = last_asked(rule, [seen, seen])
    assert shares[0] == pytest.approx(0.5 * odds / (1.0 + odds) + 0.25)


def test_group_dro_on_losses_compares_what_is_left_above_the_references_and_adjusts_for_size() -> None:
    policy = GroupDroPolicy(badness="loss", rate=1.0, anchor=0.0, reference_losses={"a": 1.0}, size_adjustment=2.0)
    rule = resolve(policy, TWO)
    # a: (2 - 1) / (5 - 1) + 2 / √4 = 1.25; b: 3 / 4 + 2 / √16 = 1.25
    seen = evidence(2, first_loss=[5.0, 4.0], loss=[2.0, 3.0], num_rows=[4.0, 16.0])
    shares, _ = last_asked(rule, [seen])
    assert shares.tolist() == pytest.approx([0.5, 0.5])


def test_group_dro_raises_the_worst_task_until_it_is_no_longer_the_worst() -> None:
    rule = resolve(GroupDroPolicy(), THREE)
    errors, memory = np.array([0.9, 0.5, 0.3]), rule.first_memory(3)
    for _ in range(60):
        answer = rule.step(evidence(3, score=1.0 - errors), memory)
        memory = answer.memory
        errors = errors * np.exp(-0.1 * asked(answer))
    equal_shares = 0.9 * math.exp(-2.0)
    least_possible = (0.9 * 0.5 * 0.3) ** (1 / 3) * math.exp(-2.0)
    assert errors.max() < 1.15 * least_possible < 0.7 * equal_shares


def test_skill_it_adds_up_the_losses_of_what_builds_on_a_task_over_the_window() -> None:
    policy = SkillItPolicy(strength=0.5, window=2, prerequisites={"c": ("a",)})
    rule = resolve(policy, THREE)
    seen = [
        evidence(3, loss=[9.0, 9.0, 9.0], first_loss=[9.0, 9.0, 9.0]),
        evidence(3, loss=[0.8, 0.6, 1.0]),
        evidence(3, loss=[0.4, 0.2, 0.9]),
    ]
    shares, _ = last_asked(rule, seen)
    # a: own 1.2 + ½ · c's 1.9; b: 0.8; c: 1.9
    odds = np.exp(0.5 * np.array([2.15, 0.8, 1.9]))
    assert shares.tolist() == pytest.approx((odds / odds.sum()).tolist())


def test_single_effects_of_skill_it_take_precedence_over_prerequisites() -> None:
    policy = SkillItPolicy(strength=1.0, prerequisites={"b": ("a",)}, effects={"a": {"b": 2.0, "a": 0.0}})
    shares, _ = last_asked(resolve(policy, TWO), [evidence(2, loss=[1.0, 0.5])])
    odds = np.exp([2.0 * 0.5, 0.5])
    assert shares.tolist() == pytest.approx((odds / odds.sum()).tolist())


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        (SkillItPolicy(prerequisites={"ghost": ("a",)}), "prerequisites"),
        (SkillItPolicy(prerequisites={"a": ("ghost",)}), "prerequisites.a"),
        (SkillItPolicy(effects={"a": {"ghost": 1.0}}), "effects.a"),
        (TargetGapPolicy(target_losses={"ghost": 1.0}), "target_losses"),
        (GroupDroPolicy(reference_losses={"ghost": 1.0}), "reference_losses"),
        (SchedulePolicy(after=ExplicitPrior(weights={"ghost": 1.0})), "after.weights"),
        (SchedulePolicy(after=UniformPrior(), before=ExplicitPrior(weights={"ghost": 1.0})), "before.weights"),
        (AioliPolicy(base=TargetGapPolicy(target_losses={"ghost": 1.0})), "base.target_losses"),
    ],
    ids=repr,
)
def test_a_policy_that_names_no_task_of_the_run_is_refused_with_the_setting_that_chose_it(
    policy: Any, place: str
) -> None:
    for made, chosen in (
        (TWO, "policy"),
        (setup(("a", "b"), policy=policy, policies=(policy, policy)), "mixture.policy"),
        (setup(("a", "b"), policies=(policy, HeatPolicy())), "stages.0.policy"),
        (setup(("a", "b"), policies=(HeatPolicy(), policy)), "stages.1.policy"),
    ):
        with pytest.raises(ConfigError, match=rf"^{chosen}\.{place} names \['ghost'\]"):
            resolve(policy, made)


def test_what_stalled_tasks_give_up_goes_to_those_with_something_to_gain() -> None:
    rule, nothing = HeatRule(HeatPolicy(strength=0.0, long_tail_boost=0.0)), {}
    stalled = evidence(3, gap=[0.5, 0.5, 0.0], learnability=[0.1, 0.6, 1.0], given_up=[True, True, False])
    assert asked(rule.step(stalled, nothing)).tolist() == pytest.approx([0.1 / 1.3, 0.6 / 1.3, 0.6 / 1.3])
    in_doubt = evidence(2, gap=[0.5, 0.5], learnability=[0.1, 1.0])
    assert asked(rule.step(in_doubt, nothing)).tolist() == pytest.approx([0.5, 0.5])
    only_noise = evidence(2, gap=[0.5, 0.0], learnability=[0.1, 1.0], given_up=[True, False])
    assert asked(rule.step(only_noise, nothing)).tolist() == pytest.approx([0.1 / 0.6, 0.5 / 0.6])
