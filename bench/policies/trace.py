"""What any run shows, simulated or real, and its summary as an `Outcome`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.policies.outcome import Outcome

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Trace:
    """A run of B intervals on K tasks.

    Attributes:
        tasks: Names, in the order of the columns.
        random_tasks: Those with random labels, which no score counts.
        num_steps: Optimiser steps of each interval [B].
        weights: In force during each interval [B, K].
        given_up: Whether the engine held a task for noise or out of reach after its decision at the start of each
            interval [B, K]; None without an engine.
        floor: Least weight of a task; None where nothing bounds it.
        curve: (units so far, macro score on the selection rows) at boundaries, and at the end.
        train_units: Tokens trained.
        probe_units: What the probes cost that steered the policy.
        selection: Scores at the end by task.
        test: Likewise, on rows that nothing was chosen by.
        cpu_s: CPU-seconds.
        alike: Arms whose engines decided the same all along, so that this run is theirs too.
    """

    tasks: tuple[str, ...]
    random_tasks: tuple[str, ...]
    num_steps: Sequence[int]
    weights: Array
    given_up: Mask | None
    floor: float | None
    curve: Sequence[tuple[float, float]]
    train_units: float
    probe_units: float
    selection: Mapping[str, float]
    test: Mapping[str, float]
    cpu_s: float
    alike: tuple[str, ...] = ()

    def outcome(self, *, suite: str, arm: str, seed: int) -> Outcome:
        """The summary. A plan decided at the start of an interval is in force from the next one on (mode `lag1`)."""
        mean = np.average(self.weights, axis=0, weights=self.num_steps)
        randoms = [self.tasks.index(name) for name in self.random_tasks]
        recognised = self._recognised(randoms)
        after = slice(None) if recognised is None else slice(recognised + 1, None)
        fed_after = recognised is not None and recognised + 1 < len(self.weights)
        return Outcome(
            suite=suite,
            arm=arm,
            seed=seed,
            num_steps=sum(self.num_steps),
            train_units=self.train_units,
            probe_units=self.probe_units,
            test=_without(self.test, self.random_tasks),
            selection=_without(self.selection, self.random_tasks),
            curve=tuple(self.curve),
            mean_weights=dict(zip(self.tasks, mean.tolist(), strict=True)),
            first_weights=dict(zip(self.tasks, self.weights[0].tolist(), strict=True)),
            moves=(0.5 * np.abs(np.diff(self.weights, axis=0)).sum(axis=1)).tolist(),
            random_share=float(mean[randoms].mean()) if randoms else None,
            random_floor=self.floor,
            recognised_at=None if recognised is None else sum(self.num_steps[:recognised]) / sum(self.num_steps),
            random_share_after=float(self.weights[after][:, randoms].mean()) if fed_after else None,
            cpu_s=self.cpu_s,
        )

    def _recognised(self, randoms: Sequence[int]) -> int | None:
        """First interval at whose start every random task was recognised."""
        if not randoms or self.given_up is None:
            return None
        recognised = np.flatnonzero(self.given_up[:, randoms].all(axis=1))
        return int(recognised[0]) if len(recognised) else None


def _without(scores: Mapping[str, float], left_out: Sequence[str]) -> dict[str, float]:
    return {task: score for task, score in scores.items() if task not in left_out}
