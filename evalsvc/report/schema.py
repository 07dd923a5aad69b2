"""The report of a run as frozen data: everything the page, the model card and the final table show, and no more.

`report.json` is `dataclasses.asdict` of `Report`, so these classes are its schema. `evalsvc.report.model` fills them.
"""

from dataclasses import dataclass, field

from evalsvc.report.history import Event
from evalsvc.report.influence import Influence
from scheduler.records import TaskDecision
from scheduler.setup import WeightUnit
from scheduler.task import Kind, Tier

SCHEMA_VERSION = 3


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Distinct rows of one task: trained on, probed during the run, tested at its end."""

    train: int
    probe: int
    test: int


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source of rows: how many were read and how many of them refused, and the licences its stored rows name."""

    path: str
    num_read: int
    num_refused: int
    licences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the ledger does not say about a run.

    Attributes:
        run_name: Name of the run.
        model: The model in words.
        num_workers: Training workers.
        base_model: Hub id or path of the pretrained model; None for one built from scratch.
        has_adapter: The result is a LoRA adapter, not a full model.
        trust_remote_code: Code that comes with the model has to run.
        wall_seconds: Seconds of wall clock, by what they were spent on, of all sessions whose times are known.
        num_sessions: How often the run was started or gone on with. (A fork counts its own alone.)
        num_untimed_sessions: Those of them that failed or were killed, whose times are not known.
        test_scores: Score in [0, 1] on the held-out test rows, by task.
        rows: Row counts by task.
        sources: Where the rows come from.
    """

    run_name: str
    model: str
    num_workers: int
    base_model: str | None = None
    has_adapter: bool = False
    trust_remote_code: bool = False
    wall_seconds: dict[str, float] = field(default_factory=dict)
    num_sessions: int = 1
    num_untimed_sessions: int = 0
    test_scores: dict[str, float] = field(default_factory=dict)
    rows: dict[str, RowCounts] = field(default_factory=dict)
    sources: tuple[SourceFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Components:
    """The four parts of heat. Each in [0, 1]."""

    decay: float
    variance: float
    rejection: float
    gap: float


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task over the run. None: never measured, never decided on, or (shares) nothing trained.

    `recognised` says in words that it is noise (or out of reach) or solved, and since when; `noise_since` and
    `solved_since` are those steps. `components` are the values behind the last heat, `heat_parts` the heat split among
    them (they sum to `heat`).
    """

    kind: Kind
    tier: Tier
    target_score: float
    first_score: float | None
    last_score: float | None
    test_score: float | None
    first_weight: float
    last_weight: float
    target_share: float | None
    realised_share: float | None
    samples: int
    tokens: int
    epochs: float
    heat: float | None
    learnability: float | None
    noise_since: int | None
    solved_since: int | None
    recognised: str | None
    components: Components | None
    heat_parts: Components | None


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """One decision, and the `state` of the run under its plan.

    `in_force_from_step` is None when no step was trained under it.

    `heat_parts` splits each task's heat among its components: the parts of a task sum to its heat.
    """

    version: int
    source_step: int
    effective_from_step: int
    in_force_from_step: int | None
    stage: int
    state: str
    held: str | None
    weights: dict[str, float]
    tasks: tuple[TaskDecision, ...]
    heat_parts: dict[str, Components]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WeightChange:
    """How one decision moved one task's weight."""

    task: str
    version: int
    before: float
    after: float
    sentence: str


@dataclass(frozen=True, slots=True)
class ScorePoint:
    """One evaluation of one task; loss in nats per supervised token."""

    task: str
    step: int
    attempt: int
    score: float
    loss: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps [start_step, end_step) trained under one plan, and the samples and supervised tokens served in them."""

    start_step: int
    end_step: int
    plan_version: int
    stage: int
    weights: dict[str, float]
    samples: dict[str, int]
    tokens: dict[str, int]

    def served(self, unit: WeightUnit) -> dict[str, int]:
        """What weights are shares of: samples or tokens."""
        return self.samples if unit == "samples" else self.tokens


@dataclass(frozen=True, slots=True)
class Arranged:
    """Samples by how they were put before the model; `own_answers` of the chains followed the model's own answer."""

    single: int
    chain: int
    contrast: int
    own_answers: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """What a restart undid: kept for the record, counted nowhere else."""

    num_boundaries: int
    scores: tuple[ScorePoint, ...]
    decisions: tuple[DecisionReport, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. Also the schema of `report.json`.

    Attributes:
        num_steps: Optimiser steps trained and kept.
        num_plans: Plans that survived, the initial one included.
        stage_boundary_step: First step trained in stage 2; None if never.
        weight_unit: What weights and shares are shares of.
        max_share_error: Greatest distance, over tasks and boundaries, between what a task was served and what its
            weights called for up to there, in that unit.
        wall_seconds: As in `RunFacts`, as are `num_sessions` and `num_untimed_sessions`.
        segments: The run's steps by plan, in order.
        notable: Sentences on the greatest changes, the change of stage and the guards that held.
    """

    schema_version: int
    run_name: str
    model: str
    num_workers: int
    mode: str
    seed: int
    num_steps: int
    total_steps: int
    interval_steps: int
    global_batch_size: int
    num_samples: int
    num_plans: int
    num_attempts: int
    stage_boundary_step: int | None
    end_reason: str | None
    weight_unit: WeightUnit
    max_share_error: float
    arranged: Arranged
    max_staleness_steps: int
    wall_seconds: dict[str, float]
    num_sessions: int
    num_untimed_sessions: int
    rows: dict[str, RowCounts]
    tasks: dict[str, TaskReport]
    decisions: tuple[DecisionReport, ...]
    events: tuple[Event, ...]
    biggest_change: WeightChange | None
    notable: tuple[str, ...]
    segments: tuple[Segment, ...]
    scores: tuple[ScorePoint, ...]
    influence: Influence
    superseded: Superseded
