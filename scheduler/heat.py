"""Task heat: how urgently a task needs exposure, in [0, 1], from the signals of one evaluation after the other.

For every task (formulas vectorised over tasks; y score, n probes, all components in [0, 1]):

    decay      d = (s·max(0, -slope) + c·max(0, best - level)) / max(best, 0.1)
                   slope, level: Kalman trend (`scheduler.trend`); best: highest level so far, no higher than any score
                   s = support(|slope| / se), c = support(drop / (2 se)): the best of many noisy levels is a lucky one
                   support(z) = clip(z - 1, 0, 1): nothing below one standard error, all of it from two on
    variance   v = cv / (1 + cv),  cv = sqrt(mean within-probe variance) / mean sampled score
    rejection  r = (rejected + k·pooled) / (reviewed + k): Beta-shrunk to the rate of all tasks; a verdict of a person
                   counts `human_review_weight` times, and half of that `human_half_life_evaluations` later
    gap        g = clip((target - level) / target, 0, 1)
    heat       h = weighted mean of the components, smoothed with a half-life, and discounted towards the mean heat
                   while no new signal comes

Learnability, which damps what exposure does not move, is in `scheduler.learnability`.

A task without a signal keeps its components: no evidence is made up for it.

This module decides nothing; policies turn heat into weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.arrays import clip, packed, unpacked
from scheduler.evaluation import Evaluation
from scheduler.learnability import Learnability
from scheduler.setup import HeatConfig
from scheduler.trend import Trend

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class HeatState:
    """Per-task memory, arrays [K]. Losses are nats per supervised token; counts are evaluations.

    `people_rejected`, `people_reviewed`: verdicts of people, aged; `told_*`: all that there were at the last signal.
    """

    decay: Array
    variance: Array
    rejection: Array
    gap: Array
    heat: Array
    score: Array
    best_score: Array
    best_level: Array
    best_level_variance: Array
    format_compliance: Array
    loss: Array
    best_loss: Array
    best_loss_step: Array
    rejected: Array
    reviewed: Array
    people_rejected: Array
    people_reviewed: Array
    told_rejected: Array
    told_reviewed: Array
    overfit: Array

    @classmethod
    def new(cls, num_tasks: int) -> "HeatState":
        """Before any signal: no heat, no best yet."""
        state = cls(*(np.zeros(num_tasks) for _ in fields(cls)))
        state.loss += np.inf
        state.best_loss += np.inf
        return state


class HeatTracker:
    """Turns signals into heat. One `update` per evaluation."""

    def __init__(self, *, config: HeatConfig, target_scores: Array, base_samples: Array) -> None:
        """`base_samples` [K]: what each task would be served in the whole run under the prior, above 0."""
        self.config = config
        self.target_scores = target_scores
        self.base_samples = base_samples
        self.trend = Trend.new(len(target_scores))
        self.state = HeatState.new(len(target_scores))
        self.learnability = Learnability.new(len(target_scores))

    @property
    def measured_once(self) -> Mask:
        """Tasks [K] that have had at least one signal."""
        return self.trend.seen

    def update(self, evaluation: Evaluation, *, step: int, served: Array, overfit_tolerance: float) -> None:
        """Fold in the evaluation at `step`, with the samples served so far [K]. Tasks without a signal grow stale."""
        state, measured = self.state, evaluation.measured
        first = measured & ~self.trend.seen
        self.trend.predict()
        self.trend.update(measured, evaluation["score"], evaluation["num_probes"])
        self._remember(evaluation, step, overfit_tolerance)
        self._components(evaluation)
        self.learnability.update(
            evaluation,
            step=step,
            served=served,
            trend=self.trend,
            target=self.target_scores,
            base_samples=self.base_samples,
            config=self.config,
        )
        raw = self._mix_components()
        keep = self.config.kept_ratio
        state.heat = evaluation.choice()(np.where(first, raw, keep * state.heat + (1.0 - keep) * raw), state.heat)
        self._discount_stale(measured)

    def _remember(self, evaluation: Evaluation, step: int, tolerance: float) -> None:
        state, measured = self.state, evaluation.measured
        loss, score, choose = evaluation["loss"], evaluation["score"], evaluation.choice()
        worse = measured & (loss / (1.0 + tolerance) > state.best_loss) & (score <= state.best_score)
        state.overfit = np.where(worse, state.overfit + 1.0, state.overfit * ~measured)
        state.loss = choose(loss, state.loss)
        state.best_loss_step = np.where(measured & (loss < state.best_loss), float(step), state.best_loss_step)
        state.best_loss = choose(np.minimum(state.best_loss, loss), state.best_loss)
        state.score = choose(score, state.score)
        state.best_score = choose(np.maximum(state.best_score, score), state.best_score)

    def _components(self, evaluation: Evaluation) -> None:
        state, level = self.state, clip(self.trend.level, 0.0, 1.0)
        choose = evaluation.choice()
        spread = np.sqrt(evaluation["score_variance"]) / np.maximum(evaluation["sampled_score"], 1e-3)
        state.variance = choose(spread / (1.0 + spread), state.variance)
        state.format_compliance = choose(evaluation["format_compliance"], state.format_compliance)

        self._age_verdicts(evaluation)
        people = self.config.human_review_weight
        rejected = evaluation["num_rejected"] + people * state.people_rejected
        reviewed = evaluation["num_reviewed"] + people * state.people_reviewed
        state.rejected = choose(rejected, state.rejected)
        state.reviewed = choose(reviewed, state.reviewed)
        all_reviewed = float(state.reviewed.sum())
        pooled = float(state.rejected.sum()) / all_reviewed if all_reviewed > 0.0 else 0.0
        prior = self.config.rejection_prior_reviews
        shrunk = clip((state.rejected + prior * pooled) / (state.reviewed + prior), 0.0, 1.0)
        state.rejection = choose(shrunk, state.rejection)

        gap = clip((self.target_scores - level) / self.target_scores, 0.0, 1.0)
        state.gap = choose(gap, state.gap)
        self._decay(evaluation, level)

    def _age_verdicts(self, evaluation: Evaluation) -> None:
        """What people found of an older model counts for less; in one task as in the other, measured or not."""
        state, choose = self.state, evaluation.choice()
        keep = 0.5 ** (1.0 / self.config.human_half_life_evaluations)
        for kind in ("rejected", "reviewed"):
            told, all_told = getattr(state, f"told_{kind}"), evaluation[f"num_human_{kind}"]
            newest = choose(np.maximum(all_told - told, 0.0), np.zeros_like(told))
            setattr(state, f"people_{kind}", keep * getattr(state, f"people_{kind}") + newest)
            setattr(state, f"told_{kind}", choose(all_told, told))

    def _decay(self, evaluation: Evaluation, level: Array) -> None:
        state, trend, choose = self.state, self.trend, evaluation.choice()
        drop = np.maximum(state.best_level - level, 0.0)
        drop_error = np.sqrt(trend.level_variance + state.best_level_variance + 1e-12)
        drop_support = _support(drop / (2.0 * drop_error))
        slope_support = _support(np.abs(trend.slope) / np.sqrt(np.maximum(trend.slope_variance, 1e-12)))
        falling = slope_support * np.maximum(-trend.slope, 0.0)
        relative = (falling + drop_support * drop) / np.maximum(state.best_level, 0.1)
        state.decay = choose(clip(relative, 0.0, 1.0), state.decay)
        shown = np.minimum(level, state.best_score)
        record = evaluation.measured & (shown > state.best_level)
        state.best_level_variance = np.where(record, trend.level_variance, state.best_level_variance)
        state.best_level = np.where(record, shown, state.best_level)

    def _mix_components(self) -> Array:
        state, config = self.state, self.config
        mixed = (
            config.decay_weight * state.decay
            + config.variance_weight * state.variance
            + config.rejection_weight * state.rejection
            + config.gap_weight * state.gap
        )
        return clip(mixed / config.total_weight, 0.0, 1.0)

    def _discount_stale(self, measured: Mask) -> None:
        if measured.all() or not measured.any():
            return
        state = self.state
        keep = 0.5 ** (1.0 / self.config.stale_half_life_evaluations)
        mean = float(state.heat[measured].mean())
        state.heat = np.where(measured, state.heat, mean + keep * (state.heat - mean))

    def _arrays(self) -> dict[str, tuple[Any, str]]:
        """Where every array of the memory is kept: owner and attribute, by the name in the state."""
        owners = {"heat": self.state, "trend": self.trend, "learn": self.learnability, "line": self.learnability.lines}
        return {
            f"{prefix}.{field.name}": (owner, field.name)
            for prefix, owner in owners.items()
            for field in fields(owner)
            if field.name != "lines"
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy of the memory."""
        return {name: packed(getattr(owner, attribute)) for name, (owner, attribute) in self._arrays().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys or another number of tasks."""
        places = self._arrays()
        found = unpacked(state, dict.fromkeys(places, self.target_scores.shape), what="heat")
        for name, values in found.items():
            owner, attribute = places[name]
            setattr(owner, attribute, values > 0.0 if attribute == "seen" else values)


def _support(z: Array) -> Array:
    return clip(z - 1.0, 0.0, 1.0)
