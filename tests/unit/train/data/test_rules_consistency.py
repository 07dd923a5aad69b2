import json
import operator
import re
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scheduler.output_spec import ConsistencyRule, StatedValue
from tests.real_data import REAL_DATA
from train.data.rules import check_output
from train.data.rules.stated import Stated, agrees, read_stated

EQUATIONS = ConsistencyRule(equations=True)
GSM8K = REAL_DATA / "gsm8k" / "train.jsonl"
HOLDING = [
    "Natalia sold 48/2 = <<48/2=24>>24 clips.",
    "She has $1,234.50 + $0.50 = $1,235 left.",
    "(2 + 3) × 4 ÷ 10 = 2, 5 x 3 = 15, 5X3=15, 2·3=6",
    "-5 + 3 = -2 and 5 - -3 = 8 and 5 * -3 = −15",
    "20% * 50 = 10; 5/20 = 25%; 5/20*100 = 25%; 100% - 20% = 80%; 100 - 20% = 80%",
    "7 % 3 = 1 and 17%5=2",
    "2/3 = 0.67, 2/3 = 0.66, 2/3 = 0.667, 7/2 = 3, 7/2 = 4, 1/3 = 33%",
    "**12 + 30 = 42** and 12 + 30 = **42**",
    r"12 \times 2 = 24, \$5 \cdot 2 = 10, 8 \div 2 = 4",
    "60 / 3/4 = 80 and 60/3/4 = 5",
    "3 * 0.5 million = what? 750,000 * 2 = 1.5 million; $1 / 2 = 50 cents",
    "10 + 5 = 15 = 3 * 5",
    "- 3 + 4 = 7\n* 2 * 2 = 4\n1. 5 - 3 = 2\n1) 5 - 3 = 2\nStep 2: 5 - 3 = 2",
    "共3+4=7个，每个5元+3元=8元",
]
BREAKING = [
    ("so 48/2 = 25 clips", "'48/2 = 25' does not hold: 24 against 25"),
    ("<<2*8=24>>24", "'2*8=24' does not hold: 16 against 24"),
    ("costs $1,000 - $1 = $998 now", "'1,000 - $1 = $998' does not hold: 999 against 998"),
    ("2/3 = 0.68", "'2/3 = 0.68' does not hold: 0.666667 against 0.68"),
    ("5 / 0 = 0", "'5 / 0 = 0' does not hold: it divides by zero"),
    ("20% * 50 = 1000", "'20% * 50 = 1000' does not hold: 10 against 1000"),
    ("10 + 5 = 15 * 2 = 30", "'10 + 5 = 15 * 2' does not hold: 15 against 30"),
    ("12 = 3 * 5", "'12 = 3 * 5' does not hold: 12 against 15"),
    ("fine: 1+1=2.\nNot: 1+2=4", "'1+2=4' does not hold: 3 against 4"),
    ("共3+4=8个", "'3+4=8' does not hold: 7 against 8"),
]
UNTOLD = [
    "3x + 2 = 11 and 3x - 2 = 11, x + 5 - 1 = 10, 2 + 2 = 5y, y = 4",
    "5 kg + 3 kg = 9 kg, 5 apples + 3 + 2 = 7, 2 hours * 60 = 3",
    "2^3 + 1 = 5, 2**3 + 1 = 5, 2 + 2^3 = 4, sqrt(9) + 1 = 5, f(3) = 4 + 4 = 8",
    "3:30 + 15 = 3:45, 0900-0130 = 0730",
    "1 1/2 = 9, 5 - 1 1/2 = 9, 3/2 = 1 1/2, 12 x 1 and 1/4 = 15, 7/2 = 3 R 1, 7/2 = 3 and a half",
    "half of 10 + 2 = 6, 20% of 50 = 10, twice 3 + 4 = 14",
    "Week 1 + Week 2 = 35 + 35, day 1 * 2 = 20, Weeks 1-2 = 50 - 20",
    "2 + 2 <= 5, 2 + 2 != 5, 2 + 3 => 4, a = b, 2 + 2 =",
    "3,5 + 1,5 = 5, 1.2.3 + 1 = 9, v2 + 2 = 5, covid-19 + 5 = 24",
    "$100+($100*(10/100) = $110, 2(3+4) = 9, 2 (3+4) = 9",
    "2 + 2 = 5 + x, 2 + 3 = 4 * y",
    f"{'9' * 50} + 1 = 2, 1 + {'9' * 50} = 2, 1 + 1 = {'9' * 50}, 1 + 1 = 2.{'9' * 50}",
    f"{'1+' * 500}1 = 2, {'(' * 90}1+1{')' * 90} = 3",
]


@pytest.mark.parametrize("text", [*HOLDING, *UNTOLD])
def test_equations_that_hold_or_cannot_be_told_pass(text: str) -> None:
    assert check_output([EQUATIONS], text) == ()


@pytest.mark.parametrize(("text", "message"), BREAKING)
def test_an_equation_that_does_not_hold_is_told_with_both_sides(text: str, message: str) -> None:
    assert [violation.message for violation in check_output([EQUATIONS], text)] == [message]


def test_the_tolerance_is_a_share_of_the_larger_side() -> None:
    assert check_output([ConsistencyRule(equations=True, tolerance=0.01)], "99 + 1 = 101") == ()
    assert len(check_output([ConsistencyRule(equations=True, tolerance=0.01)], "99 + 1 = 102")) == 1


OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "×": operator.mul, "/": operator.truediv}
numbers = st.integers(0, 10**7).map(lambda n: (f"{n:,}", Fraction(n))) | st.decimals(0, 10**4, places=2).map(
    lambda n: (f"{n}", Fraction(n))
)


