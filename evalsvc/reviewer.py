"""The automatic reviewer: reads generated outputs and rejects those that break an output rule.

Its verdict is yes or no, where a score is a matter of degree: an answer may be wrong and pass (it keeps every rule), or
right and be rejected (it has four decimals where two are asked for). People's verdicts are in
`evalsvc.human_verdicts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.output_spec import OutputRule, binding_rules
from train.data.rules import check_output


@dataclass(frozen=True, slots=True)
class Review:
    """What the reviewer found in one task's outputs.

    Attributes:
        num_reviewed: Outputs read.
        num_rejected: Outputs that broke any rule that refuses, of whatever aspect.
        format_compliance: Share of the outputs read that kept every such rule of aspect `format`.
    """

    num_reviewed: int
    num_rejected: int
    format_compliance: float


def review(
    rules: Sequence[OutputRule],
    outputs: Sequence[str],
    *,
    truncated: Sequence[bool],
    prompts: Sequence[str] | None = None,
) -> Review:
    """Read every output.

    An output that is empty, or that was cut off because the model did not stop, breaks the format whatever the rules.
    A rule whose `on_break` is `flag` rejects nothing.

    Args:
        rules: The task's output rules; may be empty.
        outputs: Generated texts, at least one.
        truncated: For each output, whether it was cut off.
        prompts: For each output, the last turn it replies to, which `consistency` rules and plugins may read; without
            it they read "".

    Raises:
        ValueError: There is no output, or the lengths differ.
    """
    if not outputs:
        raise ValueError("there is no output to review")
    binding = binding_rules(rules)
    num_rejected = num_malformed = 0
    replied_to = [""] * len(outputs) if prompts is None else prompts
    for output, was_cut, prompt in zip(outputs, truncated, replied_to, strict=True):
        violations = check_output(binding, output, prompt=prompt)
        is_malformed = was_cut or not output.strip() or any(violation.aspect == "format" for violation in violations)
        num_malformed += is_malformed
        num_rejected += is_malformed or bool(violations)
    return Review(len(outputs), num_rejected, 1 - num_malformed / len(outputs))
