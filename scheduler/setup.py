"""Settings of the decision, and `EngineSetup`: all the engine needs to know, written into the ledger's first record."""

import math
from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from scheduler.allocation import AdaptiveAllocation, AllocationConfig, UniformAllocation
from scheduler.config_model import ConfigModel
from scheduler.curriculum_config import CurriculumConfig
from scheduler.policy_config import ExplicitPrior as ExplicitPrior
from scheduler.policy_config import HeatPolicy, Policy, Prior, TemperaturePrior
from scheduler.policy_config import ProportionalPrior as ProportionalPrior
from scheduler.policy_config import StaticPolicy as StaticPolicy
from scheduler.policy_config import UniformPrior as UniformPrior
from scheduler.states import StatesConfig
from scheduler.task import Repetition, TaskSpec

Mode = Literal["lag1", "sync", "async"]
WeightUnit = Literal["samples", "tokens"]

_PEAK_SLACK_EVALUATIONS = 2


class HeatConfig(ConfigModel):
    """How heat is computed from signals (formulas and units in `scheduler.heat`).

    The four weights are relative; a weight of 0 switches its component off.

    Attributes:
        human_half_life_evaluations: In which a person's verdict comes to count half: it is of an older model then.
        stall_horizon_ratio: Exposure over which progress is projected, as a share of a task's in the whole run.
        stall_full_reach: Share of its loss or gap that the projected exposure must take away for full learnability.
        stall_patience_ratio: Share of a task's exposure in the whole run before it is judged.
        stall_give_up_ratio: The same before it may be recognised as noise and fall below its prior share.
    """

    decay_weight: FiniteFloat = Field(default=0.3, ge=0)
    variance_weight: FiniteFloat = Field(default=0.15, ge=0)
    rejection_weight: FiniteFloat = Field(default=0.2, ge=0)
    gap_weight: FiniteFloat = Field(default=0.7, ge=0)
    half_life_evaluations: float = Field(default=1.0, gt=0)
    stale_half_life_evaluations: float = Field(default=4.0, gt=0)
    rejection_prior_reviews: FiniteFloat = Field(default=8.0, gt=0)
    human_review_weight: FiniteFloat = Field(default=5.0, ge=0)
    human_half_life_evaluations: float = Field(default=5.0, gt=0)
    stall_horizon_ratio: float = Field(default=0.5, gt=0, le=10)
    stall_full_reach: float = Field(default=0.2, gt=0, le=1)
    stall_patience_ratio: float = Field(default=0.2, ge=0, le=1)
    stall_give_up_ratio: float = Field(default=0.5, ge=0, le=2)
    stall_min_gap: float = Field(default=0.3, ge=0, le=1)
    min_learnability: float = Field(default=0.1, gt=0, le=1)

    @property
    def total_weight(self) -> float:
        """Of the four components."""
        return self.decay_weight + self.variance_weight + self.rejection_weight + self.gap_weight

    @property
    def kept_ratio(self) -> float:
        """What smoothing leaves of the heat before, an evaluation later."""
        return 0.5 ** (1.0 / self.half_life_evaluations)

    @model_validator(mode="after")
    def _some_component_is_on(self) -> "HeatConfig":
        if not self.total_weight > 0:
            raise ValueError("all four component weights are 0; switch at least one on, or use policy.type: static")
        return self


class GuardConfig(ConfigModel):
    """Bounds applied after any policy, in this order.

    Attributes:
        hold_core: A core task keeps at least its prior share, as far as the other bounds leave room.
        max_epochs: Soft cap on how often a task's rows may be repeated in the whole run (UniMax); null: no cap.
        overfit_patience: Evaluations in a row with held-out loss above its best by `overfit_tolerance` (relative) and
            no better score, after which the task's target is multiplied by `overfit_cooling`.
        overfit_action: `cool` does so for as long as the loss stays there; `freeze` takes the task out for the rest of
            the run: its weight goes to its floor; `roll_back` does that and goes back to the newest checkpoint before
            the task's peak (mSFT, arXiv 2603.21606): what was trained since then is trained again without it.
        floor_ratio: Least weight of a task, as a share of the uniform weight 1/K.
        max_exposure_gap_steps: Raises the floor so that every task is seen at least once in so many steps in a row.
        ceiling: Greatest weight of a task.
        max_change: Greatest total-variation distance between consecutive plans at the start of the run.
        late_max_change: The same at the end of the run, `max_change` at most; linear in between.
    """

    hold_core: bool = True
    max_epochs: float | None = Field(default=None, gt=0)
    overfit_patience: int = Field(default=3, ge=1)
    overfit_tolerance: float = Field(default=0.1, ge=0)
    overfit_cooling: float = Field(default=0.5, gt=0, le=1)
    overfit_action: Literal["cool", "freeze", "roll_back"] = "cool"
    floor_ratio: float = Field(default=0.2, ge=0, lt=1)
    max_exposure_gap_steps: int | None = Field(default=None, ge=1)
    ceiling: float = Field(default=0.75, gt=0, le=1)
    max_change: float = Field(default=0.12, gt=0, le=1)
    late_max_change: float = Field(default=0.04, gt=0, le=1)


