"""Rules in, violations out. Each rule is made into a function once, at its first text, and kept with the rule."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler.errors import ConfigError
from scheduler.output_spec import (
    Aspect,
    ChoicesRule,
    CitationRule,
    ConsistencyRule,
    DecimalsRule,
    ForbiddenRule,
    JsonSchemaRule,
    LanguageRule,
    LengthRule,
    OutputRule,
    PatternRule,
    PluginRule,
    RequiredRule,
    TemplateRule,
    TermsRule,
)
from train.data.rules import forms, language, numbers, plugin, words
from train.data.rules.judge import Judge

_MAX_KEPT = 4096
_kept: dict[int, tuple[OutputRule, Judge]] = {}
"""By the id of the rule, which is held so that no other object can get that id: a rule with a dict has no hash."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: its `type`, its aspect, what was found instead, and whether it is noted only (`flag`)."""

    rule: str
    aspect: Aspect
    message: str
    flag_only: bool = False


def check_output(rules: Sequence[OutputRule], answer: str, *, prompt: str = "") -> tuple[Violation, ...]:
    """The rules that `answer` breaks, in the order of `rules`; empty when it keeps them all.

    Args:
        rules: What the text must keep.
        answer: The text that is judged; for input rules the turn to be answered.
        prompt: The last turn the answer replies to, from which `consistency` rules and plugins may read.

    Raises:
        ConfigError: A rule needs something that is not installed; `require_usable` tells it before any row is read.
    """
    violations = []
    for rule in rules:
        kept = _kept.get(id(rule)) or _keep(rule)
        message = kept[1](answer, prompt)
        if message is not None:
            violations.append(Violation(rule.type, rule.aspect, message, rule.on_break == "flag"))
    return tuple(violations)


def require_usable(rules: Iterable[OutputRule], *, place: str) -> None:
    """Make every rule ready, so that whatever it needs from outside its own text is known to be there.

    Args:
        rules: The rules of one list.
        place: The setting they stand under, such as `tasks.credit.output_rules`.

    Raises:
        ConfigError: A plugin is not installed or cannot be imported, or a language is not known; names the setting.
    """
    for index, rule in enumerate(rules):
        try:
            _keep(rule)
        except ConfigError as error:
            raise ConfigError(f"{place}.{index}: {error}") from error


def _keep(rule: OutputRule) -> tuple[OutputRule, Judge]:
    if len(_kept) >= _MAX_KEPT:
        _kept.clear()
    return _kept.setdefault(id(rule), (rule, _judge(rule)))


def _judge(rule: OutputRule) -> Judge:  # noqa: C901 (one case a rule)
    match rule:
        case PatternRule():
            return forms.pattern(rule)
        case ChoicesRule():
            return forms.choices(rule)
        case LengthRule():
            return forms.length(rule)
        case TemplateRule():
            return forms.template(rule)
        case JsonSchemaRule():
            return forms.json_schema(rule)
        case DecimalsRule():
            return numbers.decimals(rule)
        case ConsistencyRule():
            return numbers.consistency(rule)
        case CitationRule():
            return words.citation(rule)
        case RequiredRule():
            return words.required(rule)
        case ForbiddenRule():
            return words.forbidden(rule)
        case TermsRule():
            return words.terms(rule)
        case LanguageRule():
            return language.language(rule)
        case PluginRule():
            return plugin.plugin(rule)
