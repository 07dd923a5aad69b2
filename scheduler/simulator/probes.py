"""The simulated evaluation: from what is true of a task to what a few probes show of it.

Every random number is a uniform or normal draw whose number and order do not depend on the truth: under one seed all
arms of a comparison are measured with the same luck.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler.signals import TaskSignal
from scheduler.simulator.config import MeasurementConfig
from scheduler.simulator.learner import Truth

Array = NDArray[np.float64]


class Probes:
    """The probes of one run. K tasks, P probes each, S of them sampled, A answers to each of those.

    Probe k of a task is solved while the true score y is above its threshold, uniform in [0, 1]: the number solved is
    binomial (P, y). From one evaluation to the next `probe_turnover` of the thresholds are drawn afresh.
    """

    def __init__(self, config: MeasurementConfig, *, undecided: Array, rejected_share: Array, seed: int) -> None:
        self.config = config
        self._undecided = undecided[:, None]
        self._rejected_share = rejected_share[:, None]
        self._rng = np.random.default_rng([seed, 2])
        num_tasks = len(undecided)
        self._thresholds = self._rng.random((num_tasks, config.num_probes))
        offset = config.loss_offset / np.sqrt(config.num_probes) * self._rng.standard_normal(num_tasks)
        self._loss_factor = np.maximum(1.0 + offset, 0.1)

    def measure(
        self, names: tuple[str, ...], truth: Truth, *, step: int, plan_version: int, num_probes: Sequence[int] = ()
    ) -> list[TaskSignal]:
        """One signal a task, from one evaluation at `step`, on its first `num_probes` probes; empty: on all.

        A task with none has no signal. The loss is of all probes: its noise does not depend on their number here.
        """
        config, rng = self.config, self._rng
        num_tasks, num_answers = len(names), config.sampled_probes * config.samples_per_probe
        turned = rng.random(self._thresholds.shape) < config.probe_turnover
        self._thresholds = np.where(turned, rng.random(self._thresholds.shape), self._thresholds)
        jitter = 1.0 + config.loss_jitter * rng.standard_normal(num_tasks)
        sampled_score, variance = self._sampled(truth.score)
        in_format = rng.random((num_tasks, num_answers)) < truth.format_compliance[:, None]
        accepted = in_format & (rng.random((num_tasks, num_answers)) >= self._rejected_share)
        counts = np.array(num_probes or (config.num_probes,) * num_tasks)
        read = np.arange(config.num_probes) < counts[:, None]
        columns = (
            counts,
            ((self._thresholds < truth.score[:, None]) & read).sum(axis=1) / np.maximum(counts, 1),
            truth.loss * self._loss_factor * jitter,
            sampled_score,
            variance,
            num_answers - accepted.sum(axis=1),
            in_format.mean(axis=1),
        )
        return [
            TaskSignal(
                task=name,
                attempt=0,
                step=step,
                plan_version=plan_version,
                num_probes=count,
                score=score,
                loss=loss,
                sampled_score=sampled,
                score_variance=spread,
                num_rejected=rejected,
                num_reviewed=num_answers,
                format_compliance=compliance,
            )
            for name, count, score, loss, sampled, spread, rejected, compliance in zip(
                names, *(column.tolist() for column in columns), strict=True
            )
            if count
        ]

    def _sampled(self, score: Array) -> tuple[Array, Array]:
        """Mean score [K] of the sampled answers, and mean over their probes of the variance between answers [K]."""
        config, true = self.config, score[:, None]
        shape = (len(score), config.sampled_probes)
        undecided = self._rng.random(shape) < self._undecided
        always = self._rng.random(shape) < true
        each_time = self._rng.random((*shape, config.samples_per_probe)) < true[..., None]
        answers = np.where(undecided[..., None], each_time, always[..., None])
        return answers.mean(axis=(1, 2)), answers.var(axis=2).mean(axis=1)
