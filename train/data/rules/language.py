"""The judge of `language`, by py3langid: 140 languages told apart by byte n-grams, in numpy, without a download.

Its probabilities are softened for short texts. ASCII digits and punctuation are left out before it reads: they say
nothing of the language and make it less sure of it. The model takes half a second to load, once a process, when the
first `language` rule is made ready.
"""

import re
from functools import cache
from typing import TYPE_CHECKING

from scheduler.errors import ConfigError
from scheduler.output_spec import LanguageRule
from train.data.rules.judge import Judge

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_ASCII_SIGNS = re.compile("[\x00-@\\[-`{-\x7f]+")
_MEMBERS = {
    "zh": ("wuu", "yue"),
    "ar": ("ary", "arz"),
    "no": ("nn",),
    "ku": ("sdh",),
    "uz": ("uzs",),
}
"""Macrolanguages of ISO 639-3, and those of their members that the model names apart."""


def language(rule: LanguageRule) -> Judge:
    """A text with fewer than `min_chars` letters passes; the message names the likeliest language.

    Raises:
        ConfigError: py3langid is not installed, or does not know one of the languages.
    """
    identifier = _identifier()
    known = set(identifier.labels)
    if unknown := sorted(set(rule.allowed) - known):
        raise ConfigError(f"language {', '.join(unknown)} cannot be told; those that can: {', '.join(sorted(known))}")
    allowed = {member for code in rule.allowed for member in (code, *_MEMBERS.get(code, ()))}

    def judge(text: str, _prompt: str) -> str | None:
        if len(text) < rule.min_chars or sum(map(str.isalpha, text)) < rule.min_chars:
            return None
        ranking = identifier.rank(_ASCII_SIGNS.sub(" ", text))
        probability = sum(share for code, share in ranking if code in allowed)
        if probability >= rule.min_probability:
            return None
        likeliest, share = ranking[0]
        return (
            f"reads as {likeliest} (probability {share:.2f}); {', '.join(rule.allowed)} has {probability:.2f}, "
            f"expected at least {rule.min_probability:g}"
        )

    return judge


@cache
def _identifier() -> "LanguageIdentifier":
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise ConfigError("a language rule needs py3langid; pip install py3langid, or drop the rule") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
