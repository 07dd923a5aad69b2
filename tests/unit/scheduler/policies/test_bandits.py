"""Exp3.S and ODM: their arithmetic by hand, and that they find the better arm."""

import math

import numpy as np
import pytest

from scheduler.policies import Rule, resolve
from scheduler.policies.odm import OdmRule
from scheduler.policies.rewards import gains, rewards, scaled
from scheduler.policy_config import Exp3Policy, OdmPolicy
from tests.unit.scheduler.made import setup
from tests.unit.scheduler.policies.made import asked, evidence, last_asked

TWO = setup(("a", "b"))
NAN = float("nan")


def test_a_reward_is_the_gain_over_the_realised_share_and_an_equal_share_leaves_it_as_it_is() -> None:
    seen = evidence(2, previous_loss=[1.0, 1.0], loss=[0.9, 0.9], exposure=[50.0, 25.0], total_exposure=[100.0, 100.0])
    reward, known = rewards(seen, "loss")
    assert reward.tolist() == pytest.approx([0.1, 0.2])
    assert known.all()


def test_a_task_that_was_not_exposed_or_not_measured_twice_has_no_reward() -> None:
    seen = evidence(3, previous_loss=[1.0, NAN, 1.0], loss=[0.5, 0.5, 0.5], exposure=[0.0, 9.0, 9.0])
    assert rewards(seen, "loss")[1].tolist() == [False, False, True]


def test_gains_can_be_read_from_scores_and_from_training_losses() -> None:
    seen = evidence(
        2, previous_score=[0.2, 0.5], score=[0.5, 0.4], previous_train_loss=[2.0, NAN], train_loss=[1.0, 1.0]
    )
    assert gains(seen, "score")[0].tolist() == pytest.approx([0.3, -0.1])
    gain, known = gains(seen, "train_loss")
    assert gain.tolist() == [0.5, 0.0]
    assert known.tolist() == [True, False]


def test_rewards_are_scaled_by_the_largest_so_far_which_is_slowly_forgotten() -> None:
    first, scale = scaled(np.array([0.2, -0.4]), np.zeros(()))
    assert first.tolist() == [0.5, -1.0]
    later, scale = scaled(np.array([0.18, 0.0]), scale)
    assert later.tolist() == pytest.approx([0.5, 0.0])
    assert float(scale) == pytest.approx(0.36)


def test_exp3_multiplies_weights_shares_and_explores_as_published() -> None:
    rule = resolve(Exp3Policy(rate=0.7, share=0.1, exploration=0.2), TWO)
    shares, _ = last_asked(rule, [evidence(2, previous_loss=[1.0, 1.0], loss=[0.8, 1.0])])
    # rewards 0.2, 0 → scaled 1, 0 → w = e^0.7 : 1
    weight = math.exp(0.7) / (1.0 + math.exp(0.7))
    weight = 0.9 * weight + 0.1 * 0.5
    assert shares[0] == pytest.approx(0.8 * weight + 0.2 * 0.5)


def test_odm_averages_rewards_and_decays_exploration_as_published() -> None:
    rule = resolve(OdmPolicy(rate=0.1, reward_scale=15.0, min_exploration=0.0), TWO)
    shares, memory = last_asked(rule, [evidence(2, step=100, previous_loss=[1.0, 1.0], loss=[0.8, 1.0])])
    epsilon, before = (math.sqrt(math.log(2) / (2 * step)) for step in (100, 99))
    # R = 0.1 · r̂, r̂_a = r_a / s_a = 2 after scaling
    odds = math.exp(15.0 * before * 0.1 * 2.0)
    assert memory["average"].tolist() == pytest.approx([0.1, 0.0])
    assert shares[0] == pytest.approx((1 - 2 * epsilon) * odds / (1 + odds) + epsilon)


def test_odm_explores_only_the_prior_while_epsilon_is_at_its_greatest() -> None:
    rule = resolve(OdmPolicy(), TWO)
    shares, _ = last_asked(rule, [evidence(2, step=1, previous_loss=[1.0, 1.0], loss=[0.1, 1.0])])
    assert shares.tolist() == [0.5, 0.5]


def bandit_run(rule: Rule, *, seed: int, num_evaluations: int) -> np.ndarray:
    """Shares [T, 3] while task b learns 5 % per equal share of exposure, a 1 % and c nothing, all with noise of 1 %."""
    rng = np.random.default_rng(seed)
    speed, loss, shares = np.array([0.01, 0.05, 0.0]), np.ones(3), np.full(3, 1 / 3)
    memory, history = rule.first_memory(3), []
    for step in range(25, 25 * (num_evaluations + 1), 25):
        newer = loss * (1.0 - 3.0 * shares * speed)
        noise = 1.0 + 0.01 * rng.standard_normal(3)
        seen = evidence(3, step=step, previous_loss=loss, loss=newer * noise, exposure=1000.0 * shares)
        answer = rule.step(seen if history else evidence(3, previous_loss=[NAN] * 3), memory)
        shares, memory, loss = asked(answer), answer.memory, newer
        history.append(shares)
    return np.array(history)


@pytest.mark.parametrize("policy", [Exp3Policy(), OdmPolicy()], ids=repr)
def test_a_bandit_finds_the_task_that_learns_fastest(policy: Exp3Policy | OdmPolicy) -> None:
    rule = resolve(policy, setup(("a", "b", "c")))
    runs = np.array([bandit_run(rule, seed=seed, num_evaluations=60)[-20:].mean(axis=0) for seed in range(10)])
    assert (runs.argmax(axis=1) == 1).all()
    assert runs[:, 1].mean() > 0.55


def bandit_on_many_tasks(num_tasks: int, *, until: int, interval: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Prior and last shares asked for of ODM where the first task learns 5 % an evaluation and the others nothing."""
    rule = resolve(OdmPolicy(), setup([f"t{index}" for index in range(num_tasks)]))
    loss = np.where(np.arange(num_tasks) == 0, 0.95, 1.0)
    seen = [
        evidence(num_tasks, step=step, previous_loss=np.ones(num_tasks), loss=loss)
        for step in range(interval, until + 1, interval)
    ]
    return seen[0].prior, last_asked(rule, seen)[0]


@pytest.mark.parametrize("num_tasks", [33, 34, 40, 100])
def test_odm_moves_weights_whatever_the_number_of_tasks(num_tasks: int) -> None:
    prior, shares = bandit_on_many_tasks(num_tasks, until=2000)
    assert shares[0] > 0.2 > 5 * prior[0]
    assert shares.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("num_tasks", [2, 3, 16, 40, 500])
def test_odm_explores_as_published_down_to_its_floor_of_less_than_half(num_tasks: int) -> None:
    rule = resolve(OdmPolicy(), setup([f"t{index}" for index in range(num_tasks)]))
    assert isinstance(rule, OdmRule)
    for step in (1, 100, 1000, 10_000, 10**6):
        published = min(1.0, math.sqrt(num_tasks * math.log(num_tasks) / step))
        assert rule.exploration(step, num_tasks) == pytest.approx(max(published, min(0.03 * num_tasks, 0.45)))
