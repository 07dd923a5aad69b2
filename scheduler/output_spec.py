"""What a task's answer must look like: rules as data.

A rule is written in the task's YAML and read twice: `train.data.rules` refuses training rows that break it, and the
automatic reviewer in `evalsvc` rejects model outputs that break it. The check itself lives in `train.data.rules`.

Each rule has an *aspect*: `format` (is the answer well formed? its share of passing outputs is the format compliance
that may end stage 1) or `content` (does it say something it must not, or omit something it must?).
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from scheduler.config_model import ConfigModel

Aspect = Literal["format", "content"]


def _compiles(regex: str) -> str:
    try:
        re.compile(regex)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return regex


Regex = Annotated[str, AfterValidator(_compiles)]


class PatternRule(ConfigModel):
    """The whole answer matches a regular expression (`re.fullmatch`, DOTALL)."""

    type: Literal["pattern"] = "pattern"
    regex: Regex
    aspect: Aspect = "format"


class DecimalsRule(ConfigModel):
    """Every number in the answer that has a decimal point has exactly `places` decimals; at least `min_numbers` do."""

    type: Literal["decimals"] = "decimals"
    places: int = Field(ge=0)
    min_numbers: int = Field(default=1, ge=0)
    aspect: Aspect = "format"


class ChoicesRule(ConfigModel):
    """The stripped answer is one of `values`."""

    type: Literal["choices"] = "choices"
    values: tuple[str, ...] = Field(min_length=1)
    aspect: Aspect = "format"


class LengthRule(ConfigModel):
    """The answer has between `min_chars` and `max_chars` characters after stripping."""

    type: Literal["length"] = "length"
    min_chars: int = Field(default=1, ge=0)
    max_chars: int = Field(default=100_000, ge=1)
    aspect: Aspect = "format"


class CitationRule(ConfigModel):
    """Every match of `regex` is in `allowed` (a white-list of documents), and there are at least `min_citations`."""

    type: Literal["citation"] = "citation"
    regex: Regex
    allowed: tuple[str, ...] = Field(min_length=1)
    min_citations: int = Field(default=1, ge=0)
    aspect: Aspect = "content"


class RequiredRule(ConfigModel):
    """The answer contains at least one of `phrases` (case-insensitive): for example the wording of uncertainty."""

    type: Literal["required"] = "required"
    phrases: tuple[str, ...] = Field(min_length=1)
    aspect: Aspect = "content"


class ForbiddenRule(ConfigModel):
    """The answer contains none of `phrases` (case-insensitive) and no match of any of `regexes`."""

    type: Literal["forbidden"] = "forbidden"
    phrases: tuple[str, ...] = ()
    regexes: tuple[Regex, ...] = ()
    aspect: Aspect = "content"


OutputRule = Annotated[
    PatternRule | DecimalsRule | ChoicesRule | LengthRule | CitationRule | RequiredRule | ForbiddenRule,
    Field(discriminator="type"),
]
