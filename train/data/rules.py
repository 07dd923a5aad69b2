"""The check behind `scheduler.output_spec`: does this answer keep the task's output rules?

Read on training answers (a row that breaks a rule is refused) and on model outputs (the automatic reviewer rejects
them), so both sides are judged by the same words. A rule gives at most one violation, so
`1 - len(violations) / len(rules)` is the share of rules kept.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from scheduler.output_spec import (
    Aspect,
    ChoicesRule,
    CitationRule,
    DecimalsRule,
    ForbiddenRule,
    LengthRule,
    OutputRule,
    PatternRule,
    RequiredRule,
)

# A dotted chain (1.2.3) is a version or a date, not a number.
_NUMBER = re.compile(r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.(?P<decimals>\d+))?(?!\.?\d)")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: its `type`, its aspect, and what was found instead."""

    rule: str
    aspect: Aspect
    message: str


def check_output(rules: Sequence[OutputRule], answer: str) -> tuple[Violation, ...]:
    """The rules that `answer` breaks, in the order of `rules`; empty when it keeps them all.

    Raises:
        ConfigError: A rule's regular expression does not compile.
    """
    return tuple(
        Violation(rule=rule.type, aspect=rule.aspect, message=message)
        for rule in rules
        if (message := _fault(rule, answer)) is not None
    )


def _fault(rule: OutputRule, answer: str) -> str | None:
    match rule:
        case PatternRule():
            if _compiled(rule.regex, re.DOTALL).fullmatch(answer):
                return None
            return f"{_quoted(answer)} does not match {rule.regex!r}"
        case DecimalsRule():
            return _decimals_fault(rule, answer)
        case ChoicesRule():
            return None if answer.strip() in rule.values else f"{_quoted(answer)} is none of {_listed(rule.values)}"
        case LengthRule():
            length = len(answer.strip())
            if rule.min_chars <= length <= rule.max_chars:
                return None
            return f"{length} characters, expected {rule.min_chars} to {rule.max_chars}"
        case CitationRule():
            return _citation_fault(rule, answer)
        case RequiredRule():
            folded = answer.casefold()
            if any(phrase.casefold() in folded for phrase in rule.phrases):
                return None
            return f"contains none of {_listed(rule.phrases)}"
        case ForbiddenRule():
            return _forbidden_fault(rule, answer)


def _decimals_fault(rule: DecimalsRule, answer: str) -> str | None:
    """Where `places` is 0 a conforming number is one without a decimal point."""
    numbers = [(found[0], len(found["decimals"] or "")) for found in _NUMBER.finditer(answer)]
    wrong = [number for number, decimals in numbers if decimals not in (0, rule.places)]
    if wrong:
        return f"{_listed(wrong)}: expected {rule.places} decimals"
    num_right = sum(decimals == rule.places for _, decimals in numbers)
    if num_right < rule.min_numbers:
        return f"{num_right} numbers with {rule.places} decimals, expected at least {rule.min_numbers}"
    return None


def _citation_fault(rule: CitationRule, answer: str) -> str | None:
    citations = [found[0] for found in _compiled(rule.regex).finditer(answer)]
    unknown = [citation for citation in citations if citation not in rule.allowed]
    if unknown:
        return f"cites {_listed(unknown)}, not in the list of allowed documents"
    if len(citations) < rule.min_citations:
        return f"{len(citations)} citations, expected at least {rule.min_citations}"
    return None


def _forbidden_fault(rule: ForbiddenRule, answer: str) -> str | None:
    folded = answer.casefold()
    phrases = [phrase for phrase in rule.phrases if phrase.casefold() in folded]
    if phrases:
        return f"contains {_listed(phrases)}"
    for regex in rule.regexes:
        if found := _compiled(regex).search(answer):
            return f"{_quoted(found[0])} matches the forbidden {regex!r}"
    return None


@lru_cache(maxsize=4096)
def _compiled(regex: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile(regex, flags)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(_quoted(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"
