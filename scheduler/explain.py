"""Decisions in words: which signal moved which weight, and which guard held it back.

A policy that does not go by heat names its own statistic (`TaskDecision.driver`).
"""

from collections.abc import Sequence
from heapq import nlargest

from scheduler.learnability import Recognised
from scheduler.progression import Step
from scheduler.records import Freeze, LevelMove, RollbackRecord, TaskDecision
from scheduler.signals import TaskSignal

_MIN_MOVE = 0.005
_COMPONENTS = {
    "gap": "gap to target",
    "decay": "falling score",
    "variance": "unsteady outputs",
    "rejection": "rejected outputs",
}
_HELD_WORDS = {
    "step limit": "the step limit let it go no further towards {target:.1%}",
    "floor": "the floor kept it from falling to {target:.1%}",
    "ceiling": "the ceiling kept it from {target:.1%}",
    "epoch cap": "the epoch cap kept it from {target:.1%}: its rows would be repeated too often",
    "core hold": "as a core task it is held at its prior share (the policy asked for {target:.1%})",
    "overfit freeze": "it is frozen at its floor: its held-out loss had risen for good while its score had not",
    "overfit guard": "it is cooled because its held-out loss rises while its score does not",
}


_STATE_WORDS = {
    "warm-up": "weights are held at the prior",
    "stage 1": "its policy moves the weights",
    "transition": "the policy of stage 2 moves the weights, by small steps only",
    "stage 2": "its policy moves the weights",
    "late": "the weights move by small steps only",
    "frozen": "nothing moves any more",
}


BROUGHT_WITHIN_BOUNDS = (
    "Floor and ceiling are others from this plan on: the weights were brought within them first, in one step."
)


def sentences(tasks: Sequence[TaskDecision], *, held: str | None, limit: int = 3) -> tuple[str, ...]:
    """The decision's largest moves, largest first, at most `limit`; or why nothing moved."""
    if held is not None:
        return (f"Weights kept: {held}.",)
    moved = nlargest(limit, tasks, key=_move)
    words = tuple(sentence(task) for task in moved if _move(task) >= _MIN_MOVE)
    return words or ("No weight moved by half a point or more.",)


def step_sentences(step: Step, effective_step: int, *, limit: int = 8) -> tuple[str, ...]:
    """What changes beside the weights from `effective_step` on: state, frozen tasks, difficulty levels."""
    changes = [*map(freeze_sentence, step.frozen), *map(level_sentence, step.levels)]
    words = changes[:limit]
    if len(changes) > limit:
        words.append(f"{len(changes) - limit} more tasks change their difficulty levels or are frozen.")
    if step.state is not None:
        words.insert(0, state_sentence(step.state, effective_step))
    return tuple(words)


def state_sentence(state: str, effective_step: int) -> str:
    """The state that begins with a plan."""
    return f"From step {effective_step} on the run is in the state {state}: {_STATE_WORDS[state]}."


def level_sentence(move: LevelMove) -> str:
    """A change of a task's open levels, with its numbers; levels are counted from 1."""
    text = f"{move.task} is {move.kind} to {_levels(move.order, *move.window)} of {len(move.order)}"
    if move.kind == "opened":
        return f"{text}: it was not promoted so far in time."
    bound, sign = ("lower", ">") if move.kind == "promoted" else ("upper", "<")
    text += (
        f": {move.num_successes:g} of {move.num_probes} probes of its open levels right, Wilson {bound} bound "
        f"{move.bound:.2f} {sign} {move.threshold:.2f} in {move.num_evaluations} evaluations in a row"
    )
    if move.order != move.order_before:
        places = ", ".join(str(level + 1) for level in move.order)
        text += f"; by the model's own results its levels from easy to hard are now {places}"
    return text + "."


def _levels(order: Sequence[int], first: int, last: int) -> str:
    levels = [str(level + 1) for level in order[first : last + 1]]
    return f"level {levels[0]}" if len(levels) == 1 else f"levels {', '.join(levels[:-1])} and {levels[-1]}"


def freeze_sentence(freeze: Freeze) -> str:
    """Why a task was taken out, with its numbers."""
    return (
        f"{freeze.task} is frozen: its held-out loss, {freeze.loss:.3f}, was above its best, {freeze.best_loss:.3f}, "
        f"in {freeze.num_evaluations} evaluations in a row; its weight goes to its floor and stays there."
    )


