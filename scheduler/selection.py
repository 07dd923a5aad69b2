"""Which checkpoint is the best: a ranking by scores on rows that steer nothing and are tested by nothing.

The scores come from the selection set, held out for this choice alone: the probes steer the mixture, so a checkpoint
chosen by them would be chosen by how well the mixture was steered towards them, and the test rows are read once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SelectionRule = Literal["worst", "macro", "last"]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A measured step and, in words, what it is judged by."""

    step: int
    why: str


def ranking(scores: Mapping[int, Mapping[str, float]], rule: SelectionRule) -> list[Ranked]:
    """Steps from best to worst.

    Args:
        scores: Score in [0, 1] per task on the selection set, by step. A step without any is left out.
        rule: `worst` by the worst task (ties by the mean), `macro` by the mean over tasks (ties by the worst), `last`
            by the step itself. What is still equal goes to the earlier step: the later one gained nothing.
    """
    measured = {step: own for step, own in scores.items() if own}
    if rule == "last":
        return [Ranked(step, "it is the newest") for step in sorted(measured, reverse=True)]
    worst_first = rule == "worst"

    def key(step: int) -> tuple[float, float, int]:
        own = measured[step].values()
        worst, mean = min(own), sum(own) / len(own)
        return (worst, mean, -step) if worst_first else (mean, worst, -step)

    return [
        Ranked(step, _in_words(measured[step], worst_first=worst_first, rivals=len(measured)))
        for step in sorted(measured, key=key, reverse=True)
    ]


def _in_words(own: Mapping[str, float], *, worst_first: bool, rivals: int) -> str:
    worst = min(own, key=lambda task: (own[task], task))
    mean = sum(own.values()) / len(own)
    judged = f"its worst task {worst} scores {own[worst]:.3f}, the mean is {mean:.3f}"
    if not worst_first:
        judged = f"the mean over tasks is {mean:.3f}, its worst task {worst} scores {own[worst]:.3f}"
    return f"{judged} on the selection set; {rivals} step{'' if rivals == 1 else 's'} measured"
