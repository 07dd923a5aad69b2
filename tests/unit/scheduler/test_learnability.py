"""What is damped because exposure brings no progress, what is recognised, and what must not be."""

from collections.abc import Sequence

import numpy as np
import pytest

from scheduler.heat import HeatTracker
from scheduler.setup import HeatConfig
from tests.unit.scheduler.made import evaluation, signal

STEP, PER_EVALUATION, BASE = 50, 150.0, 6000.0  # forty evaluations at its base share make the run


def course(
    losses: Sequence[float],
    scores: Sequence[float],
    *,
    per_evaluation: float | Sequence[float] = PER_EVALUATION,
    config: HeatConfig | None = None,
    num_probes: int = 64,
) -> tuple[list[float], list[int], HeatTracker]:
    """Learnability and the step of recognition (-1: none) after each evaluation of one task."""
    heat = HeatTracker(config=config or HeatConfig(), target_scores=np.array([0.9]), base_samples=np.array([BASE]))
    portions = [per_evaluation] * len(losses) if isinstance(per_evaluation, float) else per_evaluation
    values, noise, served = [], [], 0.0
    for index, (loss, score) in enumerate(zip(losses, scores, strict=True)):
        one = evaluation(signal(loss=loss, score=score, num_probes=num_probes))
        heat.update(one, step=STEP * index, served=np.array([served]), overfit_tolerance=0.1)
        values.append(float(heat.learnability.value[0]))
        noise.append(int(heat.learnability.noise_step[0]))
        served += portions[index]
    return values, noise, heat


def noisy_labels(seed: int, num_evaluations: int = 40) -> tuple[list[float], list[float]]:
    """Loss falls to the entropy of the labels in a few evaluations, then jitters; the score is chance, a tenth."""
    rng = np.random.default_rng(seed)
    steps = np.arange(num_evaluations)
    losses = (2.3 + 3.0 * np.exp(-steps)) * np.exp(rng.normal(0, 0.03, num_evaluations))
    return losses.tolist(), (rng.binomial(64, 0.1, num_evaluations) / 64).tolist()


def test_noisy_labels_are_recognised_damped_to_the_minimum_and_stay_so() -> None:
    first, late = [], []
    for seed in range(40):
        values, noise, _ = course(*noisy_labels(seed))
        first.append(next(index for index, since in enumerate(noise) if since >= 0))
        assert 0 <= noise[first[-1]] < first[-1] * STEP
        assert values[first[-1]] == 0.1
        late += values[36:]
    assert min(first) >= 0.5 * BASE / PER_EVALUATION
    assert np.median(first) <= 29
    assert max(first) <= 36
    assert np.mean(late) < 0.12


def test_random_labels_whose_loss_falls_with_the_learning_rate_are_recognised() -> None:
    """As measured beside the demo's tasks (examples/finrisk/distractors.yaml)."""
    losses = [6.934, 1.285, 1.371, 1.263, 1.249, 1.199, 1.306, 1.167, 1.203, 1.185, 1.177, 1.228, 1.201, 1.184, 1.180]
    right = [0, 3, 2, 2, 3, 4, 4, 5, 3, 5, 2, 3, 1, 3, 2]
    served = np.array([0, 210, 398, 618, 860, 1126, 1407, 1654, 1904, 2227, 2593, 2877, 3137, 3319, 3480]) * BASE / 4215
    portions = [*np.diff(served).tolist(), 0.0]
    values, noise, _ = course(losses, [count / 32 for count in right], per_evaluation=portions, num_probes=32)
    assert noise[-1] >= 0 > noise[9]
    assert values[-1] == 0.1


def test_no_task_is_judged_before_its_patience_is_over() -> None:
    values, noise, _ = course([2.3] * 40, [0.1] * 40)
    patience = int(0.2 * BASE / PER_EVALUATION)
    assert set(values[:patience]) == {1.0}
    assert set(noise[:patience]) == {-1}
    assert values[-1] == 0.1


