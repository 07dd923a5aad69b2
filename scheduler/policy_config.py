"""What a person writes about the mixture itself: the prior it starts from, and the policy that moves it.

The rule behind a policy, its source, its differences from that source and its known failures stand in the file of the
same name under `scheduler.policies`; this module holds the settings only.
"""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from scheduler.config_model import ConfigModel

Measure = Literal["loss", "score", "train_loss"]
Stretch = Literal["step", "linear", "cosine"]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]


class ProportionalPrior(ConfigModel):
    """Share by size: training rows, or their supervised tokens where weights are shares of tokens."""

    type: Literal["proportional"] = "proportional"


class UniformPrior(ConfigModel):
    """Equal shares."""

    type: Literal["uniform"] = "uniform"


class TemperaturePrior(ConfigModel):
    """Share by size ** (1 / tau): tau 1 is proportional, a large tau is uniform (mT5, T5)."""

    type: Literal["temperature"] = "temperature"
    tau: float = Field(default=5.0, ge=1)


class ExplicitPrior(ConfigModel):
    """Weights by task name, not necessarily summing to one; a task left out gets none beyond the floor."""

    type: Literal["explicit"] = "explicit"
    weights: dict[str, FiniteFloat]

    @model_validator(mode="after")
    def _is_a_mixture(self) -> "ExplicitPrior":
        negative = {name: weight for name, weight in self.weights.items() if not weight >= 0}
        if negative:
            raise ValueError(f"weights must be >= 0, got {negative}")
        if not sum(self.weights.values()) > 0:
            raise ValueError("all weights are zero; give at least one task a positive weight")
        return self


Prior = Annotated[ProportionalPrior | UniformPrior | TemperaturePrior | ExplicitPrior, Field(discriminator="type")]


class StaticPolicy(ConfigModel):
    """Keep the prior: the plan never moves."""

    type: Literal["static"] = "static"


class SchedulePolicy(ConfigModel):
    """Pass from one mixture to another while the run goes on, whatever is measured (see `scheduler.policies.schedule`).

    Attributes:
        before: Mixture until `begins`; null: `mixture.prior`.
        after: Mixture from `ends` on.
        begins: Fraction of the run after which the mixture begins to move.
        ends: Fraction of the run after which it has arrived; `begins` 0.8 and `ends` 1.0 make a cooldown over the last
            fifth.
        shape: `step` jumps at `begins`, `linear` and `cosine` move between `begins` and `ends`. The step limit of the
            guards holds in any case.
    """

    type: Literal["schedule"] = "schedule"
    before: Prior | None = None
    after: Prior
    begins: float = Field(default=0.0, ge=0, le=1)
    ends: float = Field(default=1.0, ge=0, le=1)
    shape: Stretch = "linear"

    @model_validator(mode="after")
    def _time_runs_forward(self) -> "SchedulePolicy":
        if self.ends < self.begins:
            raise ValueError(f"ends {self.ends} lies before begins {self.begins}")
        return self


class AdaptivePolicy(ConfigModel):
    """What all policies that read evidence have in common."""

    min_measured_ratio: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="an evaluation that measured tasks with less than this share of the prior together moves no weight "
        "and leaves the policy's memory as it is",
    )


class HeatPolicy(AdaptivePolicy):
    """Weight ∝ prior · exp(strength · heat · learnability), anchored to the prior (see `scheduler.policies.heat`)."""

    type: Literal["heat"] = "heat"
    strength: float = Field(default=5.0, ge=0, le=20)
    long_tail_boost: float = Field(default=0.5, ge=0, le=5, description="adds boost·gap to a long-tail task's exponent")


class ProgressPolicy(AdaptivePolicy):
    """Anchored learning progress, the form of DynamixSFT (see `scheduler.policies.progress`).

    Attributes:
        strength: Exponent of a task with the most progress against one with the least (β).
        rate: Share of the newest evaluation in the moving average of progress (α).
        exploration: Share of the target that stays at the prior (γ).
        measure: What progress is read from: held-out loss, held-out score, or training loss.
        min_spread: Least difference of progress between tasks that counts in full, as a relative change an evaluation.
    """

    type: Literal["progress"] = "progress"
    strength: float = Field(default=4.0, ge=0, le=20)
    rate: float = Field(default=0.05, gt=0, le=1)
    exploration: float = Field(default=0.3, ge=0, le=1)
    measure: Measure = "loss"
    min_spread: float = Field(default=0.01, gt=0, le=1)


