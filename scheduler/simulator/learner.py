"""The learner: exposure in, truth out. Formulas over arrays [K], one call an interval, no random number after start.

Notation: n samples served so far, x effective exposure (samples), T steps of the interval, Δn samples served in it.

    exposure    Δx_i = Σ_j E_ij Δn_j, E_ii = 1; a gain counts times the gate g_i; x never falls below 0
    forgetting  x ← x·2^(−T/h) + Δx·(1 − 2^(−T/h))·h / (T ln 2): exposure spread evenly over the interval fades with
                the half-life h (steps)
    gate        g_i = min over prerequisites p of clip(m_p / needed, 0, 1), at the start of the interval; 1 without any
    mastery     m = min(1 − (1 + x/scale)^(−exponent), g)
    loss        L = floor + (start − floor)·(1 − m): the law of Kaplan et al. (arXiv 2001.08361) and Hoffmann et al.
                (arXiv 2203.15556), L = E + B·D^(−β), shifted by `scale` so that it is finite without exposure
    score       y = chance + (best − chance)·m^sharpness·jump,  jump = σ((x − at)/width) rescaled to 0 at x = 0
    overfit     with o = max(0, n/rows − after) epochs: held-out L + rate·o; score above chance ·(1 − s)^o; training
                loss L·(1 − r)^o
    format      f = 1 − (1 − start)·exp(−x_f/format_samples), x_f the greatest exposure so far
    rejected    1 − f·(1 − rejected_share)
    variance    u·y·(1 − y): the share u of undecided probes is answered right with probability y each time, the others
                always or never

The linear transfer E is that of Skill-It (arXiv 2307.14430) and of linear mixing laws (Aioli, arXiv 2411.05735), on
exposure here and not on loss. The memory decay is exponential, the simplest form with a half-life; the format, jump and
overfit terms are shapes chosen to be like what is seen, not published laws.

What this does not do: gradients, learning rates, batch noise, transfer that changes during training, difficulty levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import ConfigError
from scheduler.simulator.config import (
    Forgetting,
    LearnerConfig,
    NoiseCurve,
    Overfit,
    Plateau,
    PowerLawCurve,
    Prerequisites,
    SaturatedCurve,
    TaskLearner,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truth:
    """What holds of every task, arrays [K]: losses in nats per supervised token, the rest in [0, 1]."""

    mastery: Array
    score: Array
    loss: Array
    train_loss: Array
    format_compliance: Array
    output_variance: Array
    rejection_rate: Array


class Learner:
    """State: effective exposure and samples served, per task [K]. See the module docstring for the formulas.

    Raises:
        ConfigError: There is no task, a transfer or prerequisite names none, or prerequisites go round in a circle.
    """

    def __init__(self, config: LearnerConfig, *, seed: int = 0) -> None:
        if not config.tasks:
            raise ConfigError("learner.tasks is empty: describe at least one task, or fit a run")
        self.config = config
        self.names = tuple(config.tasks)
        tasks = tuple(config.tasks.values())
        self.num_rows = tuple(task.rows for task in tasks)
        self.exposure = np.zeros(len(tasks))
        self.greatest_exposure = np.zeros(len(tasks))
        self.served = np.zeros(len(tasks))
        self.undecided = np.array([task.undecided_share for task in tasks])
        self.rejected_share = np.array([task.rejected_share for task in tasks])
        self._transfer = _transfer_matrix(config, self.names)
        self._curves = _curve_columns(tasks, spread=config.spread, seed=seed)
        self._effects = _effect_columns(tasks)
        self._gates = _gates(config.tasks)
        self._format = np.array([(_start_compliance(task), task.format_samples) for task in tasks]).T

    def advance(self, num_samples: NDArray[np.int64], *, num_steps: int) -> None:
        """Train one interval: `num_samples` [K] samples in `num_steps` steps."""
        served = num_samples.astype(np.float64)
        gain = self._transfer @ served if self._transfer is not None else served
        gain = np.where(gain > 0.0, gain * self._gate(), gain)
        half_lives = self._effects["half_life_steps"]
        lost = num_steps * np.log(2.0) / half_lives  # 0 where the half-life is infinite
        arriving = np.where(lost > 0.0, -np.expm1(-lost) / np.where(lost > 0.0, lost, 1.0), 1.0)
        self.exposure = np.maximum(self.exposure * np.exp(-lost) + gain * arriving, 0.0)
        self.greatest_exposure = np.maximum(self.greatest_exposure, self.exposure)
        self.served = self.served + served

    def truth(self) -> Truth:
        """Of the model as it is now."""
        curves, effects = self._curves, self._effects
        mastery = self._mastery()
        jump = _jump(self.exposure, effects["at_samples"], effects["width_samples"])
        rise = curves["best"] - curves["chance"]
        over = np.maximum(self.served / np.array(self.num_rows) - effects["after_epochs"], 0.0)
        shown = np.where(effects["holds_loss"] > 0, mastery * jump, mastery)
        clean = curves["start"] - (curves["start"] - curves["floor"]) * shown
        above_chance = rise * mastery ** curves["sharpness"] * jump
        score = curves["chance"] + above_chance * (1.0 - effects["score_per_epoch"]) ** over
        start, samples = self._format
        compliance = 1.0 - (1.0 - start) * np.exp(-self.greatest_exposure / samples)
        return Truth(
            mastery=mastery,
            score=np.clip(score, 0.0, 1.0),
            loss=clean + effects["loss_per_epoch"] * over,
            train_loss=clean * (1.0 - effects["train_loss_per_epoch"]) ** over,
            format_compliance=compliance,
            output_variance=self.undecided * score * (1.0 - score),
            rejection_rate=1.0 - compliance * (1.0 - self.rejected_share),
        )

    def _own_mastery(self) -> Array:
        curves = self._curves
        return curves["start_mastery"] + 1.0 - (1.0 + self.exposure / curves["scale"]) ** -curves["exponent"]

    def _mastery(self) -> Array:
        return self._gated()[0]

    def _gate(self) -> Array:
        return self._gated()[1]

    def _gated(self) -> tuple[Array, Array]:
        """Mastery and gate [K], prerequisites before the tasks that need them."""
        mastery = np.minimum(self._own_mastery(), 1.0)
        gate = np.ones_like(mastery)
        for task, needs, needed in self._gates:
            gate[task] = min(1.0, float(mastery[needs].min()) / needed)
            mastery[task] = min(mastery[task], gate[task])
        return mastery, gate


def _curve_columns(tasks: Sequence[TaskLearner], *, spread: float, seed: int) -> dict[str, Array]:
    """Parameters [K] by name. A flat curve is one whose start and floor, chance and best are equal."""
    rows: list[tuple[float, ...]] = []
    for task in tasks:
        match task.curve:
            case PowerLawCurve() as law:
                losses, scores = (law.start_loss, law.floor_loss), (law.chance_score, law.best_score)
                rows.append((*losses, law.scale_samples, law.exponent, *scores, law.sharpness, 0.0))
            case NoiseCurve(loss=loss, chance_score=score):
                rows.append((loss, loss, np.inf, 1.0, score, score, 1.0, 0.0))
            case SaturatedCurve(loss=loss, score=score):
                rows.append((loss, loss, np.inf, 1.0, score, score, 1.0, 1.0))
    names = ("start", "floor", "scale", "exponent", "chance", "best", "sharpness", "start_mastery")
    columns: dict[str, Array] = dict(zip(names, np.array(rows).T, strict=True))
    draws = np.exp(spread * np.random.default_rng([seed, 1]).standard_normal((2, len(tasks))))
    columns["scale"] = columns["scale"] * draws[0]
    columns["exponent"] = columns["exponent"] * draws[1]
    return columns


def _start_compliance(task: TaskLearner) -> float:
    return 1.0 if isinstance(task.curve, SaturatedCurve) else task.start_compliance


def _effect_columns(tasks: Sequence[TaskLearner]) -> dict[str, Array]:
    """Parameters [K] by name, at values without effect where a task has none of that type."""
    neutral = {
        "after_epochs": np.inf,
        "loss_per_epoch": 0.0,
        "score_per_epoch": 0.0,
        "train_loss_per_epoch": 0.0,
        "at_samples": 0.0,
        "width_samples": np.inf,
        "holds_loss": 0.0,
        "half_life_steps": np.inf,
    }
    columns = {name: np.full(len(tasks), value) for name, value in neutral.items()}
    for index, task in enumerate(tasks):
        for effect in task.effects:
            if isinstance(effect, Overfit | Plateau | Forgetting):
                for name in type(effect).model_fields.keys() & neutral.keys():
                    columns[name][index] = getattr(effect, name)
    return columns


def _jump(exposure: Array, at: Array, width: Array) -> Array:
    """Logistic rise [K] from 0 without exposure to 1; 1 everywhere where the width is infinite (no plateau)."""
    has_plateau = np.isfinite(width)
    safe = np.where(has_plateau, width, 1.0)
    low = 1.0 / (1.0 + np.exp(np.minimum(at / safe, 700.0)))
    now = 1.0 / (1.0 + np.exp(np.clip((at - exposure) / safe, -700.0, 700.0)))
    return np.where(has_plateau, (now - low) / (1.0 - low), 1.0)


def _transfer_matrix(config: LearnerConfig, names: Sequence[str]) -> Array | None:
    """E [K, K], row learner, column teacher; None for the unit matrix."""
    if not config.transfer:
        return None
    index_of = {name: index for index, name in enumerate(names)}
    matrix = np.eye(len(names))
    for learner, shares in config.transfer.items():
        for teacher, share in shares.items():
            for name in (learner, teacher):
                _known(name, names, f"learner.transfer.{learner}")
            if learner == teacher:
                raise ConfigError(f"learner.transfer.{learner}.{learner}: a task counts 1 for itself; remove the entry")
            matrix[index_of[learner], index_of[teacher]] = share
    return matrix


def _gates(tasks: Mapping[str, TaskLearner]) -> list[tuple[int, list[int], float]]:
    """Task, its prerequisites, and the mastery needed; a task comes after all it needs."""
    names = list(tasks)
    found: dict[str, Prerequisites] = {}
    for name, task in tasks.items():
        for effect in task.effects:
            if isinstance(effect, Prerequisites):
                for needed in effect.tasks:
                    _known(needed, names, f"learner.tasks.{name}.effects: prerequisites")
                found[name] = effect
    try:
        order = list(TopologicalSorter({name: effect.tasks for name, effect in found.items()}).static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise ConfigError(f"learner.tasks: prerequisites go round in a circle ({circle}); drop one of them") from error
    return [
        (names.index(name), [names.index(needed) for needed in found[name].tasks], found[name].needed)
        for name in order
        if name in found
    ]


def _known(name: str, names: Sequence[str], place: str) -> None:
    if name not in names:
        raise ConfigError(f"{place}: {name!r} is not a task of learner.tasks; it has {list(names)}")
