"""What a decision did, in sentences and in parts: the wording that the report and the live views share.

The engine writes its own sentences into the ledger; these are the ones that need more than one record, or that a reader
wants in a fixed form. Nothing here decides or measures.
"""

from collections import defaultdict
from collections.abc import Iterable

from scheduler.explain import sentence
from scheduler.records import DecisionRecord, TaskDecision
from scheduler.setup import HeatConfig, WeightUnit

COMPONENTS = ("decay", "variance", "rejection", "gap")
_UNITS: dict[WeightUnit, str] = {"samples": "samples", "tokens": "supervised tokens"}


def heat_contributions(task: TaskDecision, config: HeatConfig) -> dict[str, float]:
    """Split a task's heat among its components, by configured weight times value; the parts sum to the heat.

    The split is of the components of this evaluation; smoothing may carry heat over from earlier ones, which is split
    in the same proportion. With no component above zero the heat (all of it carried over) is split by weight alone.
    """
    weight = {name: getattr(config, f"{name}_weight") for name in COMPONENTS}
    parts = {name: weight[name] * getattr(task, name) for name in COMPONENTS}
    if not sum(parts.values()) > 0:
        parts = weight
    total = sum(parts.values())
    return {name: task.heat * part / total for name, part in parts.items()}


def change_sentence(decision: DecisionRecord, task: TaskDecision) -> str:
    """Say which plan moved one task's weight, how far and why."""
    plan = decision.plan
    return f"Plan {plan.version}, from the evaluation at step {plan.source_step}: {sentence(task)}"


def guard_sentences(decisions: Iterable[DecisionRecord]) -> list[str]:
    """One sentence a guard: which tasks it held, in how many plans, and how far at most from what the policy asked."""
    tasks: dict[str, set[str]] = defaultdict(set)
    versions: dict[str, set[int]] = defaultdict(set)
    furthest: dict[str, TaskDecision] = {}
    for decision in decisions:
        for task in decision.tasks:
            if not task.held_by:
                continue
            tasks[task.held_by].add(task.task)
            versions[task.held_by].add(decision.plan.version)
            furthest[task.held_by] = max(furthest.get(task.held_by, task), task, key=_distance)
    sentences = []
    for guard in sorted(versions, key=lambda guard: -len(versions[guard])):
        who, worst = _listed(sorted(tasks[guard])), furthest[guard]
        sentences.append(
            f"The guard “{guard}” bounded {who} in {_counted(len(versions[guard]), 'plan')}; furthest {worst.task}: "
            f"{worst.target_weight:.1%} asked, {worst.weight_after:.1%} given."
        )
    return sentences


def unit_in_words(unit: WeightUnit) -> str:
    """What a weight or share is a share of."""
    return _UNITS[unit]


def seconds_in_words(seconds: float) -> str:
    """`7 s`, `3 min 05 s`, `2 h 04 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _distance(task: TaskDecision) -> float:
    return abs(task.target_weight - task.weight_after)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
