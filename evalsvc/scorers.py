"""What a generated answer is worth, in [0, 1]: one small pure function per checker of `scheduler.task`.

Scores compare texts. Where a task's checker is `exact`, the probes' own score is the teacher-forced one
(`train.generation.teacher_forced`), which needs no generated text; the function here serves its sampled outputs.
"""

import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from scheduler.output_spec import OutputRule, binding_rules
from scheduler.task import Checker, ExactChecker, NumericChecker, OverlapChecker, RulesChecker
from train.data.rules import check_output

_NUMBER = re.compile(
    r"(?:(?<!\w)[-+\u2212])?"  # a sign, unless it joins two words or numbers: 5-3 is 5 and 3
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)"
    r"(?:[eE][-+]?\d{1,3}(?!\w))?"
)
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


def score_text(
    checker: Checker,
    *,
    answer: str,
    reference: str,
    rules: Sequence[OutputRule],
    prompt: str = "",
    truncated: bool = False,
) -> float:
    """Score a generated answer by a task's checker.

    Args:
        checker: The task's checker.
        answer: The generated text.
        reference: The right answer.
        rules: The task's output rules; read by the `rules` checker only.
        prompt: The turn the answer replies to, which some rules read.
        truncated: The model did not stop by itself. Such an answer is never exact; the other checkers score what is
            there.

    Returns:
        A score in [0, 1].
    """
    match checker:
        case ExactChecker():
            return 0.0 if truncated else exact_score(answer, reference)
        case NumericChecker(tolerance=tolerance):
            return numeric_score(answer, reference, tolerance=tolerance)
        case OverlapChecker():
            return overlap_score(answer, reference)
        case RulesChecker():
            return rules_score(answer, rules, prompt=prompt)


def exact_score(answer: str, reference: str) -> float:
    """1 if the texts are equal once leading and trailing white space is removed, else 0. Case counts."""
    return float(answer.strip() == reference.strip())


def numeric_score(answer: str, reference: str, *, tolerance: float) -> float:
    """1 if the last numbers of both texts differ by at most `tolerance` (absolute), else 0.

    Compared as decimals, so that 0.36 is within 0.01 of 0.35. A text without a number scores 0.
    """
    answered, expected = last_number(answer), last_number(reference)
    if answered is None or expected is None:
        return 0.0
    return float(abs(answered - expected) <= Decimal(str(tolerance)))


def last_number(text: str) -> Decimal | None:
    """The last number written in digits, or None.

    Read: a sign, thousands separated by commas (1,234.5), a decimal point, an exponent of up to three digits. Units,
    currency and per cent signs are passed over (12% is 12). A point that ends a sentence belongs to no number.
    """
    numbers = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "").replace("\u2212", "-")) if numbers else None


def overlap_score(answer: str, reference: str) -> float:
    """F1 of the answer's words against the reference's, counted with repetition, whatever their order.

    A word is a run of letters and digits, lower-cased; a Chinese or Japanese character is a word of its own.
    Punctuation counts only where one of the texts has no word at all: then the score is 1 if the texts are equal.
    """
    answered, expected = _words(answer), _words(reference)
    if not answered or not expected:
        return exact_score(answer, reference)
    num_shared = (answered & expected).total()
    return 2 * num_shared / (answered.total() + expected.total())


def rules_score(answer: str, rules: Sequence[OutputRule], *, prompt: str = "") -> float:
    """Share of the rules that the answer keeps; those that only flag are not counted.

    Every rule weighs the same; without rules nothing is broken: 1.
    """
    binding = binding_rules(rules)
    if not binding:
        return 1.0
    return 1 - len(check_output(binding, answer, prompt=prompt)) / len(binding)


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))
