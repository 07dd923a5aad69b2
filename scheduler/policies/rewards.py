"""What a task gained between its last two measurements, and what it gained for its exposure.

Gains of different tasks are relative (losses) or shares of the full score, hence comparable; a gain that took several
evaluations to measure is spread evenly over them.
"""

import numpy as np

from scheduler.policies.base import Array, Evidence, Mask, relative_drop
from scheduler.policy_config import Measure

_SCALE_KEPT = 0.9


def gains(evidence: Evidence, measure: Measure) -> tuple[Array, Mask]:
    """Gain [K] an evaluation, in [-1, 1], and the tasks [K] for which there is one; 0 for the others."""
    match measure:
        case "loss":
            gain = relative_drop(evidence.previous_loss, evidence.loss) / evidence.span
            known = evidence.fresh & np.isfinite(gain)
        case "score":
            gain = (evidence.score - evidence.previous_score) / evidence.span
            known = evidence.fresh & np.isfinite(gain)
        case "train_loss":
            gain = relative_drop(evidence.previous_train_loss, evidence.train_loss)
            known = np.isfinite(gain)
    return np.where(known, gain, 0.0), known


def rewards(evidence: Evidence, measure: Measure) -> tuple[Array, Mask]:
    """Importance-weighted rewards r / (K · s) [K] in [-1, 1], and the tasks [K] for which there is one.

    s is the realised share of exposure that the gain r was made with, K the number of tasks with a prior. Bandits
    divide the reward of a draw by the probability of the draw; an interval of n draws, s · n of them of the task,
    brings (s · n) · (r / (s · n)) / s = r / s in sum. Dividing by K makes 1 / (K · s) one for an equal share. A task
    that was not exposed has no reward.
    """
    gain, known = gains(evidence, measure)
    num_tasks = float((evidence.prior > 0.0).sum())
    known = known & (evidence.exposure > 0.0) & (evidence.total_exposure > 0.0)
    share = np.where(known, evidence.exposure, 1.0) / np.where(known, evidence.total_exposure, 1.0)
    return np.where(known, np.clip(gain / np.maximum(num_tasks * share, 1e-9), -1.0, 1.0), 0.0), known


def scaled(reward: Array, scale: Array) -> tuple[Array, Array]:
    """Rewards [K] over the largest absolute one so far, which is forgotten by a tenth an evaluation; and that scale."""
    new_scale = np.maximum(_SCALE_KEPT * scale, np.abs(reward).max())
    return reward / np.maximum(new_scale, 1e-9), new_scale
