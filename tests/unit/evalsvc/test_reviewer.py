import pytest

from evalsvc.reviewer import Review, review
from scheduler.output_spec import ConsistencyRule, ForbiddenRule, LengthRule

RULES = (LengthRule(max_chars=5), ForbiddenRule(phrases=("secret",)))


def test_an_output_that_breaks_any_rule_is_rejected_and_only_format_rules_touch_compliance():
    outputs = ["fine", "too long", "secret", "ok"]
    assert review(RULES, outputs, truncated=[False] * 4) == Review(4, 2, 0.5)
    assert review(RULES[1:], outputs, truncated=[False] * 4) == Review(4, 1, 1.0)


def test_a_truncated_or_empty_output_breaks_the_format_even_without_rules():
    assert review((), ["fine", "cut", " \n", ""], truncated=[False, True, False, False]) == Review(4, 3, 0.25)


def test_an_output_is_rejected_once_however_much_it_breaks():
    assert review(RULES, ["a long secret"], truncated=[True]) == Review(1, 1, 0.0)


def test_reviewing_nothing_or_uneven_lists_is_an_error():
    with pytest.raises(ValueError, match="no output"):
        review(RULES, [], truncated=[])
    with pytest.raises(ValueError, match="shorter"):
        review(RULES, ["a", "b"], truncated=[False])


def test_a_rule_that_flags_rejects_nothing():
    flagging = (LengthRule(max_chars=5, on_break="flag"), *RULES[1:])
    assert review(flagging, ["too long", "secret"], truncated=[False] * 2) == Review(2, 1, 1.0)


def test_a_rule_may_read_the_prompt_that_each_output_replies_to():
    rule = ConsistencyRule.model_validate(
        {
            "values": {"asked": {"regex": r"of (\d+)", "place": "prompt"}, "half": r"(\d+)"},
            "checks": ["half == asked / 2"],
        }
    )
    prompts = ["half of 10?", "half of 8?"]
    assert review([rule], ["5", "5"], truncated=[False] * 2, prompts=prompts) == Review(2, 1, 1.0)
    with pytest.raises(ValueError, match="shorter"):
        review([rule], ["5", "5"], truncated=[False] * 2, prompts=prompts[:1])
