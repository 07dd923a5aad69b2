import numpy as np
import pytest

from scheduler.signals import TaskSignal
from scheduler.simulator import Learner, MeasurementConfig
from scheduler.simulator.probes import Probes
from tests.unit.scheduler.simulator.described import learner

NAMES = ("a", "b")
TASKS = {"a": {"curve": {"type": "noise", "chance_score": 0.3}}, "b": {"curve": {"type": "saturated", "score": 0.9}}}


def measured(num_evaluations: int, *, seed: int = 0, **settings: float) -> list[list[TaskSignal]]:
    made = Learner(learner(TASKS))
    config = MeasurementConfig.model_validate(settings)
    probes = Probes(config, undecided=made.undecided, rejected_share=made.rejected_share, seed=seed)
    truth = made.truth()
    return [probes.measure(NAMES, truth, step=step, plan_version=0) for step in range(num_evaluations)]


def test_every_signal_is_one_the_engine_accepts() -> None:
    assert {signal.fault() for evaluation in measured(20) for signal in evaluation} == {None}


def test_scores_are_binomial_around_the_truth() -> None:
    scores = np.array([[signal.score for signal in one] for one in measured(4000, num_probes=32, probe_turnover=1)])
    assert scores.mean(axis=0) == pytest.approx([0.3, 0.9], abs=0.01)
    assert scores.var(axis=0) == pytest.approx([0.3 * 0.7 / 32, 0.9 * 0.1 / 32], rel=0.1)


def test_kept_probes_give_the_same_score_again() -> None:
    scores = {tuple(signal.score for signal in one) for one in measured(10, probe_turnover=0)}
    assert len(scores) == 1


def test_the_variance_of_sampled_answers_is_that_of_undecided_probes() -> None:
    signals = [one[0] for one in measured(4000)]
    expected = 0.5 * 0.3 * 0.7 * 1 / 2  # undecided share · y(1 − y) · (m − 1)/m for a population variance of m = 2
    assert np.mean([signal.score_variance for signal in signals]) == pytest.approx(expected, rel=0.05)


def test_the_luck_of_a_task_does_not_depend_on_how_well_another_does() -> None:
    first, second = Learner(learner(TASKS)), Learner(learner(TASKS | {"b": {"curve": {"type": "noise"}}}))
    shown = []
    for made in (first, second):
        probes = Probes(MeasurementConfig(), undecided=made.undecided, rejected_share=made.rejected_share, seed=5)
        shown.append([probes.measure(NAMES, made.truth(), step=step, plan_version=0)[0].score for step in range(9)])
    assert shown[0] == shown[1]
