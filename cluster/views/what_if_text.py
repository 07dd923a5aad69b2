"""What `taskheat replay RUN --policy OTHER.yaml` prints: two mixtures side by side, as text or JSON."""

import dataclasses
import json
from collections.abc import Iterator, Sequence

from cluster.what_if import DecisionDifference, TaskDifference, WhatIf

_MOST_TASKS = 30
_MOST_DECISIONS = 20


def what_if_json(found: WhatIf) -> str:
    """Indented JSON: every decision with both weights of every task."""
    return json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=1)


def what_if_text(found: WhatIf) -> str:
    """What differs in the settings, who gains and who loses, decision by decision, and what this cannot tell."""
    return "\n".join([*_changes(found), "", *_table(_tasks(found)), "", *_table(_decisions(found)), "", found.note])


def _changes(found: WhatIf) -> Iterator[str]:
    yield "changed: " + ("; ".join(found.changed) or "nothing")
    yield (
        f"{len(found.decisions)} decisions; the plans differ by {found.mean_total_variation:.1%} of the mixture on "
        f"average, by {max(one.total_variation for one in found.decisions):.1%} at most (total variation)"
    )
    for name, held in (("this run", found.held_by), ("the other", found.other_held_by)):
        yield f"held back in {name}: " + (", ".join(f"{guard} {count}x" for guard, count in held.items()) or "nothing")


def _tasks(found: WhatIf) -> Iterator[tuple[str, ...]]:
    yield ("task", "mean share", "other", "change", "last share", "other")
    half = _MOST_TASKS // 2
    tasks = found.tasks
    for task in tasks if len(tasks) <= _MOST_TASKS else (*tasks[:half], *tasks[-half:]):
        yield (task.task, *_shares(task))
    if len(tasks) > _MOST_TASKS:
        yield (f"… {len(tasks) - _MOST_TASKS} tasks between (--json has all)", "", "", "", "", "")


def _shares(task: TaskDifference) -> tuple[str, ...]:
    last = (f"{task.last:.1%}", f"{task.other_last:.1%}")
    return f"{task.mean:.1%}", f"{task.other_mean:.1%}", f"{100 * task.gain:+.1f}", *last


def _decisions(found: WhatIf) -> Iterator[tuple[str, ...]]:
    yield ("evaluation", "in force", "differs by", "gains most", "loses most", "stage")
    shown = found.decisions[:: max(1, -(-len(found.decisions) // _MOST_DECISIONS))]
    for one in shown:
        gains = [theirs - ours for ours, theirs in zip(one.weights, one.other_weights, strict=True)]
        most, least = (_extreme(found.task_names, gains, sign) for sign in (1, -1))
        steps = (str(one.source_step), str(one.effective_from_step))
        yield (*steps, f"{one.total_variation:.1%}", most, least, _stage(one))
    if len(shown) < len(found.decisions):
        yield (f"({len(shown)} of {len(found.decisions)} shown; --json has all)", "", "", "", "", "")


def _extreme(names: Sequence[str], gains: Sequence[float], sign: int) -> str:
    index = max(range(len(gains)), key=lambda task: sign * gains[task])
    return f"{names[index]} {100 * gains[index]:+.1f}" if sign * gains[index] > 0 else "nobody"


def _stage(one: DecisionDifference) -> str:
    words = f"{one.stage}" if one.stage == one.other_stage else f"{one.stage}, other {one.other_stage}"
    return f"{words} (held: {one.other_held})" if one.other_held else words


def _table(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """First column to the left, the last one as it is, the others to the right."""
    cells = list(rows)
    widths = [max(len(row[place]) for row in cells if row[1]) for place in range(len(cells[0]))]
    for row in cells:
        if not row[1]:
            yield f"  {row[0]}"
            continue
        right = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        yield "  ".join(["", row[0].ljust(widths[0]), *right, row[-1]]).rstrip()
