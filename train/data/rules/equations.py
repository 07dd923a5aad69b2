"""Equations that a text states: found, computed again in exact arithmetic, compared.

    "so 48/2 = <<48/2=24>>24 clips"  ->  48/2=24 inside the brackets, and "48/2 = 24" once they are taken out

An equation is an expression on one line, `=`, and a number or a second expression; one of them has an operator. Read
are + - * / × ÷ ·, x between numbers, parentheses, thousands separators, currency signs, per cent signs, bold marks
and LaTeX's \\times, \\div, \\cdot. In `a = b = c` each `=` is an equation of its own.

A text is never accused of what it may not have meant: whatever touches a unit (5 kg + 3 kg), a variable, a power, a
clock time, a mixed number or an operator without its operand is passed over.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

from train.data.rules.expression import Parsed, Reading, Token, parse
from train.data.rules.free import ends_free, starts_free
from train.data.rules.judge import quoted
from train.data.rules.stated import CURRENCY, NUMBER, Stated, agrees, shown

_MAX_TOKENS = 200
_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
_LATEX = re.compile(r"\\(times|cdot|div)(?![a-z])|\\(?=[$%])")
_LATEX_OPERATORS = {"times": "×", "cdot": "×", "div": "÷", None: ""}
_TOKEN = re.compile(
    rf"(?P<number>(?!0\d+(?![\d.])){NUMBER})"  # 0900 is a time or a code
    r"|(?P<other>\d+|[<>!~≠]=|[=-]+>|(?<=[\d)])\s?\*\*(?=\s?[\d(]))"
    r"|(?P<mark>\*\*|__|`)"
    r"|(?P<equals>==?)"
    r"|(?P<operator>[-+*/×÷·∙−–∗]|(?<![^\W\d_])[xX](?![^\W\d_]))"
    r"|(?P<percent>%)"
    r"|(?P<open>\()|(?P<close>\))"
    rf"|(?P<currency>[{CURRENCY}])"
    r"|(?P<word>[^\W\d_]+)"
    r"|(?P<line>\n)"
    r"|(?P<sign>\S)"
)
_EXPRESSION = frozenset({"number", "operator", "percent", "open", "close"})
_SCALES = {"k": 3, "thousand": 3, "million": 6, "m": 6, "mn": 6, "billion": 9, "bn": 9, "万": 4, "亿": 8}
_SCALES |= {"cent": -2, "cents": -2, "¢": -2}


class _Equation(NamedTuple):
    """An equation: where it stands in the text, its sides, and the power of ten the right one may be meant in."""

    start: int
    end: int
    left: Sequence[Token]
    right: Sequence[Token]
    as_written: tuple[Parsed, Parsed]
    scale: int


def equation_fault(text: str, tolerance: Fraction) -> str | None:
    """The first equation of the text that does not hold, or None; `tolerance` as in `stated.agrees`."""
    if "=" not in text:
        return None
    if "\\" in text:
        text = _LATEX.sub(lambda found: _LATEX_OPERATORS[found[1]], text)
    annotations = _ANNOTATION.findall(text)
    rest = _ANNOTATION.sub("", text) if annotations else text
    return next((fault for part in (*annotations, rest) for fault in _faults(part, tolerance)), None)


def _faults(text: str, tolerance: Fraction) -> Iterator[str]:
    tokens = [
        Token(found.lastgroup or "", found[0], found.start(), found.end())
        for found in _TOKEN.finditer(text)
        if found.lastgroup not in ("mark", "currency")
    ]
    for index, token in enumerate(tokens):
        if token.kind == "equals" and (equation := _equation_at(tokens, index)):
            fault = _fault(equation, tolerance)
            if fault:
                yield f"{quoted(text[equation.start : equation.end].strip())} does not hold: {fault}"


def _equation_at(tokens: Sequence[Token], equals: int) -> _Equation | None:
    """The equation around the `=` at `equals`: the longest expressions on both sides of it, if they stand free."""
    start, end = equals, equals + 1
    while start > 0 and tokens[start - 1].kind in _EXPRESSION:
        start -= 1
    while end < len(tokens) and tokens[end].kind in _EXPRESSION:
        end += 1
    if end - start > _MAX_TOKENS:
        return None
    left, left_value = _first_expression((at, tokens[at:equals]) for at in range(start, equals))
    right, right_value = _first_expression((at, tokens[equals + 1 : at]) for at in range(end, equals + 1, -1))
    if left_value is None or right_value is None or (left_value.lone and right_value.lone):
        return None
    if not (starts_free(tokens, left, equals) and ends_free(tokens, right)):
        return None
    return _Equation(
        start=tokens[left].start,
        end=tokens[right - 1].end,
        left=tokens[left:equals],
        right=tokens[equals + 1 : right],
        as_written=(left_value, right_value),
        scale=_SCALES.get(tokens[right].text.lower(), 0) if right < len(tokens) else 0,
    )


def _first_expression(candidates: Iterator[tuple[int, Sequence[Token]]]) -> tuple[int, Parsed | None]:
    """The first candidate that is an expression: what it is called by, and its value."""
    return next(((at, parsed) for at, tokens in candidates if (parsed := parse(tokens))), (0, None))


def _fault(equation: _Equation, tolerance: Fraction) -> str | None:
    """What is wrong with it in every reading."""
    left, right = equation.as_written
    if left.value is None or right.value is None:
        return "it divides by zero"
    readings = chain([(left, right)], _further_readings(equation, left, right))
    if any(_sides_agree(one, other, tolerance) for one, other in readings):
        return None
    return f"{shown(left.value)} against {shown(right.value)}"


def _further_readings(equation: _Equation, left: Parsed, right: Parsed) -> Iterator[tuple[Parsed, Parsed]]:
    """What else may be meant: 60 / 3/4 by 60 / (3/4), 1.5 million by 1.5, and, of a result alone, 12% by 12."""
    if equation.scale and right.lone:
        yield left, _scaled(right.lone, equation.scale)
    has_percent_result = (right if right.lone else left).has_percent
    for reading in (Reading(is_slash_fraction=True), Reading(is_percent_hundredth=not has_percent_result)):
        one, other = parse(equation.left, reading), parse(equation.right, reading)
        if one and other:
            yield one, other


def _scaled(number: Stated, scale: int) -> Parsed:
    value = number.value * Fraction(10) ** scale
    return Parsed(value, Stated(value, None if number.places is None else number.places - scale), False)


def _sides_agree(left: Parsed, right: Parsed, tolerance: Fraction) -> bool:
    if left.value is None or right.value is None:
        return False
    if left.lone:
        return agrees(right.value, left.lone, tolerance=tolerance)
    return agrees(left.value, right.lone or Stated(right.value, None), tolerance=tolerance)
