"""What the ledger says: one frozen record type per kind of event.

The ledger holds no wall-clock time and no run name, so that two equal runs have equal ledgers, byte for byte.
`to_json` and `from_json` are exact inverses (floats are written with all their digits).
"""

import json
from dataclasses import dataclass
from typing import Any, get_args

from scheduler.errors import LedgerError
from scheduler.fields import build
from scheduler.plan import MixturePlan, Window
from scheduler.signals import IntervalReport, TaskSignal

SCHEMA_VERSION = 6


@dataclass(frozen=True, slots=True)
class RunRecord:
    """First record: everything a replay needs. `setup` is an `EngineSetup`, dumped; `plan` is the initial plan."""

    schema_version: int
    setup: dict[str, Any]
    plan: MixturePlan


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """The worker group started: attempt 0 at step 0, later ones at the step of the checkpoint they resume from.

    `refused_checkpoints` says of every newer checkpoint why it was not resumed from, the newest first. `frozen` are
    tasks that what came after `step` has shown to overfit: the run went back for their sake, and goes on without them.
    """

    attempt: int
    step: int
    refused_checkpoints: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForkRecord:
    """The lines above are another run's, up to its checkpoint at `step`; from there on this run goes its own way.

    `setup` is the `EngineSetup` that holds from here on, dumped; `changed` says which settings differ, in words.
    """

    step: int
    setup: dict[str, Any]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """The engine accepted a signal."""

    signal: TaskSignal


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """The engine refused a signal, or the evaluation lines of people's verdicts: `task` is empty then.

    What was refused has no influence on any decision.
    """

    task: str
    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class TaskDecision:
    """One task's part in a decision. Components, heat and learnability are in [0, 1]; weights are probabilities.

    `target_weight` is what the policy asked for, `weight_after` what the guards let through, `held_by` the guard that
    made the difference ("" if none did). `driver` says in words which statistic the policy went by and its value; ""
    where that is heat. `noise_since` is the step since which more exposure has brought the task no progress, where it
    is recognised as noise or out of reach; `solved_since` that since which it is at its target; else None.
    """

    task: str
    decay: float
    variance: float
    rejection: float
    gap: float
    heat: float
    learnability: float
    weight_before: float
    target_weight: float
    weight_after: float
    held_by: str
    driver: str = ""
    noise_since: int | None = None
    solved_since: int | None = None


@dataclass(frozen=True, slots=True)
class LevelMove:
    """A task's window moved.

    Attributes:
        task: Name of the task.
        kind: `promoted`, `demoted`, or `opened` (by the time that has passed, on no evidence).
        window: First and last open place from now on, from 0.
        order: Levels from 0, easiest for the model first, from now on; `order_before` until now.
        order_before: See `order`.
        num_successes: Right answers among the probes of the levels open until now; a sum of scores.
        num_probes: Those probes; 0 for `opened`.
        bound: Wilson bound of the accuracy: the lower of a promotion, the upper of a demotion.
        threshold: What it was compared with.
        num_evaluations: In a row.
    """

    task: str
    kind: str
    window: Window
    order: tuple[int, ...]
    order_before: tuple[int, ...]
    num_successes: float = 0.0
    num_probes: int = 0
    bound: float = 0.0
    threshold: float = 0.0
    num_evaluations: int = 0


@dataclass(frozen=True, slots=True)
class Freeze:
    """A task was taken out of the mixture: its weight goes to its floor and stays there.

    Its held-out loss (nats per supervised token) was above its best, with no better score, in `num_evaluations`
    evaluations in a row; the best one was found at `best_step`.
    """

    task: str
    loss: float
    best_loss: float
    num_evaluations: int
    best_step: int = 0


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A plan and why.

    Attributes:
        plan: The plan.
        tasks: Each task's part in it.
        held: The reason when the old weights were kept, else None.
        sentences: The same in words, for people.
        state: Of the run under this plan (`scheduler.states`).
        levels: Tasks whose difficulty levels change with it.
        frozen: Tasks taken out of the mixture with it.
        probes: Of the next evaluation, per task; empty: all that there are.
    """

    plan: MixturePlan
    tasks: tuple[TaskDecision, ...]
    held: str | None
    sentences: tuple[str, ...]
    state: str = "stage 1"
    levels: tuple[LevelMove, ...] = ()
    frozen: tuple[Freeze, ...] = ()
    probes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StageRecord:
    """The run passes to `stage` with plan `plan_version`, in force from `step` on, because of `reason`."""

    stage: int
    step: int
    plan_version: int
    reason: str


@dataclass(frozen=True, slots=True)
class RollbackRecord:
    """With the decision on the evaluation at `step` the run goes back to the checkpoint at `to_step`, without `tasks`.

    The checkpoint is the newest before the first of them was past its peak.
    """

    step: int
    to_step: int
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServedRecord:
    """In `sync` mode: what had been trained when the evaluation at `report.step` was about to be decided on.

    The workers hear of their next plan after it; the interval record that follows says the same under that plan.
    """

    report: IntervalReport


@dataclass(frozen=True, slots=True)
class IntervalRecord:
    """Workers reached a boundary. `staleness_steps` is the age of the evaluation behind the plan now in force."""

    report: IntervalReport
    staleness_steps: int


@dataclass(frozen=True, slots=True)
class LateRecord:
    """At `step` the plan from the evaluation at `awaited_step` was not ready in time; the old plan was kept."""

    step: int
    awaited_step: int
    kept_version: int


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """The snapshot at `step` was not evaluated: evaluation was too far behind."""

    step: int


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """The engine's state was taken for the checkpoint at `step`."""

    step: int
    plan_version: int


@dataclass(frozen=True, slots=True)
class RestartRecord:
    """An actor (`engine` or `evaluator`) came back after it died."""

    actor: str
    detail: str


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """Storage failed for the checkpoint at `step`, or took it after it had failed; written at the next boundary."""

    step: int
    detail: str


@dataclass(frozen=True, slots=True)
class SelectionRecord:
    """The weights of `step` scored on the selection set: score in [0, 1] by task, of tasks that have such rows."""

    step: int
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """The weights of `step` are the run's result, and why."""

    step: int
    why: str


@dataclass(frozen=True, slots=True)
class EndRecord:
    """The run ended at `step`: `finished` or `stopped`."""

    step: int
    reason: str


Record = (
    RunRecord
    | ForkRecord
    | AttemptRecord
    | SignalRecord
    | RefusedRecord
    | DecisionRecord
    | StageRecord
    | RollbackRecord
    | ServedRecord
    | IntervalRecord
    | LateRecord
    | SkippedRecord
    | CheckpointRecord
    | RestartRecord
    | StorageRecord
    | SelectionRecord
    | ExportRecord
    | EndRecord
)

_TYPE_OF_KIND = {kind.__name__.removesuffix("Record").lower(): kind for kind in get_args(Record)}
_KIND_OF_TYPE = {kind: name for name, kind in _TYPE_OF_KIND.items()}


def to_json(record: Record) -> str:
    """One line of JSON, keys in field order, without a newline. Raises ValueError on NaN or infinity."""
    return _ENCODER.encode({"kind": _KIND_OF_TYPE[type(record)], **_fields(record)})


def from_json(line: str) -> Record:
    """Inverse of `to_json`. Raises LedgerError when the line is not a record of this schema."""
    try:
        fields = json.loads(line)
        return build(_TYPE_OF_KIND[fields.pop("kind")], fields)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise LedgerError(f"not a ledger record ({error!r}): {line[:120]!r}") from error


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_fields)
