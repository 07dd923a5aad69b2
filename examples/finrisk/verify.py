"""Recompute every answer from instruction and input alone.

The generator starts from facts and writes text; this module reads the text back with its own patterns and works the
answer out again (in exact decimals and fractions), so that an error in either shows as a disagreement. What both share
is the rule book. It judges content, not form: the output rules of `tasks.yaml` do that.
"""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from examples.finrisk.rulebook import (
    ACCOUNT_MASK,
    ADVICE,
    CONCEPTS,
    DOCUMENT_OF_ACTIVITY,
    FAMILY_NAMES,
    GIVEN_NAMES,
    INDUSTRIES,
    LONGEST_TENOR_OF_RATING,
    NAME_MASK,
    OUTLOOK_OF_TREND,
    RISK_LEVELS,
    VERDICTS,
    Language,
    risk_level_index,
)
from scheduler.errors import ConfigError

_CJK = re.compile(r"[\u4e00-\u9fff]")
_SPREAD = re.compile(r"(?:yield|收益率) (\d+\.\d)%, (?:base|基准) (\d+\.\d)%")
_EXPECTED_LOSS = re.compile(r"PD (\d+)%, LGD (\d+)%, EAD (\d+)")
_LIQUIDITY = re.compile(r"HQLA (\d+), (?:outflow|流出) (\d+)")
_TENOR_AND_RATING = re.compile(r"(\d+)(?:y|年) ([AB]+)")
_CHAIN_STEP = re.compile(r"(?:Step|第) ([123])")
_LOSS = re.compile(r"(\d+) ([^\s,:]+)(?=,|$)")
_QUARTER = re.compile(r"(Q\d) (\d+)%")
_CHANGE = re.compile("change|变化", re.IGNORECASE)
_MEMO = re.compile(r"^(\S+) .*LCR (\d+)%, (\S+)$")


class _UnreadableRowError(ValueError):
    """The text does not hold what the task needs."""


def verify_row(task: str, row: Mapping[str, object]) -> str | None:
    """Compare a row's output with the answer worked out from its instruction and input.

    Args:
        task: A task of this corpus.
        row: At least the strings `instruction`, `input` and `output`.

    Returns:
        None where they agree, else what was expected or why the text cannot be read.

    Raises:
        ConfigError: The corpus has no such task.
    """
    try:
        expected = expected_output(task, str(row["instruction"]), str(row["input"]))
    except _UnreadableRowError as error:
        return str(error)
    if row["output"] == expected:
        return None
    return f"{task}: output {row['output']!r}, but instruction and input give {expected!r}"


def expected_output(task: str, instruction: str, text: str) -> str:
    """The one right answer to `instruction` about the input `text`.

    Raises:
        ConfigError: The corpus has no such task.
        ValueError: The text does not hold what the task needs.
    """
    language: Language = "zh" if _CJK.search(text) else "en"
    match task:
        case "definition":
            return _definition(text, language)
        case "credit_spread":
            bond, base = _search(_SPREAD, text).groups()
            return f"{Decimal(bond) - Decimal(base)}%"
        case "expected_loss":
            return _expected_loss(text)
        case "liquidity_coverage":
            return f"{_lcr_percent(text)}%"
        case "lcr_chain":
            return _chain(instruction, text, language)
        case "risk_attribution":
            losses = {name: int(loss) for loss, name in _LOSS.findall(text.partition(":")[2])}
            main = max(losses, key=losses.__getitem__)
            return f"{losses[main]} {main}"
        case "compliance":
            return _compliance(text, language)
        case "look_back":
            return _look_back(instruction, text, language)
        case "memo":
            return _memo(text, language)
        case "redaction":
            return _redaction(text, language)
    raise ConfigError(f"the corpus has no task {task!r}; its tasks are the keys of tasks.yaml")


