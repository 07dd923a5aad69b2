import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scheduler.output_spec import (
    ChoicesRule,
    CitationRule,
    ConsistencyRule,
    DecimalsRule,
    ForbiddenRule,
    JsonSchemaRule,
    LengthRule,
    OutputRule,
    PatternRule,
    RequiredRule,
    TemplateRule,
    TermsRule,
)
from train.data.rules import check_output

TWO = DecimalsRule(places=2)
CITE = CitationRule(regex=r"\[\w+\]", allowed=("[a]", "[b]"))
RATING = TemplateRule(template="Company: {name}\nRating: {rating:choice(AAA|AA|A)}, {ratio:number}\n")
REPORT = JsonSchemaRule(
    definition={
        "type": "object",
        "required": ["id", "rating"],
        "properties": {
            "rating": {"enum": ["AAA", "AA"]},
            "day": {"format": "date"},
            "shares": {"items": {"minimum": 0}},
        },
    }
)
TERMS = TermsRule(
    terms={
        "default rate": ("delinquency rate", "failure rate"),
        "adjusted net income": ("net income",),
        "LoRA": ("lora", "low-rank adapter"),
        "违约率": ("坏账率", "违约比例"),
        "人工智能": ("智能",),
    }
)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (PatternRule(regex=r"\d+"), "42", "42 "),
        (PatternRule(regex=r"a.b"), "a\nb", "xa\nb"),
        (TWO, "1,234.50 and 3 items", "1.5"),
        (TWO, "It is 2.50.", "It is 2.50. Not 2.505."),
        (TWO, "-0.25kg", "none"),
        (TWO, ".75 (see 1.2.3)", "1.2.3"),
        (TWO, "1.50,2.25", "1.50,2.2"),
        (DecimalsRule(places=0), "7", "7.0"),
        (DecimalsRule(places=1, min_numbers=2), "1.5 to 2.5", "1.5"),
        (ChoicesRule(values=("yes", "no")), " yes\n", "Yes"),
        (LengthRule(min_chars=2, max_chars=3), " ab ", " a "),
        (LengthRule(max_chars=3), "abc", "abcd"),
        (CITE, "see [a] and [b]", "see [a] and [c]"),
        (CITE, "[b]", "no source"),
        (RequiredRule(phrases=("not sure", "I think")), "i THINK so", "certainly"),
        (ForbiddenRule(phrases=("guarantee",)), "we hope", "we GUARANTEE it"),
        (ForbiddenRule(regexes=(r"\d{3}-\d{4}",)), "call us", "call 555-1234"),
        (RATING, "Company: A & B, Ltd.\nRating: AAA, -1,234.5", "Company: A\nRating: BBB, 1"),
        (RATING, "\n Company: x\r\nRating: A, 0 ", "Company: x\ny\nRating: A, 0"),
        (TemplateRule(template="{{{a:word}}} on {b:date}"), "{x-y} on 2024-02-09", "{x y} on 2024-02-09"),
        (TemplateRule(template="{b:date}"), "2024年12月31日", "2024-13-01"),
        (TemplateRule(template="{b:date}"), "2024/1/5", "2024/1-5"),
        (TemplateRule(template="{a} is {a}."), "x.y is x.y.", "x.y is z."),
        (TemplateRule(template="a{b:text}c"), "a\n\nc", "ac"),
        (TemplateRule(template="{n:number}%"), "−12.50%", "12.5.0%"),
        (REPORT, '{"id": 1, "rating": "AA", "day": "2024-02-29"}', '{"id": 1, "rating": "AA", "day": "2023-02-29"}'),
        (REPORT, ' {"rating": "AA", "id": null}\n', '{"rating": "AA", "id": NaN}'),
        (REPORT, '{"rating": "AA", "id": []}', "```json\n{}\n```"),
        (JsonSchemaRule(definition={}), "1", "[" * 100_000),
        (JsonSchemaRule(definition={}), "[1e5]", "9" * 10_000),
        (TERMS, "the Default Rate of delinquency", "the Delinquency  rate, a Delinquency rate"),
        (TERMS, "xdelinquency rates", "failure rate."),
        (TERMS, "adjusted net income", "Net income"),
        (TERMS, "LoRA", "LORA"),
        (TERMS, "人工智能的违约率", "公司的坏账率高"),
        (TERMS, "人工智能", "智能人工"),
        (TERMS, "使用LoRA模型", "使用lora模型"),
        (TermsRule(terms={"US$": ("$ US", "e.g")}), "US$ e.gg", "5 $ us"),
    ],
)
def test_each_rule_passes_and_breaks_as_its_docstring_says(rule: OutputRule, good: str, bad: str) -> None:
    assert check_output([rule], good) == ()
    (violation,) = check_output([rule], bad)
    assert (violation.rule, violation.aspect) == (rule.type, rule.aspect)


def test_violations_keep_the_order_of_the_rules_and_name_the_finding() -> None:
    rules = [ForbiddenRule(phrases=("ab",)), LengthRule(max_chars=3), PatternRule(regex=r"\w+")]
    violations = check_output(rules, "abcdef")
    assert [violation.rule for violation in violations] == ["forbidden", "length"]
    assert [violation.message for violation in violations] == ["contains 'ab'", "6 characters, expected 1 to 3"]


