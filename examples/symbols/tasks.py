"""The symbol tasks: what each asks, how an input is drawn, and what the right answer is.

A row is an alpaca triple. `input` and `output` are made of single symbols: letters a-j with spaces between them, and
digits, so that a byte-level tokenizer that keeps digits apart sees one token per symbol. The answer is a function of
the input alone, so every row can be checked again without the generator. `noise` is the exception: its labels are
random and there is nothing to learn.

The set is chosen so that a mixture matters within a short run: easy tasks are large (`first`, 12,000 rows), hard ones
small (`add`, 700), `reverse` and `recall` sit on a plateau before they are learnt, and `noise` never improves.

This module does not write files (see `generate`) and does not split rows into training and held-out sets.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal

from scheduler.errors import DataError

Variant = Literal["base", "noise_saturated_duplicate"]

LETTERS = "abcdefghij"
DIGITS = "0123456789"
COUNTED_LETTER = "a"
SATURATED_ANSWER = "a"
MAX_ADDEND = 29
NUM_RECALL_KEYS = 3

_LETTER_LIST = r"[a-j]( [a-j])*"


@dataclass(frozen=True, slots=True)
class SymbolTask:
    """One task.

    Attributes:
        name: Name of the task and stem of its file.
        instruction: The same for every row of the task.
        num_rows: Rows generated.
        draw: Draws one input.
        answer: The right answer to an input; None where labels are random.
        input_regex: What a well-formed input matches in full.
        skip_rows: Rows of the drawn stream left out at its start. A duplicate task continues the stream of its
            original, so the two share no row.
        stream: Name that seeds the stream; empty for the task's own name.
    """

    name: str
    instruction: str
    num_rows: int
    draw: Callable[[Random], str]
    answer: Callable[[str], str] | None
    input_regex: str
    skip_rows: int = 0
    stream: str = ""


def tasks_of(variant: Variant) -> tuple[SymbolTask, ...]:
    """The tasks of a variant: the twelve of `base`, or those and a saturated task and a duplicate of `sort`."""
    match variant:
        case "base":
            return BASE_TASKS
        case "noise_saturated_duplicate":
            return BASE_TASKS + EXTRA_TASKS


def generate_rows(task: SymbolTask, *, seed: int) -> list[dict[str, str]]:
    """Draw the task's rows, all distinct. The same seed gives the same rows, whatever other tasks are generated."""
    rng = Random(f"{seed}/{task.stream or task.name}")
    inputs = islice(_distinct(task.draw, rng), task.skip_rows, task.skip_rows + task.num_rows)
    labels = Random(f"{seed}/{task.name}/labels")
    return [
        {
            "instruction": task.instruction,
            "input": text,
            "output": task.answer(text) if task.answer is not None else labels.choice(LETTERS),
        }
        for text in inputs
    ]


def verify_row(task: str, row: Mapping[str, str]) -> str | None:
    """Say what is wrong with a row, or None.

    The answer is recomputed from the input; for `noise` only its membership in the label set is checked.

    Raises:
        DataError: No symbol task has that name.
    """
    spec = next((known for known in BASE_TASKS + EXTRA_TASKS if known.name == task), None)
    if spec is None:
        names = ", ".join(known.name for known in BASE_TASKS + EXTRA_TASKS)
        raise DataError(f"no symbol task is named {task!r}; the tasks are {names}")
    if row["instruction"] != spec.instruction:
        return f"instruction is {row['instruction']!r}; expected {spec.instruction!r}"
    if re.fullmatch(spec.input_regex, row["input"]) is None:
        return f"input {row['input']!r} does not match {spec.input_regex}"
    output = row["output"]
    if spec.answer is None:
        return None if output in tuple(LETTERS) else f"output is {output!r}; expected one letter of {LETTERS}"
    expected = spec.answer(row["input"])
    return None if output == expected else f"output is {output!r}; expected {expected!r}"


def _distinct(draw: Callable[[Random], str], rng: Random) -> Iterator[str]:
    seen: set[str] = set()
    while True:
        text = draw(rng)
        if text not in seen:
            seen.add(text)
            yield text


