"""Settings of a simulated learner: per task a curve and what bends it, between tasks a transfer matrix, and the probes.

Formulas and their sources are in `scheduler.simulator.learner`. Exposure is counted in samples, losses in nats per
supervised token, scores in [0, 1].
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from scheduler.config_model import ConfigModel


class PowerLawCurve(ConfigModel):
    """The loss falls from `start_loss` towards `floor_loss` by a power law in effective exposure.

    Attributes:
        start_loss: Held-out loss before any exposure, nats per supervised token.
        floor_loss: Loss that no exposure gets below.
        scale_samples: Exposure at which the power law sets in.
        exponent: Steepness of the law.
        chance_score: Score before any exposure.
        best_score: Score at full mastery.
        sharpness: score = chance + (best − chance) · mastery ** sharpness; above 1 the score lags behind the loss.
    """

    type: Literal["power_law"] = "power_law"
    start_loss: FiniteFloat = Field(default=3.0, gt=0)
    floor_loss: FiniteFloat = Field(default=0.2, ge=0)
    scale_samples: FiniteFloat = Field(default=500.0, gt=0)
    exponent: FiniteFloat = Field(default=1.0, gt=0)
    chance_score: float = Field(default=0.0, ge=0, le=1)
    best_score: float = Field(default=1.0, ge=0, le=1)
    sharpness: FiniteFloat = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _falls(self) -> "PowerLawCurve":
        if self.floor_loss >= self.start_loss:
            raise ValueError(f"floor_loss {self.floor_loss:g} is not below start_loss {self.start_loss:g}")
        if self.best_score < self.chance_score:
            raise ValueError(f"best_score {self.best_score:g} is below chance_score {self.chance_score:g}")
        return self


class NoiseCurve(ConfigModel):
    """Random labels: the held-out loss never moves and the score stays at chance, whatever the exposure."""

    type: Literal["noise"] = "noise"
    loss: FiniteFloat = Field(default=1.6, ge=0)
    chance_score: float = Field(default=0.1, ge=0, le=1)


class SaturatedCurve(ConfigModel):
    """At its best from the start, in the right format too: nothing is left to learn."""

    type: Literal["saturated"] = "saturated"
    loss: FiniteFloat = Field(default=0.05, ge=0)
    score: float = Field(default=0.97, ge=0, le=1)


Curve = Annotated[PowerLawCurve | NoiseCurve | SaturatedCurve, Field(discriminator="type")]


class Overfit(ConfigModel):
    """After `after_epochs` passes over the task's rows they are memorised: held-out loss rises, train loss falls.

    Attributes:
        after_epochs: Passes over the task's rows that do no harm.
        loss_per_epoch: Nats that every further epoch adds to the held-out loss.
        score_per_epoch: Share of the score above chance that every further epoch costs.
        train_loss_per_epoch: Share by which every further epoch lowers the training loss.
    """

    type: Literal["overfit"] = "overfit"
    after_epochs: float = Field(default=4.0, ge=0)
    loss_per_epoch: FiniteFloat = Field(default=0.1, ge=0)
    score_per_epoch: float = Field(default=0.05, ge=0, lt=1)
    train_loss_per_epoch: float = Field(default=0.3, ge=0, lt=1)


class Prerequisites(ConfigModel):
    """The task is learnt only as far as the tasks in `tasks` are: to the whole from their mastery `needed` on."""

    type: Literal["prerequisites"] = "prerequisites"
    tasks: tuple[str, ...] = Field(min_length=1)
    needed: float = Field(default=0.8, gt=0, le=1)


class Plateau(ConfigModel):
    """The score sits still until `at_samples` of effective exposure, then jumps within about `width_samples`.

    Attributes:
        at_samples: Effective exposure at the middle of the jump.
        width_samples: Width of the logistic jump.
        holds_loss: Whether the held-out loss sits still too; otherwise it falls all along.
    """

    type: Literal["plateau"] = "plateau"
    at_samples: FiniteFloat = Field(gt=0)
    width_samples: FiniteFloat = Field(default=100.0, gt=0)
    holds_loss: bool = False


class Forgetting(ConfigModel):
    """Effective exposure fades with this half-life, so that a task no longer served is forgotten."""

    type: Literal["forgetting"] = "forgetting"
    half_life_steps: FiniteFloat = Field(gt=0)


Effect = Annotated[Overfit | Prerequisites | Plateau | Forgetting, Field(discriminator="type")]


class TaskLearner(ConfigModel):
    """One task of the learner.

    Attributes:
        rows: Training rows; an epoch of the task is so many samples.
        curve: Loss and score as functions of effective exposure.
        effects: What bends the curve; each type at most once.
        start_compliance: Share of answers in the right format before any exposure.
        format_samples: Exposure that lowers the share of answers in a wrong format to 1/e of what it was.
        rejected_share: Share of well-formed answers that the reviewer rejects for another reason.
        undecided_share: Share of probes whose repeated answers differ; the others are always right or always wrong.
    """

    rows: int = Field(default=2000, ge=1)
    curve: Curve = PowerLawCurve()
    effects: tuple[Effect, ...] = ()
    start_compliance: float = Field(default=0.2, ge=0, le=1)
    format_samples: FiniteFloat = Field(default=200.0, gt=0)
    rejected_share: float = Field(default=0.0, ge=0, le=1)
    undecided_share: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _each_effect_once(self) -> "TaskLearner":
        types = [effect.type for effect in self.effects]
        twice = sorted({name for name in types if types.count(name) > 1})
        if twice:
            raise ValueError(f"effects {twice} are given more than once; give each type of effect once a task")
        return self


class LearnerConfig(ConfigModel):
    """All tasks of the learner, and what they teach each other.

    Attributes:
        tasks: By name; the order of every per-task array.
        transfer: {learner: {teacher: share}}: what one sample of the teacher counts for the learner, in samples of its
            own; negative where it interferes. A task counts 1 for itself.
        spread: Standard deviation, over seeds, of the logarithm of every power law's scale and exponent: how unsure the
            learner is of itself. All arms of a seed face the same draw.
    """

    tasks: dict[str, TaskLearner] = Field(default_factory=dict)
    transfer: dict[str, dict[str, FiniteFloat]] = Field(default_factory=dict)
    spread: float = Field(default=0.1, ge=0, le=2)


class MeasurementConfig(ConfigModel):
    """How a simulated evaluation sees the truth.

    Attributes:
        num_probes: Probes per task; the measured score is binomial in them.
        probe_turnover: Share of a task's probes whose outcome is drawn afresh at each evaluation; the others are kept,
            as the same rows are probed all through a run. 1: every evaluation is independent of the one before.
        sampled_probes: Probes answered repeatedly.
        samples_per_probe: Answers to each of them.
        loss_offset: Relative standard deviation over probes of their loss; the probes of a run are drawn once.
        loss_jitter: Relative standard deviation of the measured loss from one evaluation to the next.
    """

    num_probes: int = Field(default=32, ge=1)
    probe_turnover: float = Field(default=0.25, ge=0, le=1)
    sampled_probes: int = Field(default=4, ge=1)
    samples_per_probe: int = Field(default=2, ge=2)
    loss_offset: float = Field(default=0.3, ge=0, lt=1)
    loss_jitter: float = Field(default=0.003, ge=0, lt=0.2)

    @model_validator(mode="after")
    def _sampled_probes_are_probes(self) -> "MeasurementConfig":
        if self.sampled_probes > self.num_probes:
            raise ValueError(f"sampled_probes {self.sampled_probes} is more than num_probes {self.num_probes}")
        return self
