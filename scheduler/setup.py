"""Settings of the decision, and `EngineSetup`: all the engine needs to know, written into the ledger's first record."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from scheduler.config_model import ConfigModel
from scheduler.task import TaskSpec

Mode = Literal["lag1", "sync", "async"]


class ProportionalPrior(ConfigModel):
    """Share by number of training rows."""

    type: Literal["proportional"] = "proportional"


class UniformPrior(ConfigModel):
    """Equal shares."""

    type: Literal["uniform"] = "uniform"


class TemperaturePrior(ConfigModel):
    """Share by rows ** (1 / tau): tau 1 is proportional, a large tau is uniform (mT5, T5)."""

    type: Literal["temperature"] = "temperature"
    tau: float = Field(default=2.0, ge=1)


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


class HeatPolicy(ConfigModel):
    """Weight ∝ prior · exp(strength · heat · learnability), anchored to the prior (see `scheduler.policies.heat`)."""

    type: Literal["heat"] = "heat"
    strength: float = Field(default=3.0, ge=0, le=20)
    long_tail_boost: float = Field(default=0.5, ge=0, le=5, description="adds boost·gap to a long-tail task's exponent")


Policy = Annotated[StaticPolicy | HeatPolicy, Field(discriminator="type")]


class HeatConfig(ConfigModel):
    """How heat is computed from signals (formulas and units in `scheduler.heat`).

    The four weights are relative; a weight of 0 switches its component off.
    """

    decay_weight: FiniteFloat = Field(default=0.3, ge=0)
    variance_weight: FiniteFloat = Field(default=0.15, ge=0)
    rejection_weight: FiniteFloat = Field(default=0.2, ge=0)
    gap_weight: FiniteFloat = Field(default=0.35, ge=0)
    half_life_evaluations: float = Field(default=1.0, gt=0)
    stale_half_life_evaluations: float = Field(default=4.0, gt=0)
    rejection_prior_reviews: FiniteFloat = Field(default=8.0, gt=0)
    human_review_weight: FiniteFloat = Field(default=5.0, ge=0)
    stall_evaluations: int = Field(default=4, ge=1)
    stall_min_samples: int = Field(default=512, ge=0)
    stall_min_gap: float = Field(default=0.3, ge=0, le=1)
    stall_loss_progress: float = Field(default=0.01, gt=0, lt=1)
    min_learnability: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="after")
    def _some_component_is_on(self) -> "HeatConfig":
        if not self.decay_weight + self.variance_weight + self.rejection_weight + self.gap_weight > 0:
            raise ValueError("all four component weights are 0; switch at least one on, or use policy.type: static")
        return self


class GuardConfig(ConfigModel):
    """Bounds applied after any policy, in this order.

    Attributes:
        hold_core: A core task keeps at least its prior share, as far as the other bounds leave room.
        max_epochs: Soft cap on how often a task's rows may be repeated in the whole run (UniMax); null: no cap.
        overfit_patience: Evaluations in a row with held-out loss above its best by `overfit_tolerance` (relative) and
            no better score, after which the task's target is multiplied by `overfit_cooling`.
        floor_ratio: Least weight of a task, as a share of the uniform weight 1/K.
        max_exposure_gap_steps: Raises the floor so that every task is seen at least once in so many steps in a row.
        ceiling: Greatest weight of a task.
        max_change: Greatest total-variation distance between consecutive plans at the start of the run.
        late_max_change: The same at the end of the run; linear in between.
    """

    hold_core: bool = True
    max_epochs: float | None = Field(default=None, gt=0)
    overfit_patience: int = Field(default=3, ge=1)
    overfit_tolerance: float = Field(default=0.1, ge=0)
    overfit_cooling: float = Field(default=0.5, gt=0, le=1)
    floor_ratio: float = Field(default=0.2, ge=0, lt=1)
    max_exposure_gap_steps: int | None = Field(default=None, ge=1)
    ceiling: float = Field(default=0.75, gt=0, le=1)
    max_change: float = Field(default=0.12, gt=0, le=1)
    late_max_change: float = Field(default=0.04, gt=0, le=1)


class MixtureConfig(ConfigModel):
    """The control loop: what the mixture starts from, which policy moves it, how far, and when.

    `interval_steps` optimiser steps lie between evaluations (null: a twentieth of the run, 50 at most). `mode`: `lag1`
    trains on while the evaluation runs and applies its plan one interval later, deterministically; `sync` waits for it;
    `async` applies it whenever it is ready.
    """

    prior: Prior = TemperaturePrior()
    policy: Policy = HeatPolicy()
    heat: HeatConfig = HeatConfig()
    guards: GuardConfig = GuardConfig()
    interval_steps: int | None = Field(default=None, ge=1)
    mode: Mode = "lag1"
    plan_timeout_s: float = Field(default=120.0, gt=0)

    def interval_of(self, total_steps: int) -> int:
        """Optimiser steps between evaluations in a run of `total_steps`."""
        return self.interval_steps or min(50, max(1, total_steps // 20))


class StepBoundary(ConfigModel):
    """The stage ends at this optimiser step (at the first interval boundary not before it)."""

    type: Literal["step"] = "step"
    step: int = Field(ge=1)


class FractionBoundary(ConfigModel):
    """The stage ends after this fraction of all steps."""

    type: Literal["fraction"] = "fraction"
    fraction: float = Field(gt=0, lt=1)


class CapabilityBoundary(ConfigModel):
    """The stage ends when the model can do what the stage was for.

    `metric`, averaged over tasks (`over: mean`) or of the worst task (`over: worst`), was at least `at_least` in
    `evaluations` evaluations in a row; never before `min_steps`, always by `max_steps` (default: half of the run).
    """

    type: Literal["capability"] = "capability"
    metric: Literal["format_compliance", "score"] = "format_compliance"
    over: Literal["mean", "worst"] = "mean"
    at_least: float = Field(default=0.9, gt=0, le=1)
    evaluations: int = Field(default=2, ge=1)
    min_steps: int = Field(default=0, ge=0)
    max_steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> "CapabilityBoundary":
        if self.max_steps is not None and self.max_steps < self.min_steps:
            raise ValueError(f"max_steps {self.max_steps} lies before min_steps {self.min_steps}")
        return self


Boundary = Annotated[StepBoundary | FractionBoundary | CapabilityBoundary, Field(discriminator="type")]


class EngineSetup(ConfigModel):
    """All the engine needs to know. Tasks are in the order of every per-task array of the run.

    Attributes:
        tasks: Ontology cards.
        num_rows: Training rows per task.
        seed: Seed of the run (the stream's, kept here so that the ledger alone can reproduce the sample sequence).
        total_steps: Optimiser steps of the run.
        global_batch_size: Samples per step.
        mixture: Control-loop settings.
        boundary: End of stage 1; None for a run of one stage.
        stage_policies: Policy of stage 1 and of stage 2.
    """

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    num_rows: tuple[int, ...]
    seed: int
    total_steps: int = Field(ge=1)
    global_batch_size: int = Field(ge=1)
    mixture: MixtureConfig
    boundary: Boundary | None
    stage_policies: tuple[Policy, Policy]

    @model_validator(mode="after")
    def _tasks_are_distinct_pools(self) -> "EngineSetup":
        names = [task.name for task in self.tasks]
        repeated = sorted({name for name, count in Counter(names).items() if count > 1})
        if repeated:
            raise ValueError(f"tasks {repeated} are given more than once; give every task a name of its own")
        if len(self.num_rows) != len(names):
            raise ValueError(f"num_rows has {len(self.num_rows)} entries for {len(names)} tasks")
        empty = [name for name, rows in zip(names, self.num_rows, strict=True) if rows < 1]
        if empty:
            raise ValueError(f"tasks {empty} have no training row; add rows or leave the task out")
        return self

    @property
    def interval_steps(self) -> int:
        """Optimiser steps between evaluations."""
        return self.mixture.interval_of(self.total_steps)

    @property
    def lag_steps(self) -> int:
        """Optimiser steps between an evaluation and the first step of the plan decided on it."""
        return self.interval_steps if self.mode == "lag1" else 0

    @property
    def mode(self) -> Mode:
        """How a plan reaches the workers."""
        return self.mixture.mode
