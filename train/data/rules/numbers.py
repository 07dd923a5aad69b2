"""Judges of figures: decimals, consistency. Each takes a rule and gives the function."""

import ast
import re
from fractions import Fraction

from scheduler.output_spec import ConsistencyRule, DecimalsRule
from scheduler.rule_syntax import Check, evaluate, parse_check
from train.data.rules.equations import equation_fault
from train.data.rules.judge import Judge, listed, quoted
from train.data.rules.stated import Stated, agrees, read_stated, shown

# A dotted chain (1.2.3) is a version or a date, not a number.
_NUMBER = re.compile(r"(?<![\d.])(?:\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(?:\.(?P<decimals>\d+))?(?!\.?\d)")


def decimals(rule: DecimalsRule) -> Judge:
    """Where `places` is 0 a conforming number is one without a decimal point."""

    def judge(text: str, _prompt: str) -> str | None:
        numbers = [(found[0], len(found["decimals"] or "")) for found in _NUMBER.finditer(text)]
        wrong = [number for number, places in numbers if places not in (0, rule.places)]
        if wrong:
            return f"{listed(wrong)}: expected {rule.places} decimals"
        num_right = sum(places == rule.places for _, places in numbers)
        if num_right < rule.min_numbers:
            return f"{num_right} numbers with {rule.places} decimals, expected at least {rule.min_numbers}"
        return None

    return judge


def consistency(rule: ConsistencyRule) -> Judge:
    """The message names the first fault: an equation, then a value that is not there, then a check."""
    tolerance = Fraction(str(rule.tolerance))
    patterns = [(name, value.place, re.compile(value.regex)) for name, value in rule.values.items()]
    checks = [(text, parse_check(text)) for text in rule.checks]

    def judge(text: str, prompt: str) -> str | None:
        if rule.equations and (fault := equation_fault(text, tolerance)):
            return fault
        values: dict[str, Stated] = {}
        for name, place, pattern in patterns:
            found = pattern.search(prompt if place == "prompt" else text)
            if found is None:
                return f"no value {name}: {pattern.pattern!r} finds nothing in the {place}"
            value = read_stated(found[1] or "")
            if value is None:
                return f"no value {name}: {quoted(found[0])} in the {place} holds no number in its group"
            values[name] = value
        faults = (_check_fault(text, check, values, tolerance) for text, check in checks)
        return next((fault for fault in faults if fault), None)

    return judge


def _check_fault(text: str, check: Check, values: dict[str, Stated], tolerance: Fraction) -> str | None:
    exact = {name: value.value for name, value in values.items()}
    stated = ", ".join(f"{name} {shown(exact[name])}" for name in exact if name in check.names)
    try:
        left, right = evaluate(check.left, exact), evaluate(check.right, exact)
    except ZeroDivisionError:
        return f"{text} divides by zero, where {stated}"
    if _holds(check, left, right, values, tolerance):
        return None
    return f"{text} does not hold: {shown(left)} against {shown(right)}, where {stated}"


def _holds(check: Check, left: Fraction, right: Fraction, values: dict[str, Stated], tolerance: Fraction) -> bool:
    """A side that is a single value may be rounded; `<=` and `>=` hold where `==` would, too."""
    if (check.comparison == "<=" and left <= right) or (check.comparison == ">=" and left >= right):
        return True
    stated_left, stated_right = _as_stated(check.left, left, values), _as_stated(check.right, right, values)
    return agrees(right, stated_left, tolerance=tolerance) or agrees(left, stated_right, tolerance=tolerance)


def _as_stated(side: ast.expr, value: Fraction, values: dict[str, Stated]) -> Stated:
    return values[side.id] if isinstance(side, ast.Name) else Stated(value, None)
