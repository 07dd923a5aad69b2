"""Arithmetic as people write it in a text: from tokens to an exact value, or to nothing where it is no expression."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from train.data.rules.stated import Stated, percent_of, read_number

_MAX_DEPTH = 40
_MINUS = frozenset("-−–")
_TIMES = frozenset("*×·∙∗xX")
_OVER = frozenset("/÷")


class Token(NamedTuple):
    """A piece of a text: what it is, how it is written, where it stands."""

    kind: str
    text: str
    start: int
    end: int


class Parsed(NamedTuple):
    """An expression.

    Attributes:
        value: What it comes to; None where it divides by zero.
        lone: The number it consists of, if it is no more than that.
        has_percent: A per cent sign stands in it.
    """

    value: Fraction | None
    lone: Stated | None
    has_percent: bool


class _NotAnExpressionError(Exception):
    """The tokens are no expression."""


class Reading(NamedTuple):
    """How to read what people write in two ways.

    Attributes:
        is_percent_hundredth: 12% is 0.12; else it is 12.
        is_slash_fraction: A slash without white space binds closer than one with it: 60 / 3/4 is 80; else it is 5.
    """

    is_percent_hundredth: bool = True
    is_slash_fraction: bool = False


_AS_WRITTEN = Reading()


def parse(tokens: Sequence[Token], reading: Reading = _AS_WRITTEN) -> Parsed | None:
    """Read all tokens as one expression, or None.

    A sign stands directly before its number. A per cent sign between two operands (7 % 3) is the remainder.
    """
    parser = _Parser(tokens, reading)
    try:
        value = parser.expression(0)
    except _NotAnExpressionError:
        return None
    except ZeroDivisionError:
        value = parser.lone = None
    if value is not None and parser.position < len(tokens):
        return None
    return Parsed(value, parser.lone, any(token.kind == "percent" for token in tokens))


class _Parser:
    """Recursive descent; the methods read what they are named after, from `position` on."""

    def __init__(self, tokens: Sequence[Token], reading: Reading) -> None:
        self.tokens = tokens
        self.position = 0
        self.lone: Stated | None = None
        self._reading = reading

    def expression(self, depth: int) -> Fraction:
        value = self._term(depth)
        while operator := self._take(_MINUS | {"+"}):
            right = self._term(depth)
            value = value + right if operator == "+" else value - right
            self.lone = None
        return value

    def _term(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while operator := self._take(_TIMES | _OVER | {"%"}):
            is_spaced = self._gap()
            right = self._factor(depth)
            if self._reading.is_slash_fraction and operator in _OVER and is_spaced and self._is_tight_slash():
                self.position += 1
                right /= self._factor(depth)
            value = _product(operator, value, right)
            self.lone = None
        return value

    def _factor(self, depth: int) -> Fraction:
        is_after_letter = self.position > 0 and self.tokens[self.position - 1].text in ("x", "X")
        sign = None if is_after_letter else self._take(_MINUS | {"+"})
        if sign and self._gap():
            raise _NotAnExpressionError
        value = self._operand(depth)
        if sign in _MINUS:
            self.lone = self.lone and Stated(-self.lone.value, self.lone.places)
            return -value
        return value

    def _operand(self, depth: int) -> Fraction:
        token = self._next()
        if token.kind == "open" and depth < _MAX_DEPTH:
            value = self.expression(depth + 1)
            if self._next().kind != "close":
                raise _NotAnExpressionError
            return value
        if token.kind != "number":
            raise _NotAnExpressionError
        number = read_number(token.text)
        if self._is_percent_sign():
            self.position += 1
            number = percent_of(number) if self._reading.is_percent_hundredth else number
        self.lone = number
        return number.value

    def _is_percent_sign(self) -> bool:
        """Here stands a `%` that belongs to the number before it and is not the operator of a remainder."""
        if self.position == len(self.tokens) or self.tokens[self.position].kind != "percent":
            return False
        is_before_operand = self.tokens[self.position + 1 : self.position + 2]
        if not is_before_operand or is_before_operand[0].kind not in ("number", "open"):
            return True
        self.position += 1
        has_gap_after = self._gap()
        self.position -= 1
        return has_gap_after and not self._gap()

    def _is_tight_slash(self) -> bool:
        """A slash follows without white space on either side."""
        slash = self.tokens[self.position : self.position + 2]
        return len(slash) == 2 and slash[0].text == "/" and not self._gap() and slash[0].end == slash[1].start

    def _gap(self) -> bool:
        """White space (or a currency sign) stands before the next token."""
        if self.position == len(self.tokens):
            return True
        return self.tokens[self.position - 1].end < self.tokens[self.position].start

    def _take(self, texts: frozenset[str]) -> str | None:
        """Go past the next token if it is one of these operators."""
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token.kind in ("operator", "percent") and token.text in texts:
                self.position += 1
                return token.text
        return None

    def _next(self) -> Token:
        if self.position == len(self.tokens):
            raise _NotAnExpressionError
        self.position += 1
        return self.tokens[self.position - 1]


def _product(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator in _TIMES:
        return left * right
    return left / right if operator in _OVER else left % right