@pytest.mark.parametrize(
    ("rule", "answer", "message"),
    [
        (
            RATING,
            "Company: A\nRating: BBB, 1",
            "does not fit the template: expected '{rating:choice(AAA|AA|A)}' at 'BBB, 1'",
        ),
        (RATING, "Company: A\nScore: AA", "does not fit the template: expected '\\nRating: ' at '\\nScore: AA'"),
        (RATING, "Company: A\nRating: A, 1 or 2", "does not fit the template: expected the end at ' or 2'"),
        (RATING, "", "does not fit the template: expected 'Company: ' at ''"),
        (REPORT, '{"id": 1, "rating": "B"}', "at $.rating: 'B' is not one of ['AAA', 'AA']"),
        (REPORT, '{"id": 1, "rating": "AA", "shares": [1, -2]}', "at $.shares[1]: -2 is less than the minimum of 0"),
        (REPORT, "{'id': 1}", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (REPORT, "", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (
            TERMS,
            "坏账率 and a Failure Rate",
            "contains '坏账率' (write '违约率'), 'Failure Rate' (write 'default rate')",
        ),
    ],
)
def test_the_message_says_where_and_what_instead(rule: OutputRule, answer: str, message: str) -> None:
    assert [violation.message for violation in check_output([rule], answer)] == [message]


def test_a_rule_that_flags_finds_the_same_and_says_that_it_only_flags() -> None:
    refusing, flagging = LengthRule(max_chars=3), LengthRule(max_chars=3, on_break="flag")
    first, second = check_output([refusing, flagging], "abcd")
    assert (first.flag_only, second.flag_only) == (False, True)
    assert first.message == second.message


DATES = st.dates(min_value=date(1000, 1, 1))
PLACEHOLDERS = {
    "any": st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1),
    "text": st.text(min_size=1),
    "word": st.from_regex(r"\w+([-'’]\w+)*", fullmatch=True),
    "number": st.from_regex(r"[-+]?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]+)?", fullmatch=True),
    "date": DATES.map("{:%Y-%m-%d}".format) | DATES.map("{0.year}/{0.month}/{0.day}".format),
    "choice(a|aa|b c)": st.sampled_from(["a", "aa", "b c"]),
}


@given(st.data())
def test_a_text_made_from_a_template_always_fits_it(data: st.DataObject) -> None:
    template, text = "", ""
    made: dict[str, str] = {}
    kinds = data.draw(st.lists(st.sampled_from(sorted(PLACEHOLDERS)), min_size=1, max_size=5))
    for index, kind in enumerate(kinds):
        literal = data.draw(st.text(max_size=4))
        name = data.draw(st.sampled_from([*made, f"n{index}"]))
        template += literal.replace("{", "{{").replace("}", "}}") + f"{{{name}{'' if name in made else ':' + kind}}}"
        made[name] = made.get(name) or data.draw(PLACEHOLDERS[kind])
        text += literal + made[name]
    rule = TemplateRule(template=template)
    assert check_output([rule], text) == ()
    assert check_output([rule], f" {text}\n") == ()


@settings(max_examples=40)  # each compiles its own expressions
@given(
    st.dictionaries(st.text("abA 人", min_size=1, max_size=3), st.lists(st.text("abB 人-", min_size=1, max_size=3))),
    st.text("abAB 人-", max_size=30),
    st.sampled_from([0, 100]),
)
def test_a_dictionary_short_or_long_is_searched_as_each_of_its_words_would_be(
    terms: dict[str, list[str]], text: str, num_others: int
) -> None:
    others = {"other": [f"other{index}" for index in range(num_others)]}
    try:
        rule = TermsRule.model_validate({"terms": terms | others})
    except ValidationError:
        return
    boundary = "[A-Za-z_]"
    found = [
        variant
        for variants in rule.terms.values()
        for variant in variants
        if re.search(variant if "人" in variant else f"(?<!{boundary}){re.escape(variant)}(?!{boundary})", text, re.I)
    ]
    violations = check_output([rule], text)
    if not found:
        assert violations == ()
    elif not any(canonical.casefold() in text.casefold() for canonical in rule.terms):
        assert len(violations) == 1


ALL = [
    TWO,
    CITE,
    ChoicesRule(values=("a",)),
    LengthRule(),
    RequiredRule(phrases=("x",)),
    ForbiddenRule(),
    RATING,
    REPORT,
    TERMS,
    ConsistencyRule(equations=True),
    ConsistencyRule.model_validate({"values": {"a": "(.*)", "b": "=(.*)"}, "checks": ["a / b >= 1"]}),
]


@given(st.text(max_size=200) | st.text("0123456789+-*/x=%(),. $\n<>ab\\", max_size=60))
def test_any_text_is_judged_without_error(answer: str) -> None:
    rules = ALL
    assert len(check_output(rules, answer)) <= len(rules)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3))
def test_a_number_written_with_three_decimals_keeps_three_and_breaks_two(number: object) -> None:
    for text in (f"{number:.3f}", f"= {number:,.3f}!"):
        assert check_output([DecimalsRule(places=3)], text) == ()
        assert len(check_output([TWO], text)) == 1