def _list_of(symbols: str, *, shortest: int, longest: int) -> Callable[[Random], str]:
    """A draw of `shortest` to `longest` symbols, with repetition."""
    return lambda rng: " ".join(rng.choices(symbols, k=rng.randint(shortest, longest)))


def _draw_count(rng: Random) -> str:
    """Letters among which `a` is as often missing as it is there once, twice or three times."""
    num_wanted = rng.randint(0, 3)
    letters = [COUNTED_LETTER] * num_wanted + rng.choices(LETTERS[1:], k=rng.randint(4, 6) - num_wanted)
    rng.shuffle(letters)
    return " ".join(letters)


def _draw_dedup(rng: Random) -> str:
    """Letters of a small random subset, so that repetitions are common."""
    subset = rng.sample(LETTERS, k=3)
    return " ".join(rng.choices(subset, k=rng.randint(4, 6)))


def _draw_add(rng: Random) -> str:
    """`12 + 29`."""
    return f"{rng.randint(0, MAX_ADDEND)} + {rng.randint(0, MAX_ADDEND)}"


def _draw_recall(rng: Random) -> str:
    """`a3 c7 d1 ? c`: distinct keys, each followed by its value, then the key asked for."""
    keys = rng.sample(LETTERS, k=NUM_RECALL_KEYS)
    pairs = " ".join(f"{key}{rng.choice(DIGITS)}" for key in keys)
    return f"{pairs} ? {rng.choice(keys)}"


def _count(text: str) -> str:
    return str(text.split().count(COUNTED_LETTER))


def _shift(text: str) -> str:
    return " ".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in text.split())


def _add(text: str) -> str:
    left, right = text.split(" + ")
    return str(int(left) + int(right))


def _recall(text: str) -> str:
    pairs, wanted = text.split(" ? ")
    return next((pair[1] for pair in pairs.split() if pair[0] == wanted), "")


_SORT_ROWS = 2_500
_words = _list_of(LETTERS, shortest=3, longest=5)


def _sort(text: str) -> str:
    return " ".join(sorted(text.split()))


BASE_TASKS = (
    SymbolTask("first", "First letter", 12_000, _words, lambda text: text.split()[0], _LETTER_LIST),
    SymbolTask("last", "Last letter", 8_000, _words, lambda text: text.split()[-1], _LETTER_LIST),
    SymbolTask(
        "max",
        "Largest digit",
        6_000,
        lambda rng: "".join(rng.choices(DIGITS, k=rng.randint(4, 6))),
        max,
        r"\d+",
    ),
    SymbolTask("count", "Count a", 5_000, _draw_count, _count, _LETTER_LIST),
    SymbolTask("copy", "Copy", 4_000, _words, lambda text: text, _LETTER_LIST),
    SymbolTask("shift", "Next letters", 3_000, _words, _shift, _LETTER_LIST),
    SymbolTask("reverse", "Reverse", 2_000, _words, lambda text: " ".join(reversed(text.split())), _LETTER_LIST),
    SymbolTask("sort", "Sort", _SORT_ROWS, _words, _sort, _LETTER_LIST),
    SymbolTask(
        "dedup",
        "Unique letters",
        1_500,
        _draw_dedup,
        lambda text: " ".join(dict.fromkeys(text.split())),
        _LETTER_LIST,
    ),
    SymbolTask("add", "Sum", 700, _draw_add, _add, r"\d{1,2} \+ \d{1,2}"),
    SymbolTask(
        "recall",
        "Recall",
        1_200,
        _draw_recall,
        _recall,
        rf"([a-j]\d ){{{NUM_RECALL_KEYS}}}\? [a-j]",
    ),
    SymbolTask("noise", "Label", 3_000, _words, None, _LETTER_LIST),
)

EXTRA_TASKS = (
    SymbolTask("saturated", "Always a", 3_000, _words, lambda _: SATURATED_ANSWER, _LETTER_LIST),
    SymbolTask(
        "sort_duplicate",
        "Sort",
        _SORT_ROWS,
        _words,
        _sort,
        _LETTER_LIST,
        skip_rows=_SORT_ROWS,
        stream="sort",
    ),
)
