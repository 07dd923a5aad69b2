"""The checks behind `scheduler.output_spec`: does this text keep the task's rules?

Read on training answers and prompts (a row that breaks a rule is refused, or flagged) and on model outputs (the
automatic reviewer rejects them), so all sides are judged by the same words. A rule gives at most one violation, so
`1 - len(violations) / len(rules)` is the share of rules kept.

    forms        pattern, choices, length, template, json_schema
    words        citation, required, forbidden, terms
    numbers      decimals, and the values and checks of consistency
    equations    the equations of consistency
    language     language
    plugin       plugin
    check        one function a rule, made once and kept

Add one: a model in `scheduler.output_spec.OutputRule`, a function here that turns it into a `Judge`, a case in `check`.
"""

from train.data.rules.check import Violation, check_output, require_usable

__all__ = ["Violation", "check_output", "require_usable"]