def test_time_alone_proves_nothing_about_a_task_that_is_hardly_served() -> None:
    assert set(course([2.3] * 60, [0.1] * 60, per_evaluation=10.0)[0]) == {1.0}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("jitter", [0.003, 0.03])
def test_a_plateau_of_the_score_over_a_falling_loss_is_not_given_up(seed: int, jitter: float) -> None:
    rng = np.random.default_rng(seed)
    losses = 3.0 / (1.0 + np.arange(40) / 8) * np.exp(rng.normal(0, jitter, 40))
    values, noise, _ = course(losses.tolist(), [0.0] * 40)
    assert min(values) >= 0.5
    assert set(noise) == {-1}


def test_a_task_that_crawls_is_damped_in_proportion_and_not_called_noise() -> None:
    losses = [1.2 * 0.995**index for index in range(40)]  # 10 % in half a run
    values, noise, _ = course(losses, [0.0] * 40)
    assert 0.5 < values[-1] < 1.0
    assert set(noise) == {-1}


def test_a_task_given_up_comes_back_when_its_loss_steps_down_while_it_is_on_its_floor() -> None:
    flat, after = [2.3] * 24, [2.0, 1.7, 1.5, 1.3, 1.1, 0.9]
    values, noise, _ = course(
        flat + after, [0.0] * 24 + [0.0, 0.0, 0.1, 0.2, 0.3, 0.4], per_evaluation=[PER_EVALUATION] * 24 + [30.0] * 6
    )
    assert (values[23], noise[23] >= 0) == (0.1, True)
    assert values[-1] == 1.0
    assert noise[-1] == -1


def test_a_task_given_up_comes_back_when_its_score_falls_for_want_of_exposure() -> None:
    values, _, _ = course([1.0] * 34, [0.5] * 24 + [0.1] * 10, per_evaluation=[PER_EVALUATION] * 24 + [30.0] * 10)
    assert values[23] == 0.1
    assert max(values[24:]) >= 0.4


def test_a_rising_score_counts_as_progress_though_the_loss_stands_still() -> None:
    scores = [0.02 * index for index in range(40)]
    assert min(course([1.0] * 40, scores, num_probes=1000)[0]) == 1.0


def test_a_task_near_its_target_is_never_damped() -> None:
    assert set(course([0.2] * 40, [0.85] * 40)[0]) == {1.0}


def test_a_task_at_its_target_is_solved_from_the_evaluation_that_shows_it_until_it_has_fallen() -> None:
    def solved_since(scores: list[float]) -> int:
        return int(course([0.1] * len(scores), scores)[2].learnability.solved_step[0])

    assert solved_since([0.2, 0.5, 0.99, 0.99, 0.99, 1.0, 1.0]) in range(2 * STEP, 5 * STEP)
    assert solved_since([0.88] * 10) == -1
    assert solved_since([1.0] * 8 + [0.5] * 3) == -1


def test_the_smallest_learnability_and_the_reach_are_settings() -> None:
    values, _, _ = course([2.3] * 40, [0.1] * 40, config=HeatConfig(min_learnability=0.3, stall_patience_ratio=0.1))
    assert values[-1] == pytest.approx(0.3)
    losses = [1.2 * 0.995**index for index in range(40)]
    assert set(course(losses, [0.0] * 40, config=HeatConfig(stall_full_reach=0.06))[0]) == {1.0}


def test_a_task_in_doubt_is_not_recognised_before_its_share_of_the_run_is_up() -> None:
    def first_step(ratio: float) -> int:
        _, noise, _ = course([2.3] * 40, [0.1] * 40, config=HeatConfig(stall_give_up_ratio=ratio))
        return next(index for index, since in enumerate(noise) if since >= 0)

    assert first_step(0.0) < 0.5 * BASE / PER_EVALUATION
    assert first_step(0.5) == 0.5 * BASE / PER_EVALUATION
    assert first_step(0.75) == 0.75 * BASE / PER_EVALUATION
