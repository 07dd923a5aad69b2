"""What is damped because exposure brings no progress, and what must not be."""

from collections.abc import Sequence

import numpy as np
import pytest

from scheduler.heat import HeatTracker
from scheduler.setup import HeatConfig
from tests.unit.scheduler.made import evaluation, signal


def learnabilities(
    losses: Sequence[float], scores: Sequence[float], *, per_evaluation: float = 300.0, config: HeatConfig | None = None
) -> list[float]:
    """Learnability after each evaluation of one task that is served `per_evaluation` samples between two."""
    heat = HeatTracker(config=config or HeatConfig(), target_scores=np.array([0.9]))
    course = []
    for index, (loss, score) in enumerate(zip(losses, scores, strict=True)):
        served = np.array([index * per_evaluation])
        heat.update(evaluation(signal(loss=loss, score=score)), served=served, overfit_tolerance=0.1)
        course.append(float(heat.state.learnability[0]))
    return course


def noisy_labels(seed: int, num_evaluations: int = 80) -> tuple[list[float], list[float]]:
    """Loss falls to the entropy of the labels in 15 evaluations, then rises; the score is chance, a tenth."""
    rng = np.random.default_rng(seed)
    steps = np.arange(num_evaluations)
    losses = 2.3 + 2.0 * np.exp(-steps / 4) + 0.02 * np.maximum(steps - 20, 0) + rng.normal(0, 0.01, num_evaluations)
    return losses.tolist(), (rng.binomial(64, 0.1, num_evaluations) / 64).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_a_task_of_noisy_labels_is_damped_to_the_minimum_within_thirty_evaluations(seed: int) -> None:
    assert min(learnabilities(*noisy_labels(seed))[:30]) == 0.1


def test_tasks_of_noisy_labels_stay_damped() -> None:
    late = [learnabilities(*noisy_labels(seed))[30:] for seed in range(20)]
    assert np.mean(late) < 0.13
    assert np.mean([max(course) <= 0.2 for course in late]) >= 0.8


def test_a_lucky_score_lifts_a_starved_task_once_not_at_every_evaluation_after() -> None:
    losses, scores = [2.3] * 30, [0.1] * 30
    scores[20:23] = [0.6] * 3
    served_little_while_damped = HeatConfig(stall_min_samples=100)
    course = learnabilities(losses, scores, per_evaluation=13.0, config=served_little_while_damped)
    assert course[19] == 0.1
    assert max(course[23:]) <= 0.8
    assert course[-1] == course[23]


def test_a_plateau_with_a_slowly_falling_loss_is_not_damped() -> None:
    losses = [2.3 * 0.997**index for index in range(100)]
    assert set(learnabilities(losses, [0.0] * 100)) == {1.0}


def test_a_plateau_with_a_standing_loss_is_damped_and_comes_back_when_it_jumps() -> None:
    course = learnabilities([2.3] * 20 + [2.3 * 0.9**index for index in range(1, 6)], [0.0] * 20 + [0.3] * 5)
    assert course[19] == 0.1
    assert course[-1] == 1.0


def test_a_task_is_not_damped_before_it_has_been_served_enough() -> None:
    assert set(learnabilities([2.3] * 30, [0.1] * 30, per_evaluation=10.0)) == {1.0}


def test_a_task_near_its_target_is_never_damped() -> None:
    assert set(learnabilities([0.2] * 40, [0.85] * 40)) == {1.0}
