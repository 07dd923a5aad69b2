"""Judges of wording: citation, required, forbidden, terms. Each takes a rule and gives the function."""

import re
from collections.abc import Callable, Sequence

from scheduler.output_spec import CitationRule, ForbiddenRule, RequiredRule, TermsRule
from train.data.rules.judge import Judge, listed, quoted

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_CJK_LETTER = re.compile(f"[{_CJK}]")
_LETTER = rf"[^\W{_CJK}]"
_WORD = re.compile(f"{_LETTER}+")
_FEW = 50


def citation(rule: CitationRule) -> Judge:
    """An unknown citation is told before a missing one."""
    finditer = re.compile(rule.regex).finditer
    allowed = frozenset(rule.allowed)

    def judge(text: str, _prompt: str) -> str | None:
        citations = [found[0] for found in finditer(text)]
        unknown = [citation for citation in citations if citation not in allowed]
        if unknown:
            return f"cites {listed(unknown)}, not in the list of allowed documents"
        if len(citations) < rule.min_citations:
            return f"{len(citations)} citations, expected at least {rule.min_citations}"
        return None

    return judge


def required(rule: RequiredRule) -> Judge:
    """A phrase counts inside a longer word as well."""
    phrases = [phrase.casefold() for phrase in rule.phrases]

    def judge(text: str, _prompt: str) -> str | None:
        folded = text.casefold()
        if any(phrase in folded for phrase in phrases):
            return None
        return f"contains none of {listed(rule.phrases)}"

    return judge


def forbidden(rule: ForbiddenRule) -> Judge:
    """A phrase counts inside a longer word as well; phrases are told before regexes."""
    phrases = [(phrase, phrase.casefold()) for phrase in rule.phrases]
    regexes = [re.compile(regex) for regex in rule.regexes]

    def judge(text: str, _prompt: str) -> str | None:
        folded = text.casefold()
        if found := [phrase for phrase, folded_phrase in phrases if folded_phrase in folded]:
            return f"contains {listed(found)}"
        for regex in regexes:
            if match := regex.search(text):
                return f"{quoted(match[0])} matches the forbidden {regex.pattern!r}"
        return None

    return judge


def terms(rule: TermsRule) -> Judge:
    """The leftmost longest term or variant is read at each place, so a variant inside a canonical term is none.

    A canonical term in another case passes, unless that spelling is itself a variant. A Chinese, Japanese or Korean
    letter beside a word is not a part of it.
    """
    variants = {variant: canonical for canonical, known in rule.terms.items() for variant in known}
    phrases = sorted({*rule.terms, *variants}, key=lambda phrase: (-len(phrase), phrase not in variants))
    finditer = re.compile("|".join(f"({_as_found(phrase)})" for phrase in phrases), re.IGNORECASE).finditer
    may_hold_one = _containing([variant.casefold() for variant in variants])

    def judge(text: str, _prompt: str) -> str | None:
        if not may_hold_one(text.casefold()):  # the regex of a long dictionary is slow
            return None
        wrong = {
            match[0]: canonical
            for match in finditer(text)
            if match[0] not in rule.terms
            and (canonical := variants.get(phrases[(match.lastindex or 1) - 1])) is not None
        }
        if not wrong:
            return None
        named = [f"{quoted(found)} (write {quoted(canonical)})" for found, canonical in wrong.items()]
        return f"contains {', '.join(named[:5])}{f' and {len(named) - 5} more' if len(named) > 5 else ''}"

    return judge


def _containing(phrases: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text contains any of the phrases; many are looked for only where their first word is in the text."""
    if len(phrases) <= _FEW:
        return lambda text: any(phrase in text for phrase in phrases)
    by_start: dict[str, list[str]] = {}
    for phrase in phrases:
        by_start.setdefault(_start(phrase), []).append(phrase)

    def contains(text: str) -> bool:
        starts = by_start.keys() & {*_WORD.findall(text), *text}
        return any(phrase in text for start in starts for phrase in by_start[start])

    return contains


def _start(phrase: str) -> str:
    """The first word of a phrase that is found as whole words, the first character of any other."""
    word = None if _CJK_LETTER.search(phrase) else _WORD.match(phrase)
    return word[0] if word else phrase[0]


def _as_found(phrase: str) -> str:
    """A regex without groups: the phrase as whole words, or anywhere where its script does not part words."""
    regex = re.escape(phrase)
    return regex if _CJK_LETTER.search(phrase) else rf"(?<!{_LETTER}){regex}(?!{_LETTER})"
