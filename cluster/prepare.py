"""`taskheat prepare`: the data of a run, made ready and looked at before anything is trained; and first task cards.

`prepare_run` does what `taskheat run` does before it starts Ray, in the same folder, so that the run finds the work
done. `first_cards` reads the same sources and writes down what their answers look like, as cards for a person to edit.

A guessed rule is only ever as strict as all rows of the data allow: `_output_rule` takes the strictest kind that every
answer keeps. What a good answer is beyond its form, only the person knows.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster.config import RunConfig
from cluster.data import PREPARED_FOLDER, prepare_data, task_cards
from cluster.settings.dialect import Dumper
from scheduler.errors import ConfigError, DataError
from scheduler.output_spec import ChoicesRule, DecimalsRule, LengthRule, OutputRule
from scheduler.task import Checker, ExactChecker, NumericChecker, OverlapChecker, TaskSpec
from train.config import DataConfig
from train.data.lineage import prepared_with
from train.data.prepare import Prepared
from train.data.row import Row
from train.data.rules import check_output
from train.data.sources import open_source, read_rows
from train.data.summary import Summary

if TYPE_CHECKING:
    from train.data.preparing.execute import Executor

_HEADING = "# Task cards, guessed from the answers in the data: correct them, then name this file in data.tasks_file."
_MAX_CHOICES = 12
_MIN_ROWS_PER_CHOICE = 4
_MAX_EXACT_WORDS = 12
_NUMBER = re.compile(r"[^\w.,]{0,2}\d{1,3}(?:,?\d{3})*(?:\.(?P<decimals>\d+))?\s?\D{0,3}")
"""An answer that is one number, perhaps with a sign or currency before it and a short unit after it."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""A run of letters and digits; a Chinese or Japanese character is a word of its own."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """A run's data, ready.

    Attributes:
        path: The prepared folder.
        was_complete: It had been prepared before; nothing changed.
        refused: Refused rows by rule, over all sources.
        summary: What was read, refused and kept.
        notes: What a reader of the scores must know about the probes.
    """

    path: Path
    was_complete: bool
    refused: dict[str, int]
    summary: Summary
    notes: tuple[str, ...]

    @property
    def quarantine(self) -> Path:
        """The refused rows, with reasons."""
        return self.path / "quarantine.parquet"

    def __str__(self) -> str:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in self.refused.items())
        state = "complete already, nothing changed" if self.was_complete else "written now"
        return "\n".join(
            [
                f"{self.summary}\n",
                *(f"note: {note}" for note in self.notes),
                f"prepared    {self.path} ({state})",
                f"quarantine  {self.quarantine} ({sum(self.refused.values()):,} rows{': ' if rules else ''}{rules})",
            ]
        )

    def to_json(self) -> str:
        """Indented JSON."""
        fields = dataclasses.asdict(self) | {"path": str(self.path), "quarantine": str(self.quarantine)}
        return json.dumps(fields, ensure_ascii=False, indent=1)


def prepare_run(config: RunConfig, *, executor: "Executor | None" = None) -> Preparation:
    """Prepare the data of a run and check everything about it that the run would refuse.

    Data without a task to train on (prompts alone) is prepared too; `taskheat run` refuses it.

    Args:
        config: The run.
        executor: Who does the work; by default as many processes of this machine as suit the size of the data.

    Raises:
        DataError: Rows or sources cannot be used.
        ConfigError: Tasks, weights or bounds contradict each other.
    """
    folder = config.output.dir / PREPARED_FOLDER
    before = set(folder.iterdir()) if folder.is_dir() else set()
    cards = task_cards(config)
    prepared = prepare_data(config, cards, executor=executor)
    refused: Counter[str] = Counter()
    for source in prepared.summary.sources:
        refused.update(source.refused)
    return Preparation(
        path=prepared.path,
        was_complete=prepared.path in before,
        refused=dict(refused.most_common()),
        summary=prepared.summary,
        notes=_checked(config, cards, prepared) if prepared.task_names else (),
    )


def _checked(config: RunConfig, cards: Mapping[str, TaskSpec], prepared: Prepared) -> tuple[str, ...]:
    """The notes of a run's inputs; what was checked once under the same settings is not checked again."""
    verdicts = config.evaluation.human_verdicts
    changed = verdicts.stat().st_mtime_ns if verdicts is not None and verdicts.exists() else 0
    facts = [prepared_with(), config.model_dump(mode="json"), prepared.path.name, changed]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()
    file = prepared.path.parent / f".checked-{digest}.json"
    if file.is_file():
        return tuple(json.loads(file.read_text(encoding="utf-8")))
    from cluster.setup import inputs_of  # torch: only where there is something to check

    notes = inputs_of(config, cards, prepared).notes
    file.write_text(json.dumps(notes), encoding="utf-8")
    return notes


