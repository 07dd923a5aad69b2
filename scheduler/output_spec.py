"""What a task's answer must look like: rules as data.

A rule is written in the task's YAML and read twice: `train.data.rules` refuses training rows that break it, and the
automatic reviewer in `evalsvc` rejects model outputs that break it. The check itself lives in `train.data.rules`.

Each rule has an *aspect*: `format` (is the answer well formed? its share of passing outputs is the format compliance
that may end stage 1) or `content` (does it say something it must not, or omit something it must?). And it says what
breaking it means: with `on_break: flag` nothing is refused, the finding is written into the row's lineage.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from scheduler.config_model import ConfigModel
from scheduler.rule_syntax import parse_check, parse_template, require_regex

Aspect = Literal["format", "content"]
Regex = Annotated[str, AfterValidator(require_regex)]
Phrase = Annotated[str, Field(min_length=1)]


class Rule(ConfigModel):
    """What all rules share."""

    on_break: Literal["refuse", "flag"] = Field(
        default="refuse", description="`flag` keeps a row that breaks the rule and notes it in the row's lineage"
    )


class PatternRule(Rule):
    """The whole answer matches a regular expression (`re.fullmatch`, DOTALL)."""

    type: Literal["pattern"] = "pattern"
    regex: Regex
    aspect: Aspect = "format"


class DecimalsRule(Rule):
    """Every number in the answer that has a decimal point has exactly `places` decimals; at least `min_numbers` do."""

    type: Literal["decimals"] = "decimals"
    places: int = Field(ge=0)
    min_numbers: int = Field(default=1, ge=0)
    aspect: Aspect = "format"


class ChoicesRule(Rule):
    """The stripped answer is one of `values`."""

    type: Literal["choices"] = "choices"
    values: tuple[str, ...] = Field(min_length=1)
    aspect: Aspect = "format"


class LengthRule(Rule):
    """The answer has between `min_chars` and `max_chars` characters after stripping."""

    type: Literal["length"] = "length"
    min_chars: int = Field(default=1, ge=0)
    max_chars: int = Field(default=100_000, ge=1)
    aspect: Aspect = "format"


class TemplateRule(Rule):
    """The answer, white space around it aside, has the shape of a template with typed placeholders.

    `"Company: {name}\\nRating: {rating:choice(AAA|AA|A)}, {ratio:number}"`. Types: `any` (the default; on one line),
    `text` (over lines), `word`, `number`, `date` (year first) and `choice(a|b)`. A name used again stands for the same
    text; `{{` and `}}` are braces.

    Attributes:
        template: The shape, with placeholders `{name}` and `{name:type}`
        aspect: Which share of passing outputs it counts in
    """

    type: Literal["template"] = "template"
    template: Annotated[str, Field(min_length=1)]
    aspect: Aspect = "format"

    @field_validator("template")
    @classmethod
    def _parses(cls, template: str) -> str:
        parse_template(template)
        return template


class JsonSchemaRule(Rule):
    """The answer is JSON (nothing around it, no NaN) that a JSON Schema accepts.

    The draft is the one the definition names under `$schema`, else 2020-12. A `$ref` must lead to a place inside the
    definition: nothing is fetched. The formats `date`, `email`, `ipv4`, `ipv6`, `regex` and `uuid` are checked.

    Attributes:
        definition: The JSON Schema, inline
        aspect: Which share of passing outputs it counts in
    """

    type: Literal["json_schema"] = "json_schema"
    definition: dict[str, Any]
    aspect: Aspect = "format"

    @field_validator("definition")
    @classmethod
    def _is_a_schema(cls, definition: dict[str, Any]) -> dict[str, Any]:
        from scheduler.json_schema import require_schema  # only who has such a rule pays for jsonschema's import

        require_schema(definition)
        return definition


class CitationRule(Rule):
    """Every match of `regex` is in `allowed` (a white-list of documents), and there are at least `min_citations`."""

    type: Literal["citation"] = "citation"
    regex: Regex
    allowed: tuple[str, ...] = Field(min_length=1)
    min_citations: int = Field(default=1, ge=0)
    aspect: Aspect = "content"


class RequiredRule(Rule):
    """The answer contains at least one of `phrases` (case-insensitive): for example the wording of uncertainty."""

    type: Literal["required"] = "required"
    phrases: tuple[str, ...] = Field(min_length=1)
    aspect: Aspect = "content"


class ForbiddenRule(Rule):
    """The answer contains none of `phrases` (case-insensitive) and no match of any of `regexes`."""

    type: Literal["forbidden"] = "forbidden"
    phrases: tuple[str, ...] = ()
    regexes: tuple[Regex, ...] = ()
    aspect: Aspect = "content"


class TermsRule(Rule):
    """The answer uses the canonical terms: none of their variants stands in it.

    A variant is found as whole words, case-insensitively; one that holds a Chinese, Japanese or Korean character is
    found anywhere. Inside a canonical term a variant is no fault ("net income" in "adjusted net income").

    Attributes:
        terms: Refused variants by canonical term, `{default rate: [delinquency rate, failure rate]}`
        aspect: Which share of passing outputs it counts in
    """

    type: Literal["terms"] = "terms"
    terms: dict[Phrase, tuple[Phrase, ...]] = Field(min_length=1)
    aspect: Aspect = "content"

    @model_validator(mode="after")
    def _one_canonical_term_each(self) -> "TermsRule":
        canonical_of: dict[str, str] = {}
        for canonical, variants in self.terms.items():
            for variant in variants:
                other = variant if variant in self.terms else canonical_of.setdefault(variant.casefold(), canonical)
                if other != canonical or variant == canonical:
                    raise ValueError(f"{variant!r} is a variant of {canonical!r} and belongs to {other!r}; keep one")
        return self


class StatedValue(ConfigModel):
    """A number to be read from a text: what the only group of `regex` captures at its first match.

    Read are a sign, thousands separators, decimals, currency signs, brackets for a negative amount, and a per cent
    sign, which makes 12% the value 0.12. The regex alone is short for `{regex: ...}`.

    Attributes:
        regex: Regular expression with one group
        place: Where to look; `answer` is the text that is judged, `prompt` the turn it replies to
    """

    regex: Regex
    place: Literal["answer", "prompt"] = "answer"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"regex": value} if isinstance(value, str) else value

    @field_validator("regex")
    @classmethod
    def _has_one_group(cls, regex: str) -> str:
        if (num_groups := re.compile(regex).groups) != 1:
            raise ValueError(f"{num_groups} groups; put one group, ( ), around the number, (?: ) around anything else")
        return regex


class ConsistencyRule(Rule):
    """The answer's own figures agree when they are computed again, in exact arithmetic.

    A stated number agrees when rounding the computed one to the decimals shown, or cutting it off there, gives it.

    Attributes:
        equations: Every equation in the text that states a result holds: `48 / 2 = 24`, `<<48/2=24>>`, `$5 × 3 = $15`,
            `5/20 = 25%`. What cannot be told for an equation (units between the numbers, variables) is passed over.
        values: Numbers to be read, by name; `{net: 'net: (\\S+)'}`
        checks: Comparisons (`==`, `<=`, `>=`) of the values by `+ - * /` and parentheses, `net == revenue - cost`
        tolerance: Allowed difference as a share of the larger side
        aspect: Which share of passing outputs it counts in
    """

    type: Literal["consistency"] = "consistency"
    equations: bool = False
    values: dict[str, StatedValue] = Field(default_factory=dict)
    checks: tuple[str, ...] = ()
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    aspect: Aspect = "content"

    @model_validator(mode="after")
    def _checks_use_the_values(self) -> "ConsistencyRule":
        if not self.equations and not self.checks:
            raise ValueError("nothing is checked; set equations: true or give values and checks")
        used = frozenset[str]().union(*(parse_check(check).names for check in self.checks))
        if unknown := sorted(used - self.values.keys()):
            raise ValueError(f"no such value: {', '.join(unknown)}; define it under values (there are {_names(self)})")
        if unused := sorted(self.values.keys() - used):
            raise ValueError(f"no check uses the value {', '.join(unused)}; drop it or write a check")
        return self


def _names(rule: ConsistencyRule) -> str:
    return ", ".join(rule.values) or "none"


LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]


class LanguageRule(Rule):
    """The answer is in one of the allowed languages, as py3langid tells it from the text alone.

    Too short a text passes, because its language cannot be told; so do figures and code with few letters.

    Attributes:
        allowed: ISO 639 codes; `zh`, `ar`, `no` and other macrolanguages include their members
        min_probability: Least probability that the text is in one of the allowed languages; in another language it is
            next to nothing, so a low bound is safe and spares terse texts; raise it to tell related languages apart
        min_chars: A text with fewer letters passes
        aspect: Which share of passing outputs it counts in
    """

    type: Literal["language"] = "language"
    allowed: tuple[LanguageCode, ...] = Field(min_length=1)
    min_probability: float = Field(default=0.1, gt=0, le=1)
    min_chars: int = Field(default=20, ge=1)
    aspect: Aspect = "content"


class PluginRule(Rule):
    """An outside rule: a function that an installed package offers under the entry-point group `taskheat.rules`.

    It is called as `function(text, prompt, options)` and returns what is wrong, or None.

    Attributes:
        name: Name of the entry point
        options: Passed to the function as they are
        aspect: Which share of passing outputs it counts in
    """

    type: Literal["plugin"] = "plugin"
    name: Phrase
    options: dict[str, Any] = Field(default_factory=dict)
    aspect: Aspect = "content"


OutputRule = Annotated[
    PatternRule
    | DecimalsRule
    | ChoicesRule
    | LengthRule
    | TemplateRule
    | JsonSchemaRule
    | CitationRule
    | RequiredRule
    | ForbiddenRule
    | TermsRule
    | ConsistencyRule
    | LanguageRule
    | PluginRule,
    Field(discriminator="type"),
]


def binding_rules(rules: Iterable[OutputRule]) -> list[OutputRule]:
    """Those that refuse what breaks them; the others only flag."""
    return [rule for rule in rules if rule.on_break == "refuse"]
