"""Rules that need something from outside: the language model of py3langid, and installed plugins."""

import sys
from pathlib import Path

import pytest

from scheduler.errors import ConfigError
from scheduler.output_spec import LanguageRule, LengthRule, PluginRule
from train.data.rules import check_output, require_usable

ENGLISH, CHINESE = LanguageRule(allowed=("en",)), LanguageRule(allowed=("zh",), min_chars=5)
MODULE = """
def no_mail(text, prompt, options):
    if "@" in text and options.get("strict"):
        return f"holds a mail address, asked {prompt!r}"
    return None

def wrong(text, prompt, options):
    return bool(text)

number = 7
"""


@pytest.mark.parametrize(
    ("rule", "text", "is_kept"),
    [
        (ENGLISH, "The borrower has not paid the last three instalments.", True),
        (ENGLISH, "Der Kreditnehmer hat die letzten drei Raten nicht bezahlt.", False),
        (ENGLISH, "借款人没有支付最近三期的款项，银行决定收回全部剩余贷款本金。", False),
        (ENGLISH, "Nicht bezahlt.", True),  # too short to tell
        (ENGLISH, "12,500.00 / 48 = 260.42; 3 * 260.42 = 781.26 (x, y)", True),  # too few letters
        (LanguageRule(allowed=("en", "de")), "Der Kreditnehmer hat die letzten drei Raten nicht bezahlt.", True),
        (ENGLISH, "Shells:80(.95)=76\nOpened Shells:76(.75)=57\n#### 57, 80(.95)=76(.75)=57, so 57", True),
        (CHINESE, "这是一个 machine learning 模型，用于信用评分", True),
        (CHINESE, "この会社の格付けはとても良いです", False),
        (CHINESE, "The rating is good", False),
        (LanguageRule(allowed=("en",), min_probability=1.0), "A short text in the English language.", False),
    ],
)
def test_the_language_is_told_where_it_can_be(rule: LanguageRule, text: str, is_kept: bool) -> None:
    assert (check_output([rule], text) == ()) is is_kept


def test_the_message_names_the_likeliest_language_and_the_allowed_ones() -> None:
    (violation,) = check_output([ENGLISH], "Der Kreditnehmer hat die letzten drei Raten nicht bezahlt.")
    assert violation.message.startswith("reads as de (probability ")
    assert violation.message.endswith("en has 0.00, expected at least 0.1")


def test_an_unknown_language_is_refused_by_its_place_before_any_row_is_read() -> None:
    rules = (LengthRule(), LanguageRule(allowed=("en", "qx")))
    with pytest.raises(ConfigError, match=r"^tasks\.a\.output_rules\.1: language qx cannot be told; .* en, "):
        require_usable(rules, place="tasks.a.output_rules")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path that offers rules, as pip would have left it there."""
    (tmp_path / "acme_rules.py").write_text(MODULE)
    metadata = tmp_path / "acme_rules-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[taskheat.rules]\nno_mail = acme_rules:no_mail\nwrong = acme_rules:wrong\n"
        "gone = acme_rules:gone\nnumber = acme_rules:number\nlost = acme_lost:rule\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "acme_rules", raising=False)


@pytest.mark.usefixtures("installed")
def test_a_plugin_judges_text_prompt_and_options() -> None:
    strict, lax = PluginRule(name="no_mail", options={"strict": True}), PluginRule(name="no_mail", on_break="flag")
    require_usable((strict, lax), place="here")
    assert check_output([strict, lax], "write to us") == ()
    (violation,) = check_output([strict, lax], "a@b.c", prompt="Your mail?")
    assert (violation.rule, violation.message) == ("plugin", "holds a mail address, asked 'Your mail?'")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_email", r"'no_email' is not installed \(installed under taskheat\.rules: .*no_mail, number, wrong\)"),
        ("gone", r"'gone' \(acme_rules:gone\) cannot be imported"),
        ("lost", r"'lost' \(acme_lost:rule\) cannot be imported: No module named 'acme_lost'"),
        ("number", r"'number' \(acme_rules:number\) is int, not a function"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_before_any_row_is_read(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^input_rules\.0: rule plugin {complaint}"):
        require_usable((PluginRule(name=name),), place="input_rules")


@pytest.mark.usefixtures("installed")
def test_a_plugin_that_returns_no_words_is_told() -> None:
    with pytest.raises(ConfigError, match=r"'wrong' \(acme_rules:wrong\) returned 'True'; it must return"):
        check_output([PluginRule(name="wrong")], "text")