def rollback_sentence(rollback: RollbackRecord) -> str:
    """Where the run goes back to, and for whose sake."""
    who = ", ".join(rollback.tasks)
    are = "are past their peaks" if len(rollback.tasks) > 1 else "is past its peak"
    where = f"the checkpoint at step {rollback.to_step}" if rollback.to_step else "its beginning"
    return f"{who} {are}: the run goes back to {where} and goes on without."


def stays_sentence(why: str) -> str:
    """A run that was to go back before a peak and cannot."""
    return f"The run does not go back before the peak: {why}."


def sentence(task: TaskDecision) -> str:
    """One task's move and its reasons."""
    falls = task.weight_after < task.weight_before
    direction = "falls" if falls else "rises" if task.weight_after > task.weight_before else "stays"
    text = f"{task.task} {direction} {task.weight_before:.1%} → {task.weight_after:.1%}: {task.driver or _heat(task)}"
    if falls and task.target_weight >= task.weight_before and not task.held_by:
        text += ", the bounds of other tasks take the room"
    elif falls and not task.driver and task.learnability == 1.0 and task.held_by != "overfit guard":
        text += ", others are hotter"
    if task.noise_since is not None:
        text += f"; {_noise(task)}"
    elif not task.driver and task.learnability < 0.995:
        text += f"; exposure brings little progress, so its heat counts {task.learnability:.0%}"
    if task.solved_since is not None:
        text += f"; solved since step {task.solved_since}"
    if task.held_by == "step limit" and _moves_off(task):
        text += "; the bounds of other tasks move it, as fast as the step limit allows"
    elif task.held_by:
        text += f"; {_HELD_WORDS[task.held_by].format(target=task.target_weight)}"
    return text + "."


def _moves_off(task: TaskDecision) -> bool:
    """Whether the weight went the other way than the policy asked for."""
    asked, moved = task.target_weight - task.weight_before, task.weight_after - task.weight_before
    return asked * moved <= 0.0 and moved != 0.0


def measured(signal: TaskSignal, before: TaskSignal | None) -> str:
    """What an evaluation found of a task, and how score and loss changed since the signal `before`, if there is one."""
    score, loss = f"score {signal.score:.3f} on {signal.num_probes} probes", f"held-out loss {signal.loss:.3f}"
    if before is not None:
        score += f" ({signal.score - before.score:+.3f})"
        loss += f" ({signal.loss - before.loss:+.3f})"
    text = f"{score}, {loss}"
    if signal.num_reviewed:
        compliance = f"{signal.format_compliance:.0%} in the right format"
        text += f"; of {signal.num_reviewed} answers reviewed {signal.num_rejected} rejected, {compliance}"
    if signal.num_human_reviewed:
        text += f"; people rejected {signal.num_human_rejected} of {signal.num_human_reviewed}"
    return text + "."


def recognised_as(task: TaskDecision) -> str | None:
    """What the task was recognised as, in a clause; None where it is neither noise nor solved."""
    if task.noise_since is not None:
        return _noise(task)
    return None if task.solved_since is None else f"solved since step {task.solved_since}"


def recognitions(tasks: Sequence[TaskDecision], before: Recognised) -> tuple[str, ...]:
    """One sentence for every task whose standing changed with this decision."""
    words: list[str] = []
    for task, noise_before, solved_before in zip(tasks, *before, strict=True):
        if task.noise_since is not None and noise_before is None:
            words.append(f"{task.task} is recognised as {_noise(task)}.")
        elif task.noise_since is None and noise_before is not None:
            words.append(f"{task.task} makes progress again and is no longer taken for noise.")
        if task.solved_since is not None and solved_before is None:
            words.append(f"{task.task} is solved since step {task.solved_since}: its score is at its target.")
        elif task.solved_since is None and solved_before is not None:
            words.append(f"{task.task} is no longer solved: its score is below its target again.")
    return tuple(words)


def _noise(task: TaskDecision) -> str:
    return (
        f"noise, or out of reach: more exposure brought no progress since step {task.noise_since}; "
        f"its heat counts {task.learnability:.0%}"
    )


def _heat(task: TaskDecision) -> str:
    """Heat and its largest components."""
    reasons = [
        f"{label} {getattr(task, name):.2f}"
        for name, label in sorted(_COMPONENTS.items(), key=lambda item: -getattr(task, item[0]))
        if getattr(task, name) >= 0.1
    ]
    return f"heat {task.heat:.2f}" + (f" ({', '.join(reasons[:3])})" if reasons else "")


def _move(task: TaskDecision) -> float:
    return abs(task.weight_after - task.weight_before)