class TargetGapPolicy(AdaptivePolicy):
    """Weight by what is missing to a target, at once and without memory (see `scheduler.policies.target_gap`).

    Attributes:
        strength: Exponent of a task that has its whole way still to go.
        target_losses: Held-out loss to reach, by task, in nats per supervised token; a task left out is judged by its
            score against its `target_score`.
    """

    type: Literal["target_gap"] = "target_gap"
    strength: float = Field(default=3.0, ge=0, le=20)
    target_losses: dict[str, NonNegative] = Field(default={})


class GroupDroPolicy(AdaptivePolicy):
    """Raise the worst task by multiplicative weights, step after step (see `scheduler.policies.group_dro`).

    Attributes:
        rate: Exponent added an evaluation to a task that is as bad as at its start (η).
        anchor: Share of the weights that returns to the prior at every evaluation.
        badness: `loss`: held-out loss above its reference, relative to the first; `error`: one minus the score.
        reference_losses: Loss that a task can reach, by task, in nats per supervised token; 0 for a task left out.
        size_adjustment: Adds this over √(training rows) to a task's badness (C).
    """

    type: Literal["group_dro"] = "group_dro"
    rate: float = Field(default=0.5, gt=0, le=10)
    anchor: float = Field(default=0.05, ge=0, le=1)
    badness: Literal["loss", "error"] = "error"
    reference_losses: dict[str, NonNegative] = Field(default={})
    size_adjustment: FiniteFloat = Field(default=0.0, ge=0, le=1e3)


class Exp3Policy(AdaptivePolicy):
    """Adversarial bandit over tasks, Exp3.S (see `scheduler.policies.exp3`).

    Attributes:
        rate: Exponent added an evaluation to a task with the largest reward per exposure (η).
        exploration: Share of the target that stays at the prior (ε).
        share: Share of the bandit's weights that returns to the prior at every evaluation (α).
        measure: What the reward is read from: held-out loss, held-out score, or training loss.
    """

    type: Literal["exp3"] = "exp3"
    rate: float = Field(default=0.3, gt=0, le=10)
    exploration: float = Field(default=0.05, ge=0, le=1)
    share: float = Field(default=0.05, ge=0, le=1)
    measure: Measure = "loss"


class OdmPolicy(AdaptivePolicy):
    """Online data mixing: an averaged bandit whose exploration decays (see `scheduler.policies.odm`).

    Attributes:
        rate: Share of the newest evaluation in the moving average of rewards (1 − α).
        reward_scale: Factor on the averaged reward in the exponent.
        min_exploration: Least exploration rate ε, which also keeps the exponent from vanishing; 0.45 / tasks where that
            is less, so that rewards move the mixture whatever the number of tasks.
        measure: What the reward is read from: held-out loss, held-out score, or training loss.
    """

    type: Literal["odm"] = "odm"
    rate: float = Field(default=0.1, gt=0, le=1)
    reward_scale: float = Field(default=15.0, ge=0, le=1e3)
    min_exploration: float = Field(default=0.03, ge=0, le=1)
    measure: Measure = "loss"


class AdoPolicy(AdaptivePolicy):
    """Follow the slope of each task's own scaling law (see `scheduler.policies.ado`).

    Attributes:
        min_points: Measurements of a task before its law is used.
        offset_samples: Samples added to those served, so that the law begins at a finite loss; where weights are shares
            of tokens, so many times the supervised tokens of the task's mean row.
        credit_rate: Share of the newest evaluation in the moving average of a task's share of exposure.
        credit_power: Power of that average in the preference.
        mixing: Share of the preference in the target; the rest is the running mean of all targets so far.
        measure: The loss that the law is fitted to: held-out or training loss.
    """

    type: Literal["ado"] = "ado"
    min_points: int = Field(default=5, ge=4)
    offset_samples: int = Field(default=512, ge=1)
    credit_rate: float = Field(default=0.1, gt=0, le=1)
    credit_power: float = Field(default=0.5, ge=0, le=1)
    mixing: float = Field(default=0.1, gt=0, le=1)
    measure: Literal["loss", "train_loss"] = "loss"


