"""The small languages an output rule is written in: regular expressions, templates, arithmetic checks.

Each is parsed where the rule is validated, so that a mistake in it is a mistake in the settings. Texts are judged by
them in `train.data.rules`.
"""

import ast
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

_MONTH, _DAY = r"(?:1[0-2]|0?[1-9])", r"(?:[12]\d|3[01]|0?[1-9])"
_PLACEHOLDERS = {
    "any": r"[^\n]+",
    "text": r".+",
    "word": r"\w+(?:[-'’]\w+)*",
    "number": r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?",
    "date": rf"\d{{4}}(?:-{_MONTH}-{_DAY}|/{_MONTH}/{_DAY}|\.{_MONTH}\.{_DAY}|年{_MONTH}月{_DAY}日)",
}
_PIECE = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}:]*)(?::(?P<type>[^{}]*))?\}|(?P<stray>[{}])|(?P<literal>[^{}]+)")
_CHOICE = re.compile(r"choice\((?P<values>.+)\)", re.DOTALL)
_COMPARISONS: Mapping[type[ast.cmpop], str] = {ast.Eq: "==", ast.LtE: "<=", ast.GtE: ">="}


class TemplatePart(NamedTuple):
    """A piece of a template: as it was written, and the regular expression of what may stand there."""

    written: str
    regex: str


class Check(NamedTuple):
    """A comparison of two arithmetic expressions over `names`; `comparison` is `==`, `<=` or `>=`."""

    left: ast.expr
    comparison: str
    right: ast.expr
    names: frozenset[str]


def require_regex(regex: str) -> str:
    """Give the text back if it is a regular expression.

    Raises:
        ValueError: It is not.
    """
    try:
        re.compile(regex)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return regex


def parse_template(template: str) -> tuple[TemplatePart, ...]:
    """Take a template apart; the parts' regexes, joined, match (DOTALL) exactly the texts of its shape.

    `{name}` or `{name:type}` is a placeholder, `{{` and `}}` are braces. The types: `any` (the default: at least one
    character, on one line), `text` (over lines as well), `word` (letters and digits, joined by hyphen or apostrophe),
    `number` (sign, thousands separators, decimals), `date` (year first: 2024-05-31, 2024/5/31, 2024.05.31,
    2024年5月31日; no calendar is consulted) and `choice(a|b)`. A name used again stands for the same text again.

    Raises:
        ValueError: A placeholder has no name or an unknown type, a brace stands alone, or there is no placeholder.
    """
    parts: list[TemplatePart] = []
    types: dict[str, str] = {}
    for piece in _PIECE.finditer(template):
        if piece["stray"]:
            raise ValueError(f"the brace at character {piece.start() + 1} stands alone; write {{{{ or }}}} for a brace")
        if piece["name"] is None:
            literal = piece["literal"] or piece[0][0]
            parts.append(TemplatePart(literal, re.escape(literal)))
        else:
            parts.append(TemplatePart(piece[0], _placeholder(piece[0], piece["name"], piece["type"], types)))
    if not types:
        raise ValueError("there is no placeholder such as {name:number}; use a `choices` rule for a fixed text")
    return tuple(parts)


def _placeholder(written: str, name: str, kind: str | None, types: dict[str, str]) -> str:
    """The regex of one placeholder; its type is entered into `types`."""
    if not name.isidentifier():
        raise ValueError(f"{written}: a placeholder needs a name of letters, digits and _; write {{{{ for a brace")
    if name not in types:
        types[name] = kind or "any"
        return f"(?P<{name}>{_regex_of_type(written, types[name])})"
    if kind in (None, types[name]):
        return f"(?P={name})"
    raise ValueError(f"{written}: {name} is {types[name]!r} earlier in the template; give it one type")


def _regex_of_type(written: str, kind: str) -> str:
    if choice := _CHOICE.fullmatch(kind):
        return "|".join(re.escape(value) for value in choice["values"].split("|"))
    if kind not in _PLACEHOLDERS:
        known = ", ".join([*_PLACEHOLDERS, "choice(a|b)"])
        raise ValueError(f"{written}: unknown placeholder type {kind!r}; the types are {known}")
    return _PLACEHOLDERS[kind]


def parse_check(text: str) -> Check:
    """Parse `left == right` (or `<=`, `>=`), where both sides hold only names, numbers, `+ - * /` and parentheses.

    Raises:
        ValueError: It is anything else.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} cannot be read; write it like 'net == revenue - cost'") from error
    if not isinstance(node, ast.Compare) or len(node.ops) != 1 or type(node.ops[0]) not in _COMPARISONS:
        raise ValueError(f"{text!r} is not one comparison by ==, <= or >=; write it like 'net == revenue - cost'")
    names: set[str] = set()
    sides = node.left, node.comparators[0]
    for side in sides:
        _require_arithmetic(side, text, names)
    return Check(sides[0], _COMPARISONS[type(node.ops[0])], sides[1], frozenset(names))


def _require_arithmetic(node: ast.expr, text: str, names: set[str]) -> None:
    """Raise ValueError unless `evaluate` can read the node; the names met are added to `names`."""
    match node:
        case ast.Name(id=name):
            names.add(name)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) < float("inf"):
            pass
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            _require_arithmetic(left, text, names)
            _require_arithmetic(right, text, names)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _require_arithmetic(operand, text, names)
        case _:
            written = ast.unparse(node)
            raise ValueError(f"{written!r} in {text!r} is not allowed; use names, numbers, + - * / and parentheses")


def evaluate(node: ast.expr, values: Mapping[str, Fraction]) -> Fraction:
    """The exact value of one side of a `Check`; a number such as 0.1 is read as written, 1/10.

    Raises:
        ZeroDivisionError: It divides by zero.
    """
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand, values)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return evaluate(operand, values)
        case ast.BinOp(left=left, op=operator, right=right):
            return _apply(operator, evaluate(left, values), evaluate(right, values))
    raise AssertionError(f"{ast.dump(node)} was not refused by parse_check")


def _apply(operator: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    """One operation."""
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
    raise AssertionError(f"{ast.dump(operator)} was not refused by parse_check")
