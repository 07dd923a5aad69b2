from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsvc.scorers import exact_score, last_number, numeric_score, overlap_score, rules_score, score_text
from scheduler.output_spec import ChoicesRule, ForbiddenRule, LengthRule
from scheduler.task import ExactChecker, NumericChecker, OverlapChecker, RulesChecker

RULES = (ChoicesRule(values=("yes", "no")), LengthRule(max_chars=3), ForbiddenRule(phrases=("sorry",)))


def test_exact_ignores_outer_white_space_and_nothing_else():
    assert exact_score(" a b\n", "a b") == 1
    assert exact_score("A b", "a b") == 0
    assert exact_score("a  b", "a b") == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("first 3, then 4", "4"),
        ("total: 1,234.50.", "1234.50"),
        ("1,23", "23"),
        ("x = -3", "-3"),
        ("x = \u22123", "-3"),
        ("5-3", "3"),
        ("about .5", "0.5"),
        ("12 %", "12"),
        ("1.5e-3 m", "0.0015"),
        ("共12.5元", "12.5"),
        ("\uff11\uff12", "12"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text_is_read_as_people_write_it(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3))
def test_every_plain_decimal_is_read_back(number):
    assert last_number(f"so the answer is {number}.") == number
    assert last_number(f"so the answer is {number:,}.") == number


@settings(deadline=None)
@given(st.text())
def test_reading_a_number_never_fails(text):
    last_number(text)


def test_the_tolerance_is_inclusive_and_exact_in_decimals():
    assert numeric_score("0.36", "0.35", tolerance=0.01) == 1
    assert numeric_score("0.3600001", "0.35", tolerance=0.01) == 0
    assert numeric_score("42.0", "42", tolerance=0) == 1


def test_a_text_without_a_number_scores_zero():
    assert numeric_score("many", "3", tolerance=1) == 0
    assert numeric_score("3", "many", tolerance=1) == 0


def test_overlap_is_the_f1_of_words_with_repetition():
    assert overlap_score("the cat sat", "The cat slept!") == pytest.approx(2 / 3)
    assert overlap_score("no no no", "no") == pytest.approx(2 * 1 / 4)
    assert overlap_score("something else", "The cat") == 0


def test_overlap_counts_chinese_characters_as_words_of_their_own():
    assert overlap_score("退款需要三天", "退款需要五天") == pytest.approx(5 / 6)
    assert overlap_score("用GPU训练", "用 gpu 训练") == 1


def test_overlap_of_texts_without_words_compares_the_texts():
    assert overlap_score("", "") == 1
    assert overlap_score("?!", "?!") == 1
    assert overlap_score("?!", "...") == 0
    assert overlap_score("", "word") == 0


@settings(deadline=None)
@given(st.text(), st.text())
def test_overlap_is_symmetric_and_within_bounds(first, second):
    score = overlap_score(first, second)
    assert 0 <= score <= 1
    assert score == overlap_score(second, first)
    assert overlap_score(first, first) == 1


def test_the_rules_score_is_the_share_of_rules_kept():
    assert rules_score("yes", RULES) == 1
    assert rules_score("maybe", RULES) == pytest.approx(1 / 3)
    assert rules_score("sorry, no", RULES) == 0
    assert rules_score("anything", ()) == 1


@pytest.mark.parametrize(
    ("checker", "expected"),
    [(ExactChecker(), 0.0), (NumericChecker(tolerance=1), 1.0), (OverlapChecker(), 0.5), (RulesChecker(), 2 / 3)],
)
def test_each_checker_scores_by_its_own_measure(checker, expected):
    score = score_text(checker, answer="a 7", reference="a 8", rules=RULES)
    assert score == pytest.approx(expected)


def test_a_truncated_answer_is_never_exact_but_may_overlap():
    assert score_text(ExactChecker(), answer="a", reference="a", rules=()) == 1
    assert score_text(ExactChecker(), answer="a", reference="a", rules=(), truncated=True) == 0
    assert score_text(OverlapChecker(), answer="a", reference="a", rules=(), truncated=True) == 1