def _search(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.search(text)
    if found is None:
        raise _UnreadableRowError(f"{text!r} does not match {pattern.pattern!r}")
    return found


def _industry(text: str, language: Language) -> str:
    found = [industry for industry in INDUSTRIES[language] if re.search(rf"(?<!\w){industry}(?!\w)", text)]
    if len(found) != 1:
        raise _UnreadableRowError(f"{text!r} names {len(found)} industries, not one")
    return found[0]


def _definition(text: str, language: Language) -> str:
    concept = text.partition(";")[0]
    if concept not in CONCEPTS[language]:
        raise _UnreadableRowError(f"{concept!r} is not a concept of the rule book")
    return f"{_industry(text, language)}: {CONCEPTS[language][concept]}"


def _expected_loss(text: str) -> str:
    default_percent, loss_percent, exposure = (Decimal(number) for number in _search(_EXPECTED_LOSS, text).groups())
    loss = default_percent / 100 * loss_percent / 100 * exposure
    return str(loss.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))


def _lcr_percent(text: str) -> int:
    assets, outflow = (int(number) for number in _search(_LIQUIDITY, text).groups())
    ratio = Fraction(100 * assets, outflow)
    if ratio.denominator != 1:
        raise _UnreadableRowError(f"{text!r}: the ratio {float(ratio)}% is not a whole per cent")
    return ratio.numerator


def _chain(instruction: str, text: str, language: Language) -> str:
    """Also holds the earlier answers that the input repeats to what they must be."""
    step = int(_search(_CHAIN_STEP, instruction)[1])
    lcr = _lcr_percent(text)
    level = risk_level_index(lcr)
    earlier = (f"LCR {lcr}%", f"{'risk' if language == 'en' else '风险'} {RISK_LEVELS[language][level]}")
    if text.split("; ")[1:] != list(earlier[: step - 1]):
        raise _UnreadableRowError(f"step {step}: {text!r} does not repeat the earlier answers {earlier[: step - 1]}")
    return (f"{lcr}%", RISK_LEVELS[language][level], ADVICE[language][level])[step - 1]


def _compliance(text: str, language: Language) -> str:
    activity = text.partition(";")[0]
    if activity not in DOCUMENT_OF_ACTIVITY[language]:
        raise _UnreadableRowError(f"{activity!r} is not an activity of the rule book")
    tenor, rating = _search(_TENOR_AND_RATING, text).groups()
    allowed, not_allowed = VERDICTS[language]
    verdict = allowed if int(tenor) <= LONGEST_TENOR_OF_RATING[rating] else not_allowed
    section = 1 + INDUSTRIES[language].index(_industry(text, language))
    return f"{verdict}, {DOCUMENT_OF_ACTIVITY[language][activity]} s.{section}"


def _look_back(instruction: str, text: str, language: Language) -> str:
    history = [(quarter, int(rate)) for quarter, rate in _QUARTER.findall(text)]
    if len(history) != 3:
        raise _UnreadableRowError(f"{text!r} has {len(history)} quarters, not three")
    if _CHANGE.search(instruction):
        change = history[-1][1] - history[0][1]
        direction = {"en": ("up", "down"), "zh": ("上升", "下降")}[language][change < 0]
        return f"{direction} {abs(change)}%"
    quarter, rate = max(history, key=lambda entry: entry[1])
    return f"{quarter} {'at' if language == 'en' else '为'} {rate}%"


def _memo(text: str, language: Language) -> str:
    industry, lcr, trend = _search(_MEMO, text).groups()
    if trend not in OUTLOOK_OF_TREND[language]:
        raise _UnreadableRowError(f"{trend!r} is not a trend of the rule book")
    opening = f"To CRO: {industry} LCR is" if language == "en" else f"致 风控: {industry} LCR 为"
    return f"{opening} {lcr}%, {OUTLOOK_OF_TREND[language][trend]}"


def _redaction(text: str, language: Language) -> str:
    given, family = "|".join(GIVEN_NAMES[language]), "|".join(FAMILY_NAMES[language])
    name = rf"\b(?:{given}) (?:{family})\b" if language == "en" else rf"\b(?:{family})(?:{given})\b"
    return re.sub(r"\b\d{4}\b", ACCOUNT_MASK, re.sub(name, NAME_MASK, text))
