"""Judges of form: pattern, choices, length, template, json_schema. Each takes a rule and gives the function."""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from scheduler.output_spec import ChoicesRule, JsonSchemaRule, LengthRule, PatternRule, TemplateRule
from scheduler.rule_syntax import TemplatePart, parse_template
from train.data.rules.judge import Judge, listed, quoted


def pattern(rule: PatternRule) -> Judge:
    """White space at the ends counts."""
    fullmatch = re.compile(rule.regex, re.DOTALL).fullmatch

    def judge(text: str, _prompt: str) -> str | None:
        return None if fullmatch(text) else f"{quoted(text)} does not match {rule.regex!r}"

    return judge


def choices(rule: ChoicesRule) -> Judge:
    """Case counts, white space at the ends does not."""
    values = frozenset(rule.values)

    def judge(text: str, _prompt: str) -> str | None:
        return None if text.strip() in values else f"{quoted(text)} is none of {listed(rule.values)}"

    return judge


def length(rule: LengthRule) -> Judge:
    """White space at the ends is not counted."""

    def judge(text: str, _prompt: str) -> str | None:
        num_chars = len(text.strip())
        if rule.min_chars <= num_chars <= rule.max_chars:
            return None
        return f"{num_chars} characters, expected {rule.min_chars} to {rule.max_chars}"

    return judge


def template(rule: TemplateRule) -> Judge:
    """The message says which piece of the template is the first that nothing in the text stands for.

    White space at the ends counts for neither the template nor the text.
    """
    parts = parse_template(rule.template.strip())
    fullmatch = _joined(parts, end=r"\s*").fullmatch

    @cache
    def up_to(num_parts: int) -> re.Pattern[str]:
        return _joined(parts[:num_parts])

    def judge(text: str, _prompt: str) -> str | None:
        if fullmatch(text):
            return None
        for num_parts in range(len(parts), 0, -1):
            if found := up_to(num_parts).match(text):
                expected = quoted(parts[num_parts].written) if num_parts < len(parts) else "the end"
                return f"does not fit the template: expected {expected} at {quoted(text[found.end() :])}"
        return f"does not fit the template: expected {quoted(parts[0].written)} at {quoted(text)}"

    return judge


def _joined(parts: Sequence[TemplatePart], end: str = "") -> re.Pattern[str]:
    return re.compile(rf"\s*{''.join(part.regex for part in parts)}{end}", re.DOTALL)


def json_schema(rule: JsonSchemaRule) -> Judge:
    """Of several faults the message gives the most telling, with its path in the JSON ($ is the whole)."""
    from jsonschema.exceptions import best_match

    from scheduler.json_schema import compile_schema

    validator = compile_schema(rule.definition)

    def judge(text: str, _prompt: str) -> str | None:
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            error = best_match(validator.iter_errors(value))
        except RecursionError:
            return "not judged: the JSON is nested too deeply"
        except ValueError as error:
            return f"not JSON: {error}"
        return None if error is None else f"at {error.json_path}: {_short(error.message)}"

    return judge


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _short(message: str) -> str:
    return message if len(message) <= 200 else message[:200] + "…"
