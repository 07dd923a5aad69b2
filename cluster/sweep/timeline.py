"""From which step on two configurations can give different runs; pure.

A run's timeline is what holds from step 0 on, and the steps at which something else begins to matter:

    0 ─────────────── first decision that may begin stage 2 ─────── first step of stage 2 ───────────► last step
    all but stage 2   boundary, and stage 2's policy,               stage 2's learning rate,
                      arrangement and difficulty                    warm-up and clipping

Two runs are equal, bit for bit, until the first of these at which they differ. Only what is known to matter later is
taken to matter later: any other setting that differs makes two runs different from step 0.

Steps are those of the checkpoint that still belongs to both. The plan that begins stage 2 at step e is decided on an
evaluation at e - interval (`lag1`), which comes after the checkpoint there; in `sync` mode it is decided at e, before
the checkpoint at e. So in both the last common checkpoint is at e - interval. In `async` mode equal runs need not be
equal, and nothing is shared.
"""

import json
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from cluster.config import RunConfig, StageConfig
from cluster.data import wanted_arrangements
from scheduler.setup import CapabilityBoundary, FractionBoundary, StepBoundary

_OF_A_STAGE = {
    "name",
    "until",
    "policy",
    "arrangement",
    "difficulty",
    "guards",
    "learning_rate",
    "warmup_steps",
    "max_grad_norm",
    "micro_batch_size",
    "micro_batch_tokens",
    "max_length",
}
_GIVEN_BY_STAGE = {"learning_rate", "warmup_steps", "max_grad_norm", "micro_batch_size", "micro_batch_tokens"}
_CHANGES_NO_RESULT = {"checkpoint_every_intervals", "keep_checkpoints", "checkpoint_at"}


@dataclass(frozen=True, slots=True)
class Event:
    """From the checkpoint at `step` on, runs whose `content` differs may differ."""

    step: int
    content: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """See the module docstring. `from_start`: what matters from step 0; `last_boundary`: the last place to fork."""

    from_start: str
    events: tuple[Event, ...]
    last_boundary: int
    last_step: int


def timeline(config: RunConfig) -> Timeline:
    """What of the configuration matters when."""
    total, interval = config.train.steps, config.mixture.interval_of(config.train.steps)
    last_step = config.train.last_step
    return Timeline(
        from_start=_from_start(config),
        events=tuple(event for event in _events(config, interval) if event.step < last_step),
        last_boundary=0 if config.mixture.mode == "async" else (min(last_step, total) - 1) // interval * interval,
        last_step=last_step,
    )


def agree_until(one: Timeline, other: Timeline) -> int:
    """The last step whose checkpoint both runs have in common; 0 if none."""
    if one.from_start != other.from_start:
        return 0
    for left, right in zip_longest(one.events, other.events):
        if left != right:
            return min(max(0, min(event.step for event in (left, right) if event is not None)), one.last_boundary)
    return one.last_boundary


def _from_start(config: RunConfig) -> str:
    dump = config.model_dump(mode="json", exclude={"output", "stages"})
    train = {key: value for key, value in dump.pop("train").items() if key not in _GIVEN_BY_STAGE | _CHANGES_NO_RESULT}
    mixture = {key: value for key, value in dump.pop("mixture").items() if key != "policy"}
    first = config.stages[0]
    until = first.until
    judged = until.model_dump(mode="json", exclude=_timing()) if isinstance(until, CapabilityBoundary) else None
    return _text(
        dump,
        train,
        mixture,
        judged,
        _decisions(config, first),
        _training(config, first),
        [unknown for unknown in map(_unknown, config.stages) if unknown],
        sorted(wanted_arrangements(config)),
        sorted({stage.max_length for stage in config.stages if stage.max_length is not None}),
        any(stage.difficulty is not None for stage in config.stages),
        [stage.difficulty for stage in config.stages] if config.mixture.curriculum is not None else None,
    )


def _events(config: RunConfig, interval: int) -> list[Event]:
    first, last = config.stages[0], config.stages[-1]
    begins = _stage_2_begins(config, interval)
    if len(config.stages) < 2 or begins is None:
        return []
    decided = max(0, begins - interval)
    if isinstance(first.until, CapabilityBoundary):
        timing = first.until.model_dump(mode="json", include=_timing())
        return [Event(decided, _text(timing, _decisions(config, last), _training(config, last)))]
    return [
        Event(decided, _text(begins, _decisions(config, last))),
        Event(begins, _text(_training(config, last))),
    ]


def _stage_2_begins(config: RunConfig, interval: int) -> int | None:
    """First boundary at which stage 2 begins, or can begin; None if it never does."""
    total, until = config.train.steps, config.stages[0].until
    match until:
        case StepBoundary(step=step):
            return _boundary_from(step, interval)
        case FractionBoundary(fraction=fraction):
            boundaries = range(interval, total + interval, interval)
            return next((step for step in boundaries if step / total >= fraction), None)
        case CapabilityBoundary() as asked:
            lag = interval if config.mixture.mode == "lag1" else 0
            soonest = max((asked.evaluations - 1) * interval + lag, _boundary_from(asked.min_steps, interval))
            return min(soonest, _boundary_from(asked.limit(total), interval))
        case None:
            return None


def _boundary_from(step: int, interval: int) -> int:
    return -(-step // interval) * interval


def _timing() -> set[str]:
    return {"evaluations", "min_steps", "max_steps"}


def _decisions(config: RunConfig, stage: StageConfig) -> list[Any]:
    """What plans of the stage are made by."""
    policy = stage.policy or config.mixture.policy
    difficulty = None if stage.difficulty is None else stage.difficulty.model_dump(mode="json")
    parts = (policy, stage.arrangement, stage.guards)
    return [*(part.model_dump(mode="json") for part in parts), difficulty]


def _training(config: RunConfig, stage: StageConfig) -> dict[str, Any]:
    return asdict(stage.training(config.train))


def _unknown(stage: StageConfig) -> dict[str, Any]:
    """Settings of a stage that this module does not know; they are taken to matter from the start."""
    return stage.model_dump(mode="json", exclude=_OF_A_STAGE)


def _text(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True, default=repr)
