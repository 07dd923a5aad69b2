"""Which task the model really learnt from: the influence share of every task beside its nominal share.

    pull_k       norm times cosine of the task's gradient with the applied update (`scheduler.signals.TaskGradient`);
                 between two measurements the last one holds, before the first the first
    influence    of an interval: steps · (tokens of the task / tokens of the interval) · pull_k: the part of the descent
                 along the applied updates that came from the task's own samples, per unit of their length
    share        sum over the run, as a share of the positive sums; 0 for a task that was pulled against on the whole

A figure is as good as its measurements are many: eight rows a time give an honest mean over a run, no single value to
lean on. Tasks of few measurements are said to be so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalsvc.report.history import RunHistory
from scheduler.signals import TaskGradient

_LEADS_BY = 1.5
_DIFFERS_BY = 0.05


@dataclass(frozen=True, slots=True)
class TaskInfluence:
    """One task over the run: shares in [0, 1], means over its measurements."""

    share: float
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
    sums, tokens = _sums(history, by_task)
    positive = np.maximum(sums, 0.0)
    total = float(positive.sum())
    shares = positive / total if total > 0.0 else np.zeros_like(positive)
    tasks = {
        name: TaskInfluence(
            share=float(shares[index]),
            nominal_share=float(tokens[index] / max(tokens.sum(), 1.0)),
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
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Influence [K] summed over the run, and samples [K] served in it."""
    num_tasks = len(history.task_names)
    sums, before, samples_before, start = np.zeros(num_tasks), np.zeros(num_tasks), np.zeros(num_tasks), 0
    for boundary in history.boundaries:
        report = boundary.report
        tokens = np.array(report.num_tokens, dtype=np.float64)
        trained, steps = tokens - before, report.step - start
        if steps > 0 and trained.sum() > 0:
            pulls = np.array([_pull_at(measured, report.step) for measured in by_task.values()])
            sums += steps * trained / trained.sum() * pulls
        before, start = tokens, report.step
        samples_before = np.array(report.num_samples, dtype=np.float64)
    return sums, samples_before


def _pull_at(measured: Sequence[TaskGradient], step: int) -> float:
    """The last measurement before `step`, else the first; 0 for a task without any."""
    known = [one for one in measured if one.step < step] or list(measured[:1])
    return known[-1].pull if known else 0.0


def _sentences(tasks: dict[str, TaskInfluence], main: str | None) -> tuple[str, ...]:
    if main is None:
        return ()
    nominal, led = max(tasks, key=lambda name: tasks[name].nominal_share), tasks[main]
    words = [
        f"The de-facto main task is {main}: {led.share:.0%} of the measured influence "
        f"on {led.nominal_share:.0%} of the samples."
    ]
    if nominal != main:
        most = tasks[nominal]
        words.append(
            f"By samples it would be {nominal}: {most.nominal_share:.0%} of the samples, "
            f"{most.share:.0%} of the influence."
        )
    more = [_pair(name, one) for name, one in tasks.items() if name != main and _differs(one.share, one.nominal_share)]
    less = [
        _pair(name, one) for name, one in tasks.items() if name != nominal and _differs(one.nominal_share, one.share)
    ]
    if more:
        words.append(f"More influence than samples: {', '.join(more)}.")
    if less:
        words.append(f"Less influence than samples: {', '.join(less)}.")
    few = [name for name, one in tasks.items() if one.num_measurements < 3]
    if few:
        words.append(f"Measured less than three times, so take it lightly: {', '.join(few)}.")
    return tuple(words)


def _differs(larger: float, smaller: float) -> bool:
    return larger >= _LEADS_BY * smaller and larger - smaller >= _DIFFERS_BY


def _pair(name: str, one: TaskInfluence) -> str:
    return f"{name} ({one.share:.0%} of the influence, {one.nominal_share:.0%} of the samples)"
