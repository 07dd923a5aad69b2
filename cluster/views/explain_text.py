"""What `taskheat explain` prints: plain text for a person, JSON for a program."""

import dataclasses
import json
from collections.abc import Iterator

from cluster.explain import Explanation

_MOST_TASKS = 40


def explanation_json(found: Explanation) -> str:
    """Indented JSON of all that is known, every task included."""
    return json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=1)


def explanation_text(found: Explanation) -> str:
    """A heading, what moved and what held, every task, and what else happened."""
    return "\n".join([*_heading(found), *_tasks(found), *_events(found)])


def _heading(found: Explanation) -> Iterator[str]:
    plan = found.plan
    began, ended = found.in_force_from, found.in_force_until
    span = f"in force from step {began} to {ended}" if ended > began else f"taken up at step {began}"
    yield f"step {found.step} of {found.total_steps}: plan {plan.version}, {span}"
    if plan.source_step < 0:
        yield "  the initial plan: no evaluation had been decided on"
    else:
        yield f"  decided on the evaluation at step {plan.source_step} by policy {found.policy}"
    yield f"  {found.stage}"
    yield from _exposure(found)
    if found.held is not None:
        yield f"  nothing moved: {found.held}"
    elif plan.source_step >= 0:
        limit = f"the step limit allows {found.max_change:.1%}"
        yield f"  moved {found.moved:.1%} of the mixture (total variation); {limit}"
    if found.held_by:
        yield "  held back: " + ", ".join(f"{_tasks_of(count)} by the {guard}" for guard, count in _most(found))


def _exposure(found: Explanation) -> Iterator[str]:
    """Arrangement and levels, where they are not the plain ones."""
    single, chain, contrast = found.plan.arrangement
    if chain or contrast:
        yield f"  offered alone {single:.0%}, in a chain {chain:.0%}, beside a contrast {contrast:.0%}"
    if found.plan.windows and found.plan.replay_ratio:
        yield f"  {found.plan.replay_ratio:.0%} of each task's samples come from the levels below its window"


def _tasks(found: Explanation) -> Iterator[str]:
    for move in found.tasks[:_MOST_TASKS]:
        yield f"  {move.why}"
        yield f"      {move.found}"
    left = len(found.tasks) - _MOST_TASKS
    if left > 0:
        yield f"  … and {_tasks_of(left)} that moved less (--task NAME, or --json, tells of each)"


def _events(found: Explanation) -> Iterator[str]:
    if found.events:
        yield "  meanwhile:"
        yield from (f"      {text}" for text in found.events)
    elif found.plan.source_step >= 0:
        yield "  no signal was refused, no plan was late and no snapshot skipped"


def _most(found: Explanation) -> list[tuple[str, int]]:
    return sorted(found.held_by.items(), key=lambda item: -item[1])


def _tasks_of(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
