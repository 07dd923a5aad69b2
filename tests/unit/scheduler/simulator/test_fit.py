from typing import Any

import numpy as np
import pytest

from scheduler.setup import StaticPolicy
from scheduler.simulator import FitPoints, LearnerConfig, MeasurementConfig, fit_tasks, simulate
from scheduler.simulator.config import NoiseCurve, Overfit, PowerLawCurve, SaturatedCurve
from scheduler.simulator.fit import Fits
from scheduler.simulator.learner import Learner
from tests.unit.scheduler.simulator.described import learner, setup


def measured(config: LearnerConfig, *, steps: int = 2000, seed: int = 0) -> list[FitPoints]:
    """What the engine was shown of a static run: noisy scores, noisy losses."""
    measurement = MeasurementConfig(num_probes=64, loss_offset=0.0, loss_jitter=0.002)
    run = simulate(setup(config, steps=steps, policy=StaticPolicy()), config, seed=seed, measurement=measurement)
    jitter = np.exp(0.002 * np.random.default_rng(seed).standard_normal(run.losses.shape))
    return [
        FitPoints(
            task=name,
            num_rows=config.tasks[name].rows,
            served=run.num_samples[:, index].astype(float),
            loss=(run.losses * jitter)[:, index],
            score=run.measured_scores[:, index],
            format_compliance=np.ones(len(run.steps)),
        )
        for index, name in enumerate(run.task_names)
    ]


LAW = {"start_loss": 3.0, "floor_loss": 0.3, "scale_samples": 400.0, "exponent": 0.8}


def fitted(tasks: dict[str, Any], **fields: Any) -> Fits:
    return fit_tasks(measured(learner(tasks), **fields))


@pytest.mark.parametrize("seed", range(3))
def test_known_parameters_are_recovered_within_a_few_standard_errors(seed: int) -> None:
    fit = fitted({"a": {"curve": {"type": "power_law", **LAW, "sharpness": 2.0}}}, seed=seed).fitted["a"]
    assert fit.kind == "power_law"
    for name, true in LAW.items():
        estimate = fit.estimates[name]
        assert estimate.error is not None
        assert estimate.error < 0.2 * true
        assert abs(estimate.value - true) < 4 * estimate.error, name
    assert fit.loss_residual == pytest.approx(0.002, rel=0.3)


def test_a_fitted_learner_does_in_another_mixture_what_the_true_one_does() -> None:
    true = learner({"a": {"curve": {"type": "power_law", **LAW}}, "b": {}})
    found = LearnerConfig(tasks={name: fit.learner for name, fit in fit_tasks(measured(true)).fitted.items()}, spread=0)
    ours, theirs = Learner(found), Learner(true)
    for counts in ([500, 4000], [6000, 100]):
        ours.advance(np.array(counts), num_steps=100)
        theirs.advance(np.array(counts), num_steps=100)
        assert ours.truth().loss == pytest.approx(theirs.truth().loss, rel=0.03)
        assert ours.truth().score == pytest.approx(theirs.truth().score, abs=0.08)


def test_tasks_whose_loss_never_moves_become_flat_ones_by_their_score() -> None:
    fits = fitted({"n": {"curve": {"type": "noise"}}, "s": {"curve": {"type": "saturated"}}}).fitted
    assert isinstance(fits["n"].learner.curve, NoiseCurve)
    assert isinstance(fits["s"].learner.curve, SaturatedCurve)
    assert fits["n"].learner.curve.loss == pytest.approx(1.6, rel=0.01)


def test_overfitting_is_found_with_its_epoch_and_rate() -> None:
    effects = [{"type": "overfit", "after_epochs": 4, "loss_per_epoch": 0.05}]
    fit = fitted({"a": {"rows": 300, "curve": {"type": "power_law", **LAW}, "effects": effects}}).fitted["a"]
    (overfit,) = fit.learner.effects
    assert isinstance(overfit, Overfit)
    assert overfit.after_epochs == pytest.approx(4, abs=0.5)
    assert overfit.loss_per_epoch == pytest.approx(0.05, rel=0.1)
    assert isinstance(fit.learner.curve, PowerLawCurve)


def test_a_parameter_that_the_data_do_not_determine_has_no_or_a_large_error() -> None:
    beyond = {"type": "power_law", **LAW, "scale_samples": 50_000.0, "exponent": 1.0}
    estimates = fitted({"a": {"curve": beyond}}, steps=200).fitted["a"].estimates
    for name in ("floor_loss", "scale_samples"):
        error = estimates[name].error
        assert error is None or error > 0.5 * estimates[name].value


def test_a_task_with_too_few_points_is_refused_by_name() -> None:
    fits = fitted({"a": {}}, steps=100)
    assert fits.fitted == {}
    assert fits.refused == {"a": "measured at 5 different exposures; its curve needs 6 or more"}
