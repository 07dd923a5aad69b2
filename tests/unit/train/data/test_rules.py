import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.output_spec import (
    ChoicesRule,
    CitationRule,
    DecimalsRule,
    ForbiddenRule,
    LengthRule,
    OutputRule,
    PatternRule,
    RequiredRule,
)
from train.data.rules import check_output

TWO = DecimalsRule(places=2)
CITE = CitationRule(regex=r"\[\w+\]", allowed=("[a]", "[b]"))


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


@given(st.text(max_size=200))
def test_any_text_is_judged_without_error(answer: str) -> None:
    rules = [TWO, CITE, ChoicesRule(values=("a",)), LengthRule(), RequiredRule(phrases=("x",)), ForbiddenRule()]
    assert len(check_output(rules, answer)) <= len(rules)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3))
def test_a_number_written_with_three_decimals_keeps_three_and_breaks_two(number: object) -> None:
    for text in (f"{number:.3f}", f"= {number:,.3f}!"):
        assert check_output([DecimalsRule(places=3)], text) == ()
        assert len(check_output([TWO], text)) == 1
