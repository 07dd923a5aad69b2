"""Which task the model really learnt from: the influence share of every task beside its nominal share.

    pull_k       norm times cosine of the task's gradient with the applied update (`scheduler.signals.TaskGradient`);
                 between two measurements the last one holds, before the first the first
    influence    of an interval: steps · (tokens of the task / tokens of the interval) · pull_k: the part of the descent
                 along the applied updates that came from the task's own samples, per unit of their length
    share        sum over the run, as a share of the positive sums; 0 for a task that was pulled against on the whole

    error        standard error of the share: measurements of a task scatter about each other (half the mean square of
                 successive differences is the variance of one), and their mean by that over the root of their number

A single measurement on eight rows says next to nothing. A main task is named, and a difference pointed out, only where
the standard errors allow it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalsvc.report.history import RunHistory
from scheduler.signals import TaskGradient

_FEWEST = 3
_LEADS_BY = 1.5
_DIFFERS_BY = 0.05


@dataclass(frozen=True, slots=True)
class TaskInfluence:
    """One task over the run: shares in [0, 1], means over its measurements; no error from less than three of them."""

    share: float
    share_error: float | None
    nominal_share: float
    mean_norm: float
    mean_cosine: float
    num_measurements: int


@dataclass(frozen=True, slots=True)
class Influence:
    """All measured tasks (none in a run that measured nothing), the de-facto main task, and what there is to say."""

    tasks: dict[str, TaskInfluence]
    main_task: str | None
    sentences: tuple[str, ...]


def measure_influence(history: RunHistory) -> Influence:
    """From the gradients in the surviving boundaries of a run."""
    names = history.task_names
    gradients = [gradient for boundary in history.boundaries for gradient in boundary.report.gradients]
    by_task = {name: [gradient for gradient in gradients if gradient.task == name] for name in names}
    if not gradients:
        return Influence({}, None, ())
    sums, exposure, samples = _sums(history, by_task)
    positive = np.maximum(sums, 0.0)
    total = float(positive.sum())
    shares = positive / total if total > 0.0 else np.zeros_like(positive)
    tasks = {
        name: TaskInfluence(
            share=float(shares[index]),
            share_error=_share_error(by_task[name], float(exposure[index]), total),
            nominal_share=float(samples[index] / max(samples.sum(), 1.0)),
            mean_norm=float(np.mean([one.norm for one in by_task[name]])),
            mean_cosine=float(np.mean([one.cosine for one in by_task[name]])),
            num_measurements=len(by_task[name]),
        )
        for index, name in enumerate(names)
        if by_task[name]
    }
    main = max(tasks, key=lambda name: tasks[name].share) if total > 0.0 else None
    return Influence(tasks, main, _sentences(tasks, main))


def _sums(
    history: RunHistory, by_task: dict[str, list[TaskGradient]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Influence summed over the run, steps times token share, and samples served, of every task [K]."""
    num_tasks = len(history.task_names)
    sums, exposure, before, start = np.zeros(num_tasks), np.zeros(num_tasks), np.zeros(num_tasks), 0
    for boundary in history.boundaries:
        report = boundary.report
        tokens = np.array(report.num_tokens, dtype=np.float64)
        trained, steps = tokens - before, report.step - start
        if steps > 0 and trained.sum() > 0:
            part = steps * trained / trained.sum()
            exposure += part
            sums += part * np.array([_pull_at(measured, report.step) for measured in by_task.values()])
        before, start = tokens, report.step
    return sums, exposure, np.array(history.boundaries[-1].report.num_samples, dtype=np.float64)


def _share_error(measured: Sequence[TaskGradient], exposure: float, total: float) -> float | None:
    if len(measured) < _FEWEST or total <= 0.0:
        return None
    variance = float(np.mean(np.diff([one.pull for one in measured]) ** 2)) / 2
    return exposure * float(np.sqrt(variance / len(measured))) / total


def _pull_at(measured: Sequence[TaskGradient], step: int) -> float:
    """The last measurement before `step`, else the first; 0 for a task without any."""
    known = [one for one in measured if one.step < step] or list(measured[:1])
    return known[-1].pull if known else 0.0


def _sentences(tasks: dict[str, TaskInfluence], main: str | None) -> tuple[str, ...]:
    if main is None:
        return ()
    ranked = sorted(tasks, key=lambda name: -tasks[name].share)
    nominal = max(tasks, key=lambda name: tasks[name].nominal_share)
    words = [_leader(tasks, ranked)]
    if nominal != main:
        words.append(f"By samples it would be {_pair(nominal, tasks[nominal])}.")
    more = [_pair(name, one) for name, one in tasks.items() if name != main and _stands_out(one) > 0]
    less = [_pair(name, one) for name, one in tasks.items() if name != nominal and _stands_out(one) < 0]
    if more:
        words.append(f"More influence than samples: {', '.join(more)}.")
    if less:
        words.append(f"Less influence than samples: {', '.join(less)}.")
    few = [name for name, one in tasks.items() if one.share_error is None]
    if few:
        words.append(f"Measured less than {_FEWEST} times: {', '.join(few)}.")
    return tuple(words)


def _leader(tasks: dict[str, TaskInfluence], ranked: Sequence[str]) -> str:
    first = _pair(ranked[0], tasks[ranked[0]])
    if len(ranked) == 1:
        return f"The de-facto main task is {first}."
    one, other = tasks[ranked[0]], tasks[ranked[1]]
    if one.share_error is not None and other.share_error is not None:
        error = float(np.hypot(one.share_error, other.share_error))
        if one.share - other.share > 2.0 * error:
            return f"The de-facto main task is {first}."
    return f"No task leads beyond the error of the measurements; nearest are {first} and {_pair(ranked[1], other)}."


def _stands_out(one: TaskInfluence) -> int:
    """1 where influence is clearly more than nominal, -1 where it is clearly less, else 0."""
    apart = one.share - one.nominal_share
    larger, smaller = max(one.share, one.nominal_share), min(one.share, one.nominal_share)
    clear = one.share_error is not None and abs(apart) > 2.0 * one.share_error
    return int(np.sign(apart)) if clear and abs(apart) >= _DIFFERS_BY and larger >= _LEADS_BY * smaller else 0


def _pair(name: str, one: TaskInfluence) -> str:
    error = "" if one.share_error is None else f" ± {100 * one.share_error:.0f}"
    return f"{name} ({one.share:.0%}{error} of the influence, {one.nominal_share:.0%} of the samples)"
