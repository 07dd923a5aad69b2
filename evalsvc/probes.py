"""The probes of a run: held-out questions with their right answers; which are read, and whether they can be scored."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from evalsvc.config import EvaluationConfig
from evalsvc.scorers import last_number
from scheduler.errors import ConfigError, DataError
from scheduler.output_spec import binding_rules
from scheduler.task import NumericChecker, RulesChecker, TaskSpec
from train.config import SplitName
from train.data.levels import held_out_levels
from train.data.store import EncodedRow, Example, TokenStore


class Probe(NamedTuple):
    """One held-out question with its right answer, as tokens and as text; `prompt` is the turn to be answered.

    `level` is its difficulty level from 0; None where its task has one level.
    """

    row: EncodedRow
    reference: str
    prompt: str = ""
    level: int | None = None


def read_probes(store: TokenStore, *, num_tasks: int, split: SplitName) -> list[tuple[Probe, ...]]:
    """Read a held-out split of the first `num_tasks` tasks of the store, in its order."""
    return [tuple(_probes_of(store, task, split)) for task in range(num_tasks)]


def _probes_of(store: TokenStore, task: int, split: SplitName) -> Iterator[Probe]:
    levels = held_out_levels(store, task, split)
    for number, example in enumerate(store.examples(task, split)):
        level = None if levels is None else int(levels[number])
        yield _probe(store.encoded(task, number, split), example, level)


def _probe(row: EncodedRow, example: Example, level: int | None) -> Probe:
    """Of a conversation only the last answer is judged, whatever was supervised."""
    return Probe(EncodedRow(row.input_ids, row.spans[-1:]), example.answer, example.messages[-1][1], level)


def check_scorable(spec: TaskSpec, probes: Sequence[Probe]) -> None:
    """Refuse a task that no model could be judged on.

    Raises:
        DataError: It has no probe, or its checker cannot score one of them.
        ConfigError: It is to be scored by its output rules and has none.
    """
    if not probes:
        raise DataError(
            f"task {spec.name!r} has no probes, so nothing can steer it; give it more distinct rows "
            "or raise data.max_held_out_ratio"
        )
    if isinstance(spec.checker, RulesChecker) and not binding_rules(spec.output_rules):
        raise ConfigError(
            f"task {spec.name!r} is scored by its output rules and has none that refuses; write output_rules for it"
        )
    if isinstance(spec.checker, NumericChecker):
        for probe in probes:
            if last_number(probe.reference) is None:
                raise DataError(
                    f"task {spec.name!r} is scored by the last number of the answer, and the right answer of a probe "
                    f"has none: {probe.reference[:80]!r}; correct the row or choose another checker"
                )


def note_on(spec: TaskSpec, probes: Sequence[Probe], config: EvaluationConfig) -> str | None:
    """Say when right answers are longer than a generated one may be: no output could pass the review then."""
    lengths = [len(probe.row.input_ids) - probe.row.answer_start for probe in probes]
    num_long = sum(length > config.max_new_tokens for length in lengths)
    if not num_long:
        return None
    return (
        f"task {spec.name!r}: the right answers of {num_long} of {len(probes)} probes are longer than "
        f"evaluation.max_new_tokens = {config.max_new_tokens} (longest: {max(lengths)} tokens); generated answers "
        "are cut off there and count as rejected"
    )


def by_level(probes: Sequence[Probe], scores: Sequence[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Probes and sums of their scores by difficulty level; both empty where the task has one level."""
    levels = [probe.level for probe in probes if probe.level is not None]
    if len(levels) < len(probes):
        return (), ()
    by_level = [
        [score for level, score in zip(levels, scores, strict=True) if level == wanted]
        for wanted in range(max(levels) + 1)
    ]
    return tuple(map(len, by_level)), tuple(map(math.fsum, by_level))


@cache
def probe_order(num_probes: int, *, seed: int, task: str) -> tuple[int, ...]:
    """The order in which a task's probes are read, drawn once a run.

    Probes lie sorted by difficulty; a draw makes the first n of them, read or answered several times, stand for all.
    """
    return tuple(sorted(range(num_probes), key=lambda place: derived_seed(seed, place, f"probe of {task}")))


def derived_seed(seed: int, step: int, task: str) -> int:
    """A 63-bit seed of its own for every (seed, step, task)."""
    digest = hashlib.blake2b(repr((seed, step, task)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
