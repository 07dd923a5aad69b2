"""Task heat: how urgently a task needs exposure, in [0, 1], from the signals of one evaluation after the other.

For every task (formulas vectorised over tasks; y score, n probes, all components in [0, 1]):

    decay      d = (s·max(0, -slope) + c·max(0, best - level)) / max(best, 0.1)
                   slope, level: Kalman trend (`scheduler.trend`); best: highest level so far, no higher than any score
                   s = support(|slope| / se), c = support(drop / (2 se)): the best of many noisy levels is a lucky one
                   support(z) = clip(z - 1, 0, 1): nothing below one standard error, all of it from two on
    variance   v = cv / (1 + cv),  cv = sqrt(mean within-probe variance) / mean sampled score
    rejection  r = (rejected + k·pooled) / (reviewed + k): Beta-shrunk to the rate of all tasks; a verdict of a person
                   counts `human_review_weight` times
    gap        g = clip((target - level) / target, 0, 1)
    heat       h = weighted mean of the components, smoothed with a half-life, and discounted towards the mean heat
                   while no new signal comes

Learnability in [min, 1] damps a task that stays far from its target while neither its score nor its held-out loss makes
progress (noisy labels, an impossible task): halved once `stall_evaluations` evaluations in a row, with at least
`stall_min_samples` samples served since the last progress, have shown none, again at each further one, and doubled back
at each evaluation that shows progress. A plateau before a jump still lowers the loss, so it is spared.

A task without a signal keeps its components: no evidence is made up for it.

This module decides nothing; policies turn heat into weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import StateError
from scheduler.evaluation import Evaluation
from scheduler.setup import HeatConfig
from scheduler.trend import Trend

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class HeatState:
    """Per-task memory, arrays [K]. Losses are nats per supervised token; counts are evaluations."""

    decay: Array
    variance: Array
    rejection: Array
    gap: Array
    heat: Array
    learnability: Array
    score: Array
    best_score: Array
    best_level: Array
    best_level_variance: Array
    format_compliance: Array
    loss: Array
    best_loss: Array
    progress_loss: Array
    progress_level: Array
    progress_served: Array
    rejected: Array
    reviewed: Array
    stalled: Array
    overfit: Array

    @classmethod
    def new(cls, num_tasks: int) -> "HeatState":
        """Before any signal: no heat, full learnability, no best yet."""
        state = cls(*(np.zeros(num_tasks) for _ in fields(cls)))
        state.learnability += 1.0
        state.loss += np.inf
        state.best_loss += np.inf
        state.progress_loss += np.inf
        return state


class HeatTracker:
    """Turns signals into heat. One `update` per evaluation."""

    def __init__(self, *, config: HeatConfig, target_scores: Array) -> None:
        self.config = config
        self.target_scores = target_scores
        self.trend = Trend.new(len(target_scores))
        self.state = HeatState.new(len(target_scores))

    @property
    def measured_once(self) -> Mask:
        """Tasks [K] that have had at least one signal."""
        return self.trend.seen

    def update(self, evaluation: Evaluation, *, served: Array, overfit_tolerance: float) -> None:
        """Fold in one evaluation, with the samples served so far [K]. Tasks without a signal grow stale."""
        state, measured = self.state, evaluation.measured
        first = measured & ~self.trend.seen
        self.trend.predict()
        self.trend.update(measured, evaluation["score"], evaluation["num_probes"])
        progress = self._notice_progress(measured, evaluation["loss"], served)
        self._remember(evaluation, overfit_tolerance)
        self._components(evaluation)
        self._learnability(measured, progress)
        raw = self._mix_components()
        keep = 0.5 ** (1.0 / self.config.half_life_evaluations)
        state.heat = np.where(measured, np.where(first, raw, keep * state.heat + (1.0 - keep) * raw), state.heat)
        self._discount_stale(measured)

    def _notice_progress(self, measured: Mask, loss: Array, served: Array) -> Mask:
        """Tasks [K] whose loss fell or level rose by more than noise since their last progress; others may stall."""
        state, trend = self.state, self.trend
        better = measured & (loss < state.progress_loss * (1.0 - self.config.stall_loss_progress))
        margin = np.maximum(2.0 * np.sqrt(trend.level_variance), 0.02)
        climbed = measured & (trend.level > state.progress_level + margin)
        progress = better | climbed
        exposed = measured & (served - state.progress_served >= self.config.stall_min_samples)
        state.stalled = np.where(progress, 0.0, np.where(exposed, state.stalled + 1.0, state.stalled))
        state.progress_loss = np.where(progress, np.minimum(loss, state.progress_loss), state.progress_loss)
        state.progress_level = np.where(progress, np.maximum(trend.level, state.progress_level), state.progress_level)
        state.progress_served = np.where(progress, served, state.progress_served)
        return progress

    def _remember(self, evaluation: Evaluation, tolerance: float) -> None:
        state, measured = self.state, evaluation.measured
        loss, score = evaluation["loss"], evaluation["score"]
        worse = measured & (loss / (1.0 + tolerance) > state.best_loss) & (score <= state.best_score)
        state.overfit = np.where(worse, state.overfit + 1.0, np.where(measured, 0.0, state.overfit))
        state.loss = np.where(measured, loss, state.loss)
        state.best_loss = np.where(measured, np.minimum(state.best_loss, loss), state.best_loss)
        state.score = np.where(measured, score, state.score)
        state.best_score = np.where(measured, np.maximum(state.best_score, score), state.best_score)

    def _components(self, evaluation: Evaluation) -> None:
        state, measured, level = self.state, evaluation.measured, np.clip(self.trend.level, 0.0, 1.0)
        spread = np.sqrt(evaluation["score_variance"]) / np.maximum(evaluation["sampled_score"], 1e-3)
        state.variance = np.where(measured, spread / (1.0 + spread), state.variance)
        state.format_compliance = np.where(measured, evaluation["format_compliance"], state.format_compliance)

        people = self.config.human_review_weight
        rejected = evaluation["num_rejected"] + people * evaluation["num_human_rejected"]
        reviewed = evaluation["num_reviewed"] + people * evaluation["num_human_reviewed"]
        state.rejected = np.where(measured, rejected, state.rejected)
        state.reviewed = np.where(measured, reviewed, state.reviewed)
        all_reviewed = float(state.reviewed.sum())
        pooled = float(state.rejected.sum()) / all_reviewed if all_reviewed > 0.0 else 0.0
        prior = self.config.rejection_prior_reviews
        shrunk = np.clip((state.rejected + prior * pooled) / (state.reviewed + prior), 0.0, 1.0)
        state.rejection = np.where(measured, shrunk, state.rejection)

        gap = np.clip((self.target_scores - level) / self.target_scores, 0.0, 1.0)
        state.gap = np.where(measured, gap, state.gap)
        self._decay(measured, level)

    def _decay(self, measured: Mask, level: Array) -> None:
        state, trend = self.state, self.trend
        drop = np.maximum(state.best_level - level, 0.0)
        drop_error = np.sqrt(trend.level_variance + state.best_level_variance + 1e-12)
        drop_support = _support(drop / (2.0 * drop_error))
        slope_support = _support(np.abs(trend.slope) / np.sqrt(np.maximum(trend.slope_variance, 1e-12)))
        falling = slope_support * np.maximum(-trend.slope, 0.0)
        relative = (falling + drop_support * drop) / np.maximum(state.best_level, 0.1)
        state.decay = np.where(measured, np.clip(relative, 0.0, 1.0), state.decay)
        shown = np.minimum(level, state.best_score)
        record = measured & (shown > state.best_level)
        state.best_level_variance = np.where(record, trend.level_variance, state.best_level_variance)
        state.best_level = np.where(record, shown, state.best_level)

    def _learnability(self, measured: Mask, progress: Mask) -> None:
        state, config = self.state, self.config
        stuck = measured & (state.stalled >= config.stall_evaluations) & (state.gap >= config.stall_min_gap)
        factor = np.where(stuck, 0.5, np.where(progress, 2.0, 1.0))
        state.learnability = np.clip(state.learnability * factor, config.min_learnability, 1.0)

    def _mix_components(self) -> Array:
        state, config = self.state, self.config
        total = config.decay_weight + config.variance_weight + config.rejection_weight + config.gap_weight
        mixed = (
            config.decay_weight * state.decay
            + config.variance_weight * state.variance
            + config.rejection_weight * state.rejection
            + config.gap_weight * state.gap
        )
        return np.clip(mixed / total, 0.0, 1.0)

    def _discount_stale(self, measured: Mask) -> None:
        if measured.all() or not measured.any():
            return
        state = self.state
        keep = 0.5 ** (1.0 / self.config.stale_half_life_evaluations)
        mean = float(state.heat[measured].mean())
        state.heat = np.where(measured, state.heat, mean + keep * (state.heat - mean))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy of the memory; infinities as None."""
        arrays = {f"heat.{f.name}": getattr(self.state, f.name) for f in fields(HeatState)}
        arrays |= {f"trend.{f.name}": getattr(self.trend, f.name) for f in fields(Trend)}
        return {name: [_plain(value) for value in array.tolist()] for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys or another number of tasks."""
        expected = [f"heat.{field.name}" for field in fields(HeatState)] + [f"trend.{f.name}" for f in fields(Trend)]
        if state.keys() != set(expected):
            raise StateError(f"heat state has the keys {sorted(state)}; expected {sorted(expected)}")
        for name, values in state.items():
            if len(values) != len(self.target_scores):
                raise StateError(f"{name} is for {len(values)} tasks; this run has {len(self.target_scores)}")
            owner, attribute = (self.state, name[5:]) if name.startswith("heat.") else (self.trend, name[6:])
            dtype = bool if attribute == "seen" else float
            setattr(owner, attribute, np.array([np.inf if v is None else v for v in values], dtype=dtype))


def _support(z: Array) -> Array:
    return np.clip(z - 1.0, 0.0, 1.0)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