class SkillItPolicy(AdaptivePolicy):
    """Train what the tasks with much loss left depend on, by a given graph (see `scheduler.policies.skill_it`).

    Attributes:
        strength: Exponent of a unit of loss left (η).
        window: Evaluations whose losses are added up (w).
        prerequisites: For a task, the tasks it builds on.
        prerequisite_effect: How much a task's training is worth to a task that builds on it; to itself it is 1.
        effects: Single effects by trained task and helped task, before `prerequisites`; a task on itself included.
    """

    type: Literal["skill_it"] = "skill_it"
    strength: float = Field(default=0.5, ge=0, le=20)
    window: int = Field(default=3, ge=1, le=100)
    prerequisites: dict[str, tuple[str, ...]] = Field(default={})
    prerequisite_effect: float = Field(default=0.5, ge=0, le=10)
    effects: dict[str, dict[str, Annotated[NonNegative, Field(le=10)]]] = Field(default={})


class GradientPolicy(AdaptivePolicy):
    """Raise the tasks with large, clean or aligned gradients, after PiKE and R&B (see `scheduler.policies.gradient`).

    It needs `train.influence`, which measures them.

    Attributes:
        form: `pike`: squared norm of the gradient less its noise; `alignment`: how far the task's gradient and the
            applied update agree, in the form of R&B.
        rate: Exponent added at a new measurement to a task with the mean statistic (ζ1).
        noise: Weight of the gradient's variance against its squared norm, in the form `pike` (ζ2 / ζ1).
        anchor: Share of the weights that returns to the prior at every evaluation.
    """

    type: Literal["gradient"] = "gradient"
    form: Literal["pike", "alignment"] = "pike"
    rate: float = Field(default=0.3, gt=0, le=10)
    noise: float = Field(default=1.0, ge=0, le=100)
    anchor: float = Field(default=0.05, ge=0, le=1)


class AioliPolicy(AdaptivePolicy):
    """Correct another policy by an estimate of what each task's share does for all (see `scheduler.policies.aioli`).

    Attributes:
        base: The policy that is corrected; its `min_measured_ratio` is the corrector's.
        strength: Exponent of the whole estimated effect (η); no weight changes against another by more than its exp.
        min_z: The correction is applied only while the estimated effects differ by this many standard errors.
        forgetting: Factor on all earlier evaluations at each new one; null: 0.9 up to five tasks, 1 − 3 / tasks² with
            more. One too small for the number of tasks is refused.
        max_tasks: More tasks than this are refused: the estimate has the square of their number to find.
    """

    type: Literal["aioli"] = "aioli"
    base: Annotated[StaticPolicy | HeatPolicy | TargetGapPolicy, Field(discriminator="type")] = HeatPolicy()
    strength: float = Field(default=0.2, ge=0, le=20)
    min_z: float = Field(default=2.0, ge=0)
    forgetting: float | None = Field(default=None, gt=0, le=1)
    max_tasks: int = Field(default=16, ge=1, le=64)

    @model_validator(mode="after")
    def _only_one_ratio_is_asked_for(self) -> "AioliPolicy":
        usual = AdaptivePolicy.model_fields["min_measured_ratio"].default
        own = usual if isinstance(self.base, StaticPolicy) else self.base.min_measured_ratio
        if own not in (usual, self.min_measured_ratio):
            raise ValueError(
                f"base.min_measured_ratio {own:g} would be ignored: aioli's own, {self.min_measured_ratio:g}, decides; "
                f"give aioli itself min_measured_ratio: {own:g}"
            )
        return self


Policy = Annotated[
    StaticPolicy
    | SchedulePolicy
    | HeatPolicy
    | ProgressPolicy
    | TargetGapPolicy
    | GroupDroPolicy
    | Exp3Policy
    | OdmPolicy
    | AdoPolicy
    | SkillItPolicy
    | GradientPolicy
    | AioliPolicy,
    Field(discriminator="type"),
]