@contextmanager
def chosen_executor(*, workers: int | None, address: str | None) -> "Iterator[Executor | None]":
    """Who does the work: so many processes of this machine, the Ray cluster at an address, or (None) as suits.

    Raises:
        ResourceError: The cluster cannot be reached.
    """
    if address is not None:
        from cluster.prepare_on_ray import RayExecutor

        with RayExecutor(address) as executor:
            yield executor
    elif workers is not None:
        from train.data.preparing.execute import LocalExecutor

        with LocalExecutor(workers) as executor:
            yield executor
    else:
        yield None


def write_first_cards(config: DataConfig, path: Path) -> int:
    """Write a card for every task of the data to a new file; returns how many.

    Raises:
        ConfigError: The file exists, or cannot be written.
        DataError: A source cannot be read, or no row is usable.
    """
    if path.exists():
        raise ConfigError(f"--init: {path} exists and is not overwritten; name another file, or move this one away")
    answers = _answers_by_task(config)
    if not answers:
        raise DataError("--init: the sources hold no usable row, so there is no task to describe")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(first_cards(answers))
    except OSError as error:
        raise ConfigError(f"--init: {path} cannot be written ({error.strerror}); choose another place") from error
    return len(answers)


def first_cards(answers: dict[str, list[str]]) -> str:
    """The text of a tasks file with a card for every task, from its answers."""
    cards = "\n".join(_card(task, texts) for task, texts in answers.items())
    return f"{_HEADING}\n\ntasks:\n{cards}"


def _answers_by_task(config: DataConfig) -> dict[str, list[str]]:
    answers: dict[str, list[str]] = {}
    for source in config.sources:
        plan = open_source(source, config)
        for shard in plan.shards:
            for row in read_rows(plan, shard):
                if isinstance(row, Row) and row.answer:
                    answers.setdefault(row.task, []).append(row.answer)
    return answers


def _card(task: str, answers: Sequence[str]) -> str:
    card = {
        "kind": "general",
        "tier": "standard",
        "output_rules": [_output_rule(answers).model_dump(mode="json", exclude={"aspect", "on_break"})],
        "checker": _checker(answers).model_dump(mode="json"),
    }
    text = yaml.dump(
        {task: _unexpanded(card)},
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=120,
    )
    return "".join(f"  {line}\n" for line in [*_seen(answers), *text.splitlines()])


def _seen(answers: Sequence[str]) -> list[str]:
    """Comment lines: how many answers, how long, the commonest."""
    lengths = [len(answer.strip()) for answer in answers]
    counts = Counter(answer.strip() for answer in answers)
    shown = ", ".join(f"{_short(answer)} x {count}" for answer, count in counts.most_common(3))
    return [
        f"# {len(answers):,} rows, {len(counts):,} distinct answers of {min(lengths)} to {max(lengths)} characters",
        f"# the commonest: {shown}",
    ]


def _short(text: str) -> str:
    """On one line, whatever the text holds."""
    return repr(text if len(text) <= 30 else text[:30] + "…")


def _output_rule(answers: Sequence[str]) -> OutputRule:
    """The strictest rule that is safe: choices, one number with so many decimals, else bounds on the length.

    Lengths get room on both sides of what was seen; a choice must have been seen four times on average, or a small
    task's free answers would pass for choices.
    """
    lengths = [len(answer.strip()) for answer in answers]
    bounds = LengthRule(min_chars=max(1, min(lengths) // 2), max_chars=2 * max(lengths))
    candidates = [_choices(answers), _decimals(answers)]
    safe = (rule for rule in candidates if rule is not None and _all_keep(rule, answers))
    return next(safe, bounds)


def _choices(answers: Sequence[str]) -> ChoicesRule | None:
    distinct = sorted({answer.strip() for answer in answers})
    if len(distinct) > _MAX_CHOICES or len(answers) < _MIN_ROWS_PER_CHOICE * len(distinct):
        return None
    return ChoicesRule(values=tuple(distinct))


def _decimals(answers: Sequence[str]) -> DecimalsRule | None:
    numbers = [_NUMBER.fullmatch(answer.strip()) for answer in answers]
    places = {len(number["decimals"] or "") for number in numbers if number is not None}
    return DecimalsRule(places=places.pop()) if None not in numbers and len(places) == 1 else None


def _all_keep(rule: OutputRule, answers: Sequence[str]) -> bool:
    return not any(check_output((rule,), answer) for answer in answers)


def _checker(answers: Sequence[str]) -> Checker:
    if all(_NUMBER.fullmatch(answer.strip()) for answer in answers):
        return NumericChecker()
    is_short = all(len(_WORD.findall(answer)) <= _MAX_EXACT_WORDS for answer in answers)
    return ExactChecker() if is_short else OverlapChecker()


def _unexpanded(value: Any) -> Any:
    """The value with every `${` in its strings kept from being expanded when it is read."""
    match value:
        case dict():
            return {key: _unexpanded(item) for key, item in value.items()}
        case list() | tuple():
            return [_unexpanded(item) for item in value]
        case str():
            return value.replace("${", "$${")
        case _:
            return value
