"""A number as a text states it, and whether a computed one agrees with it. All arithmetic is exact."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

CURRENCY = "$€£¥₹₩￥元円"
MAX_DIGITS = 40
"""A longer run of digits is no number that a text reckons with, and is slow to reckon with."""
_DECIMALS = rf"\.\d{{1,{MAX_DIGITS}}}(?!\d)"
NUMBER = rf"(?:(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d{{1,{MAX_DIGITS}}}(?!\d))(?:{_DECIMALS})?|{_DECIMALS})"
_STATED = re.compile(
    rf"(?P<bracket>\()?\s*(?P<sign>[-+−])?\s*[{CURRENCY}]?\s*(?P<sign_after>[-−])?"
    rf"(?P<number>{NUMBER})\s*[{CURRENCY}]?\s*(?P<percent>%)?\s*(?(bracket)\))\.?"
)


@dataclass(frozen=True, slots=True)
class Stated:
    """A number in a text.

    Attributes:
        value: What it says, exactly.
        places: Decimals shown, in terms of `value`: 1.5 shows 1, 12% (0.12) shows 2. None if nothing was rounded.
    """

    value: Fraction
    places: int | None


@lru_cache(maxsize=1 << 16)
def read_number(text: str) -> Stated:
    """Read a match of `NUMBER`."""
    whole, _, decimals = text.replace(",", "").partition(".")
    return Stated(Fraction(int(whole + decimals), 10 ** len(decimals)), len(decimals))


def percent_of(number: Stated) -> Stated:
    """12 as 12%: 0.12, with two more decimals shown."""
    return Stated(number.value / 100, None if number.places is None else number.places + 2)


def read_stated(text: str) -> Stated | None:
    """Read a text that is one number: with a sign, currency, per cent sign, or in brackets for a negative; or None.

    A per cent sign makes it a hundredth. A point at the end belongs to the sentence.
    """
    found = _STATED.fullmatch(text.strip())
    if found is None:
        return None
    number = read_number(found["number"])
    number = percent_of(number) if found["percent"] else number
    is_negative = bool(found["bracket"]) or found["sign"] in ("-", "−") or bool(found["sign_after"])
    return Stated(-number.value, number.places) if is_negative else number


def agrees(computed: Fraction, stated: Stated, *, tolerance: Fraction) -> bool:
    """Whether the stated number can be the computed one.

    It can when they differ by at most `tolerance` (a share of the larger), when it is the computed one rounded to the
    places shown, half either way, or when it shows decimals and is the computed one cut off there.
    """
    difference = abs(computed - stated.value)
    if difference <= tolerance * max(abs(computed), abs(stated.value)):
        return True
    if stated.places is None:
        return False
    unit = Fraction(10) ** -stated.places
    return 2 * difference <= unit or (stated.places > 0 and int(computed / unit) * unit == stated.value)


def shown(value: Fraction) -> str:
    """For messages: a short integer as it is, anything else to six figures."""
    if value.denominator == 1 and abs(value) < 10**12:
        return str(value.numerator)
    return f"{Decimal(value.numerator) / Decimal(value.denominator):.6g}"
