from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from scheduler.output_spec import ConsistencyRule, OutputRule
from scheduler.rule_syntax import evaluate, parse_check, parse_template

RULES = TypeAdapter(OutputRule)
NET = {"net": "net (.*)", "cost": "cost (.*)"}


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"type": "pattern", "regex": "("}, "not a regular expression"),
        ({"type": "template", "template": "{a:numbr}"}, "unknown placeholder type 'numbr'; the types are any, text"),
        ({"type": "template", "template": "{a} {a:date}"}, "a is 'any' earlier in the template"),
        ({"type": "template", "template": "{a b}"}, "needs a name"),
        ({"type": "template", "template": "a } {b}"}, "brace at character 3 stands alone"),
        ({"type": "template", "template": "no {{placeholder}}"}, "use a `choices` rule"),
        ({"type": "json_schema", "definition": {"type": "objekt"}}, r"at \$\.type: 'objekt'"),
        ({"type": "json_schema", "definition": {"properties": {"a": {"pattern": "("}}}}, r"\$\.properties\.a\.pattern"),
        ({"type": "json_schema", "definition": {"$ref": "https://example.org/s"}}, "leads nowhere inside"),
        ({"type": "json_schema", "definition": {"$ref": "#/$defs/a"}}, "leads nowhere inside"),
        ({"type": "json_schema", "definition": {"$schema": "draft-99"}}, "no known draft"),
        ({"type": "terms", "terms": {}}, "at least 1 item"),
        ({"type": "terms", "terms": {"a": [""]}}, "at least 1 character"),
        ({"type": "terms", "terms": {"a": ["b"], "c": ["B"]}}, "'B' is a variant of 'c' and belongs to 'a'"),
        ({"type": "terms", "terms": {"a": ["b"], "b": ["c"]}}, "'b' is a variant of 'a' and belongs to 'b'"),
        ({"type": "consistency"}, "nothing is checked"),
        ({"type": "consistency", "values": {"net": "net .*"}, "checks": ["net == 1"]}, "0 groups"),
        ({"type": "consistency", "values": NET, "checks": ["net == cost + tax"]}, "no such value: tax"),
        ({"type": "consistency", "values": NET, "checks": ["net == 1"]}, "no check uses the value cost"),
        ({"type": "consistency", "values": NET, "checks": ["net = cost"]}, "cannot be read"),
        ({"type": "consistency", "values": NET, "checks": ["net + cost"]}, "not one comparison"),
        ({"type": "consistency", "values": NET, "checks": ["net == cost == 1"]}, "not one comparison"),
        ({"type": "consistency", "values": NET, "checks": ["net == abs(cost)"]}, r"'abs\(cost\)' in .* is not allowed"),
        ({"type": "consistency", "values": NET, "checks": ["net == cost ** 9"]}, "is not allowed"),
        ({"type": "consistency", "values": NET, "checks": ["net == cost.real"]}, "is not allowed"),
        ({"type": "consistency", "values": NET, "checks": ["net == cost + True"]}, "'True' in .* is not allowed"),
        ({"type": "consistency", "values": NET, "checks": ["net == cost + 1e999"]}, "is not allowed"),
        ({"type": "consistency", "values": NET, "checks": [f"net == {'(' * 999}cost{')' * 999}"]}, "cannot be read"),
        ({"type": "language", "allowed": ["English"]}, "should match pattern"),
        ({"type": "plugin", "name": ""}, "at least 1 character"),
        ({"type": "length", "on_break": "warn"}, "'refuse' or 'flag'"),
    ],
)
def test_a_mistake_in_a_rule_is_told_when_the_settings_are_read(written: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        RULES.validate_python(written)


@pytest.mark.parametrize(
    "written",
    [
        {"type": "template", "template": "Company: {name}\nRating: {rating:choice(AAA|AA|A)}, {ratio:number}"},
        {
            "type": "json_schema",
            "definition": {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "definitions": {"amount": {"type": "number"}},
                "properties": {"net": {"$ref": "#/definitions/amount"}},
            },
        },
        {"type": "terms", "terms": {"违约率": ["坏账率"]}, "on_break": "flag"},
        {"type": "consistency", "values": {"net": {"regex": "(.)", "place": "prompt"}}, "checks": ["net >= 0"]},
        {"type": "language", "allowed": ["en", "zh"]},
        {"type": "plugin", "name": "no_pii", "options": {"kinds": ["mail"]}},
    ],
)
def test_a_rule_survives_being_written_and_read_again(written: dict[str, Any]) -> None:
    rule = RULES.validate_python(written)
    assert rule.type == written["type"]
    assert RULES.validate_json(RULES.dump_json(rule)) == rule


def test_every_rule_refuses_unless_told_to_flag() -> None:
    assert RULES.validate_python({"type": "length"}).on_break == "refuse"
    assert RULES.validate_python({"type": "length", "on_break": "flag"}).on_break == "flag"


def test_a_values_regex_alone_is_short_for_its_long_form() -> None:
    short = ConsistencyRule.model_validate({"values": {"net": "net (.*)"}, "checks": ["net >= 0"]})
    assert short == ConsistencyRule.model_validate(
        {"values": {"net": {"regex": "net (.*)", "place": "answer"}}, "checks": ["net >= 0"]}
    )


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_refused_with_words(template: str) -> None:
    try:
        parts = parse_template(template)
    except ValueError as error:
        assert str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert "".join(part.written for part in parts) == template.replace("{{", "{").replace("}}", "}")


numbers = st.integers(0, 10**6) | st.decimals(0, 10**6, places=3)
sides = st.recursive(
    numbers.map(str) | st.sampled_from(["a", "b"]),
    lambda side: st.builds("({} {} {})".format, side, st.sampled_from("+-*/"), side) | side.map("(-{})".format),
    max_leaves=8,
)


@given(sides, st.fractions(-100, 100), st.fractions(-100, 100))
def test_a_check_is_reckoned_exactly(side: str, a: Fraction, b: Fraction) -> None:
    check = parse_check(f"{side} == 0")
    assert check.names <= {"a", "b"}
    # Decimals are exact only as fractions: let Python reckon with those.
    as_fractions = "".join(
        f"Fraction('{piece}')" if piece[0].isdigit() else piece
        for piece in side.replace("(", " ( ").replace(")", " ) ").replace("-", " - ").split()
    )
    names = {"Fraction": Fraction, "a": a, "b": b}
    try:
        expected = eval(as_fractions, names)
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            evaluate(check.left, {"a": a, "b": b})
    else:
        assert evaluate(check.left, {"a": a, "b": b}) == expected