def _combined(left: tuple[str, Fraction], sign: str, right: tuple[str, Fraction], gap: str) -> tuple[str, Fraction]:
    assume(sign != "/" or right[1])
    return f"({left[0]}{gap}{sign}{gap}{right[0]})", OPERATORS[sign](left[1], right[1])


expressions = st.recursive(
    numbers,
    lambda side: st.builds(_combined, side, st.sampled_from("+-*×/"), side, st.sampled_from(["", " "])),
    max_leaves=5,
).filter(lambda made: made[0].startswith("("))


@given(expressions, st.integers(0, 4), st.sampled_from(["{}", "so {} it is", "<<{}>>1", "Thus **{}**.", "为{}元"]))
def test_an_equation_that_holds_passes_and_one_shifted_by_a_last_digit_breaks(
    made: tuple[str, Fraction], places: int, frame: str
) -> None:
    written, value = made
    unit = Fraction(1, 10**places)
    for result, is_right in ((value, True), (value + 2 * unit, False), (value - 2 * unit, False)):
        nearest = round(result / unit)
        text = frame.format(f"{written[1:-1]} = {'-' * (nearest < 0)}{_decimal(abs(nearest), places)}")
        assert (check_output([EQUATIONS], text) == ()) is is_right, text


def _decimal(scaled: int, places: int) -> str:
    digits = f"{scaled:0{places + 1}}"
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


@given(st.fractions(-(10**6), 10**6), st.integers(0, 6))
def test_a_number_agrees_with_its_own_rounding_and_truncation(value: Fraction, places: int) -> None:
    unit = Fraction(1, 10**places)
    assert agrees(value, Stated(round(value / unit) * unit, places), tolerance=Fraction(0))
    if places:
        assert agrees(value, Stated(int(value / unit) * unit, places), tolerance=Fraction(0))
    assert not agrees(value, Stated(round(value / unit) * unit + 2 * unit, places), tolerance=Fraction(0))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", "1234.5"),
        (" -$3. ", "-3"),
        ("$-3", "-3"),
        ("(1,200)", "-1200"),
        ("12.5 %", "0.125"),
        ("¥30元", "30"),
        ("−.5", "-0.5"),
        ("twelve", None),
        ("1 2", None),
        ("", None),
        ("(5", None),
    ],
)
def test_a_stated_number_is_read_as_people_write_it(text: str, value: str | None) -> None:
    stated = read_stated(text)
    assert (stated and stated.value) == (value and Fraction(value))


PROFIT = ConsistencyRule(
    values={
        "revenue": StatedValue(regex=r"revenue (\S+)", place="prompt"),
        "cost": StatedValue(regex=r"cost (\S+)", place="prompt"),
        "net": StatedValue(regex=r"net: (\S+)"),
        "margin": StatedValue(regex=r"margin: (\S+)"),
    },
    checks=("net == revenue - cost", "margin == net / revenue"),
)
PROMPT = "revenue $1,500 cost $500.50"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("net: $999.50 margin: 66.6%", None),
        ("net: $999.50 margin: 0.67", None),
        ("net: 1,000 margin: 67%", None),  # rounded to the decimals shown
        (
            "net: 998 margin: 67%",
            "net == revenue - cost does not hold: 998 against 999.5, where revenue 1500, cost 500.5, net 998",
        ),
        (
            "net: 999.5 margin: 70%",
            "margin == net / revenue does not hold: 0.7 against 0.666333, where revenue 1500, net 999.5, margin 0.7",
        ),
        ("net: 999.5", r"no value margin: 'margin: (\\S+)' finds nothing in the answer"),
        ("net: none margin: 1", "no value net: 'net: none' in the answer holds no number in its group"),
    ],
)
def test_stated_values_are_checked_against_each_other(answer: str, message: str | None) -> None:
    found = [violation.message for violation in check_output([PROFIT], answer, prompt=PROMPT)]
    assert found == ([] if message is None else [message])


def test_a_value_missing_in_the_prompt_and_a_zero_denominator_are_faults() -> None:
    (missing,) = check_output([PROFIT], "net: 1 margin: 1")
    assert missing.message == r"no value revenue: 'revenue (\\S+)' finds nothing in the prompt"
    (divided,) = check_output([PROFIT], "net: 0 margin: 1", prompt="revenue 0 cost 0")
    assert divided.message == "margin == net / revenue divides by zero, where revenue 0, net 0, margin 1"


@pytest.mark.parametrize(
    ("check", "is_kept", "is_kept_within_half"),
    [("a <= b", True, True), ("a >= b", False, True), ("b == 2 * a", True, True), ("a >= 2 * b", False, False)],
)
def test_a_check_holds_exactly_or_within_the_tolerance(check: str, is_kept: bool, is_kept_within_half: bool) -> None:
    for tolerance, expected in ((0.0, is_kept), (0.5, is_kept_within_half)):
        written = {"values": {"a": "a(.)", "b": "b(.)"}, "checks": [check], "tolerance": tolerance}
        rule = ConsistencyRule.model_validate(written)
        assert (check_output([rule], "a1 b2") == ()) is expected


@pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not there")
def test_few_of_the_equations_of_gsm8k_are_accused() -> None:
    answers = [json.loads(line)["answer"] for line in GSM8K.read_text(encoding="utf-8").splitlines()[:2000]]
    accused = [answer for answer in answers if check_output([EQUATIONS], answer)]
    assert sum(len(re.findall("<<", answer)) for answer in answers) > 5000
    assert 1 <= len(accused) <= 10
