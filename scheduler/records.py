"""What the ledger says: one frozen record type per kind of event.

The ledger holds no wall-clock time and no run name, so that two equal runs have equal ledgers, byte for byte.
`to_json` and `from_json` are exact inverses (floats are written with all their digits).
"""

import json
from dataclasses import dataclass
from typing import Any, get_args

from scheduler.errors import LedgerError
from scheduler.fields import build
from scheduler.plan import MixturePlan
from scheduler.signals import IntervalReport, TaskSignal

SCHEMA_VERSION = 4


@dataclass(frozen=True, slots=True)
class RunRecord:
    """First record: everything a replay needs. `setup` is an `EngineSetup`, dumped; `plan` is the initial plan."""

    schema_version: int
    setup: dict[str, Any]
    plan: MixturePlan


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """The worker group started: attempt 0 at step 0, later ones at the step of the checkpoint they resume from.

    `refused_checkpoints` says of every newer checkpoint why it was not resumed from, the newest first.
    """

    attempt: int
    step: int
    refused_checkpoints: tuple[str, ...] = ()


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
    """The engine refused a signal; it has no influence on any decision."""

    task: str
    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class TaskDecision:
    """One task's part in a decision. Components, heat and learnability are in [0, 1]; weights are probabilities.

    `target_weight` is what the policy asked for, `weight_after` what the guards let through, `held_by` the guard that
    made the difference ("" if none did). `driver` says in words which statistic the policy went by and its value; ""
    where that is heat.
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


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A plan and why. `held` is the reason when the policy kept the old weights, else None.

    `probes` are those of the next evaluation, per task; empty: all that there are.
    """

    plan: MixturePlan
    tasks: tuple[TaskDecision, ...]
    held: str | None
    sentences: tuple[str, ...]
    probes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StageRecord:
    """The run passes to `stage` with plan `plan_version`, in force from `step` on, because of `reason`."""

    stage: int
    step: int
    plan_version: int
    reason: str


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
    | IntervalRecord
    | LateRecord
    | SkippedRecord
    | CheckpointRecord
    | RestartRecord
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