class StageGuards(ConfigModel):
    """A stage's own guards; null: as in `mixture.guards`, where each is explained."""

    hold_core: bool | None = None
    max_epochs: float | None = Field(default=None, gt=0)
    overfit_patience: int | None = Field(default=None, ge=1)
    overfit_tolerance: float | None = Field(default=None, ge=0)
    overfit_cooling: float | None = Field(default=None, gt=0, le=1)
    overfit_action: Literal["cool", "freeze", "roll_back"] | None = None
    floor_ratio: float | None = Field(default=None, ge=0, lt=1)
    max_exposure_gap_steps: int | None = Field(default=None, ge=1)
    ceiling: float | None = Field(default=None, gt=0, le=1)
    max_change: float | None = Field(default=None, gt=0, le=1)
    late_max_change: float | None = Field(default=None, gt=0, le=1)

    def over(self, guards: GuardConfig) -> GuardConfig:
        """The run's guards with this stage's own in their places."""
        return guards.model_copy(update=self.model_dump(exclude_none=True))


class MixtureConfig(ConfigModel):
    """The control loop: what the mixture starts from, which policy moves it, how far, and when.

    `interval_steps` optimiser steps lie between evaluations (null: a twentieth of the run, 50 at most). `mode`: `lag1`
    trains on while the evaluation runs and applies its plan one interval later, deterministically; `sync` waits for it;
    `async` applies it whenever it is ready. `weight_unit` says what a weight is a share of: samples, or supervised
    tokens (answers and their stop tokens). `curriculum` lets tasks climb their difficulty levels by what the model can
    do (null: every level is open, or the stage's window); `states` bounds the mixture in parts of the run.
    """

    prior: Prior = TemperaturePrior()
    policy: Policy = HeatPolicy()
    heat: HeatConfig = HeatConfig()
    guards: GuardConfig = GuardConfig()
    curriculum: CurriculumConfig | None = None
    states: StatesConfig = StatesConfig()
    interval_steps: int | None = Field(default=None, ge=1)
    mode: Mode = "lag1"
    weight_unit: WeightUnit = "samples"
    plan_timeout_s: float = Field(default=120.0, gt=0)
    allocation: AllocationConfig = Field(
        default=UniformAllocation(), description="which tasks are measured, and how well"
    )

    def interval_of(self, total_steps: int) -> int:
        """Optimiser steps between evaluations in a run of `total_steps`."""
        return self.interval_steps or min(50, max(1, total_steps // 20))


class Arrangement(ConfigModel):
    """How a sample is put before the model; the three are relative shares of each task's samples.

    `single`: the row alone. `chain`: after the rows it continues (its `parent_id`, their parents, ...) with their
    answers. `contrast`: after a related row with its answer. Only the row's own answer is supervised. A row without
    parents or relatives stands alone whatever it is offered. The last answer before a chain's row is the teacher's
    until the score of that answer's task has reached `own_answers_at`, then the model's own, written at the start of
    every interval; null: always the teacher's.
    """

    single: FiniteFloat = Field(default=1.0, ge=0)
    chain: FiniteFloat = Field(default=0.0, ge=0)
    contrast: FiniteFloat = Field(default=0.0, ge=0)
    own_answers_at: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _is_a_mixture(self) -> "Arrangement":
        if not self.single + self.chain + self.contrast > 0:
            raise ValueError("single, chain and contrast are all 0; give at least one of them a share")
        return self

    def shares(self) -> tuple[float, float, float]:
        """Shares of single, chain, contrast; they sum to one."""
        total = self.single + self.chain + self.contrast
        return self.single / total, self.chain / total, self.contrast / total


class DifficultyWindow(ConfigModel):
    """Which difficulty levels of every task are trained, counted from 1; a task with fewer levels ends sooner.

    `replay_ratio` of a task's samples come from the levels below the window.
    """

    first: int = Field(default=1, ge=1)
    last: int = Field(default=1_000_000, ge=1)
    replay_ratio: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _is_not_empty(self) -> "DifficultyWindow":
        if self.last < self.first:
            raise ValueError(f"last {self.last} lies before first {self.first}")
        return self


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

    def limit(self, total_steps: int) -> int:
        """Step by which the stage ends in a run of `total_steps`, whatever the model can do."""
        return max(self.min_steps, total_steps // 2) if self.max_steps is None else self.max_steps


Boundary = Annotated[StepBoundary | FractionBoundary | CapabilityBoundary, Field(discriminator="type")]


def sample_cap(repetition: Repetition, *, num_rows: int) -> int | None:
    """Most samples a task of `num_rows` rows gives: `max_epochs` times its rows, rounded down; None: no end."""
    if repetition.max_epochs is None:
        return None
    return math.floor(repetition.max_epochs * num_rows + 1e-9)


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
        stage_arrangements: Context arrangement of stage 1 and of stage 2.
        stage_difficulty: Difficulty window of stage 1 and of stage 2; None: every level.
        stage_guards: What stage 1 and stage 2 have of their own among the guards (`guards_of`).
        level_sizes: Training rows per task and difficulty level, easiest first; empty for a run without difficulty
            windows, whose tasks each are one pool of rows.
        mean_supervised_tokens: Of a training row, per task; empty where weights are shares of samples.
        num_probes: Probes held out per task; may be empty where every evaluation reads all of them.
    """

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    num_rows: tuple[int, ...]
    seed: int
    total_steps: int = Field(ge=1)
    global_batch_size: int = Field(ge=1)
    mixture: MixtureConfig
    boundary: Boundary | None
    stage_policies: tuple[Policy, Policy]
    stage_arrangements: tuple[Arrangement, Arrangement] = (Arrangement(), Arrangement())
    stage_difficulty: tuple[DifficultyWindow | None, DifficultyWindow | None] = (None, None)
    stage_guards: tuple[StageGuards, StageGuards] = (StageGuards(), StageGuards())
    level_sizes: tuple[tuple[int, ...], ...] = ()
    mean_supervised_tokens: tuple[float, ...] = ()
    num_probes: tuple[int, ...] = ()

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
        if self.level_sizes and tuple(map(sum, self.level_sizes)) != self.num_rows:
            raise ValueError("level_sizes do not add up to num_rows task by task")
        by_token = self.mixture.weight_unit == "tokens"
        if len(self.mean_supervised_tokens) != by_token * len(names):
            raise ValueError(
                "mean_supervised_tokens belongs to mixture.weight_unit: tokens, one number a task; "
                f"it has {len(self.mean_supervised_tokens)} for {len(names)} tasks weighted by "
                f"{self.mixture.weight_unit}"
            )
        for own, guards in zip(
            ("mixture", "stages.0", "stages.1"), (self.mixture.guards, *self.stage_guards), strict=True
        ):
            if by_token and guards.max_exposure_gap_steps is not None:
                raise ValueError(
                    f"{own}.guards.max_exposure_gap_steps bounds samples and cannot be kept by weights of tokens; "
                    "leave one of it and mixture.weight_unit: tokens out"
                )
        return self

    @model_validator(mode="after")
    def _probes_are_known_where_they_are_shared_out(self) -> "EngineSetup":
        allocation = self.mixture.allocation
        shared = isinstance(allocation, AdaptiveAllocation) or allocation.probes_per_task is not None
        if (shared or self.num_probes) and len(self.num_probes) != len(self.tasks):
            raise ValueError(f"num_probes has {len(self.num_probes)} entries for {len(self.tasks)} tasks")
        return self

    @model_validator(mode="after")
    def _caps_leave_enough_samples(self) -> "EngineSetup":
        capacity, needed = self.total_capacity, self.total_steps * self.global_batch_size
        if capacity is not None and needed > capacity:
            raise ValueError(
                f"{self.total_steps} steps of {self.global_batch_size} samples need {needed} samples, but the tasks' "
                f"repetition.max_epochs allow {capacity} in all; raise max_epochs, set it to null for a task, or train "
                f"for at most {capacity // self.global_batch_size} steps"
            )
        return self

    @model_validator(mode="after")
    def _stage_2_begins_before_the_freeze(self) -> "EngineSetup":
        frozen = self.mixture.states.frozen_after
        match self.boundary:
            case StepBoundary(step=step):
                begins = step / self.total_steps
            case FractionBoundary(fraction=fraction):
                begins = fraction
            case _:
                return self
        if frozen is not None and begins >= frozen:
            raise ValueError(
                f"mixture.states.frozen_after {frozen:g} comes before stage 2, which begins at {begins:.3g} of the "
                "run; freeze later, or end stage 1 sooner"
            )
        return self

    def guards_of(self, stage: int) -> GuardConfig:
        """The guards of stage 1 or 2."""
        return self.stage_guards[stage - 1].over(self.mixture.guards)

    @property
    def stages_guards(self) -> tuple[GuardConfig, ...]:
        """The guards of every stage that the run may come to."""
        return tuple(map(self.guards_of, (1,) if self.boundary is None else (1, 2)))

    @property
    def evaluations_gone_back(self) -> int:
        """How many evaluations a roll-back reaches back; 0 where no stage goes back.

        A peak lies `overfit_patience` evaluations back, and one or two more under lag or where the loss wavered.
        """
        patience = [own.overfit_patience for own in self.stages_guards if own.overfit_action == "roll_back"]
        return max(patience) + _PEAK_SLACK_EVALUATIONS if patience else 0

    @property
    def freezes(self) -> bool:
        """Whether a task past its held-out peak may be taken out for good, in any stage."""
        return any(guards.overfit_action != "cool" for guards in self.stages_guards)

    @property
    def total_capacity(self) -> int | None:
        """Most samples the run can draw under the tasks' `repetition.max_epochs`; None if a task has no end."""
        caps = [
            sample_cap(task.repetition, num_rows=rows) for task, rows in zip(self.tasks, self.num_rows, strict=True)
        ]
        return None if None in caps else sum(cap for cap in caps if cap is not None)

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
