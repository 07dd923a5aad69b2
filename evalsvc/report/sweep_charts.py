"""Charts of a sweep: Vega-Lite specifications with their data inside, drawn from a `SweepReport` and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from evalsvc.report.charts import PAGE_WIDTH, Figure, figure, inline
from evalsvc.report.sweep import SweepReport, SweptTrial

_FAINT, _ACCENT = "#9a9a9a", "#4269d0"
_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e")
_SCHEME = "viridis"
_SHOWN = 25


def sweep_figures(report: SweepReport) -> list[Figure]:
    """All charts that the sweep has data for, in reading order."""
    measured, first = report.measured, report.objectives[0]
    found: list[Figure] = []
    if measured:
        caption = f"{first} of each trial{_best_of(len(measured))}, with its 95 % interval over the rows measured."
        found.append(figure("best", "Best configurations", caption, _ranking(report, measured[:_SHOWN])))
        caption = (
            f"A line is a trial; each axis runs from the lowest value searched to the highest, the last one is {first}."
        )
        found.append(figure("parallel", "Parallel coordinates", caption, _parallel(report, measured)))
    if report.boundary_key is not None and measured:
        caption = f"{report.boundary_key} against {first}, with 95 % intervals."
        found.append(figure("boundary", "Boundary against score", caption, _boundary(report, measured)))
    if len(report.objectives) > 1 and measured:
        caption = (
            "Filled: on the Pareto front; no other trial is better in one objective without being worse in another."
        )
        found.append(figure("pareto", "Pareto front", caption, _pareto(report, measured)))
    if measured:
        caption = "Score of each task, trials from the best to the worst."
        found.append(figure("tasks", "Scores per task", caption, _tasks(report, measured[:_SHOWN])))
    if report.shared:
        caption = (
            f"{report.steps_trained} optimiser steps were trained; without sharing it would have been "
            f"{report.steps_unshared}."
        )
        found.append(figure("cost", "Cost saved by sharing", caption, _cost(report)))
    return found


def _best_of(number: int) -> str:
    return f" (the best {_SHOWN} of {number})" if number > _SHOWN else ""


def _row(report: SweepReport, trial: SweptTrial) -> dict[str, Any]:
    found = trial.objectives[report.objectives[0]]
    values = {"trial": trial.name, "settings": trial.label, "status": trial.status, "best": trial.name in report.best}
    return {**values, "value": found.value, "low": found.low, "high": found.high}


def _tooltip(*more: Any) -> list[Any]:
    return ["trial:N", "settings:N", "status:N", *more]


def _ranking(report: SweepReport, trials: Sequence[SweptTrial]) -> Any:
    rows = [_row(report, trial) for trial in trials]
    order = [trial.name for trial in trials]
    base = alt.Chart(inline(rows)).encode(y=alt.Y("trial:N").sort(order).title(None).axis(ticks=False, domain=False))
    axis = alt.X("low:Q").scale(zero=False).title(report.objectives[0])
    bars = base.mark_rule(color=_FAINT, strokeWidth=2).encode(x=axis, x2="high:Q")
    colour = alt.condition("datum.best", alt.value(_ACCENT), alt.value(_FAINT))
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="value:Q", color=colour, tooltip=_tooltip("value:Q", "low:Q", "high:Q")
    )
    return alt.layer(bars, points).properties(width=PAGE_WIDTH - 180, height=alt.Step(20))


def _parallel(report: SweepReport, trials: Sequence[SweptTrial]) -> Any:
    first = report.objectives[0]
    columns: dict[str, dict[str, float | str]] = {
        key: {trial.name: trial.values[key] for trial in trials if key in trial.values} for key in report.keys
    }
    columns[first] = {trial.name: trial.objectives[first].value for trial in trials}
    places = {key: positions(column) for key, column in columns.items()}
    rows = [
        {**_row(report, trial), "key": key, "place": places[key][trial.name], "shown": _shown(columns[key][trial.name])}
        for trial in trials
        for key in columns
        if trial.name in columns[key]
    ]
    order = list(columns)
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("key:N").sort(order).title(None).axis(labelAngle=0, labelLimit=220, grid=True).scale(padding=0.2),
        y=alt.Y("place:Q").axis(None).scale(domain=[-0.05, 1.05]),
        detail="trial:N",
    )
    colour = alt.Color("value:Q").scale(scheme=_SCHEME).title(first)
    lines = base.mark_line(strokeWidth=2, opacity=0.75).encode(color=colour, tooltip=_tooltip("value:Q"))
    ends = [
        {"key": key, "place": place, "shown": text}
        for key in order
        for place, text in {places[key][name]: _shown(value) for name, value in columns[key].items()}.items()
        if isinstance(next(iter(columns[key].values())), str)
        or place in (0.0, 1.0)
        or len(set(places[key].values())) < 6
    ]
    labels = (
        alt.Chart(inline(ends))
        .mark_text(align="left", dx=7, fontSize=11)
        .encode(x=alt.X("key:N").sort(order), y="place:Q", text="shown:N")
    )
    return alt.layer(lines, labels).properties(width=PAGE_WIDTH - 80, height=260)


def positions(column: Mapping[str, float | str]) -> dict[str, float]:
    """Where each value stands on its axis, 0 to 1: numbers to scale, words evenly in order of appearance."""
    numbers = {name: value for name, value in column.items() if isinstance(value, int | float)}
    if len(numbers) == len(column):
        low, high = min(numbers.values()), max(numbers.values())
        return {name: (value - low) / (high - low) if high > low else 0.5 for name, value in numbers.items()}
    words = list(dict.fromkeys(str(value) for value in column.values()))
    return {name: words.index(str(value)) / max(1, len(words) - 1) for name, value in column.items()}


def _boundary(report: SweepReport, trials: Sequence[SweptTrial]) -> Any:
    key = report.boundary_key
    assert key is not None
    rows = [
        {**_row(report, trial), "boundary": trial.values[key], "others": _others(trial, key)}
        for trial in trials
        if key in trial.values
    ]
    names = sorted({row["others"] for row in rows})
    colour = alt.Color("others:N").scale(domain=names, range=[_COLOURS[i % len(_COLOURS)] for i in range(len(names))])
    ticks = sorted({row["boundary"] for row in rows})
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("boundary:Q").title(key).scale(zero=False, padding=16).axis(values=ticks, grid=False), color=colour
    )
    axis = alt.Y("value:Q").scale(zero=False).title(report.objectives[0])
    bars = base.mark_rule(opacity=0.35).encode(y="low:Q", y2="high:Q")
    lines = base.mark_line(point=True, strokeWidth=2).encode(y=axis, tooltip=_tooltip("value:Q"))
    return alt.layer(bars, lines).properties(width=PAGE_WIDTH - 80, height=280)


def _others(trial: SweptTrial, key: str) -> str:
    return ", ".join(_shown(value) for name, value in trial.values.items() if name != key) or "all"


def _pareto(report: SweepReport, trials: Sequence[SweptTrial]) -> Any:
    first, second = report.objectives[:2]
    rows = [
        {**_row(report, trial), **{name: trial.objectives[name].value for name in (first, second)}} for trial in trials
    ]
    base = alt.Chart(inline(rows)).encode(
        x=alt.X(f"{first}:Q").scale(zero=False), y=alt.Y(f"{second}:Q").scale(zero=False)
    )
    points = base.mark_point(size=80).encode(
        fill=alt.condition("datum.best", alt.value(_ACCENT), alt.value("transparent")),
        stroke=alt.value(_ACCENT),
        tooltip=_tooltip(f"{first}:Q", f"{second}:Q"),
    )
    front = base.transform_filter("datum.best").mark_line(color=_FAINT, strokeDash=[4, 4]).encode(order=f"{first}:Q")
    return alt.layer(front, points).properties(width=PAGE_WIDTH - 380, height=300)


def _tasks(report: SweepReport, trials: Sequence[SweptTrial]) -> Any:
    rows = [
        {**_row(report, trial), "task": task, "score": score}
        for trial in trials
        for task, score in trial.scores.items()
    ]
    order = [trial.name for trial in trials]
    colour = alt.Color("score:Q").scale(scheme=_SCHEME, domain=[0, 1])
    return (
        alt.Chart(inline(rows))
        .mark_rect()
        .encode(
            x=alt.X("task:N").title(None).sort(list(trials[0].scores)).axis(labelAngle=-35, labelOverlap=False),
            y=alt.Y("trial:N").sort(order).title(None),
            color=colour,
            tooltip=_tooltip("task:N", alt.Tooltip("score:Q", format=".3f")),
        )
        .properties(width=PAGE_WIDTH - 180, height=alt.Step(20))
    )


def _cost(report: SweepReport) -> Any:
    trunks = sum(part.last_step - part.first_step for part in report.shared)
    rows = [
        {"way": "shared", "part": "shared parts", "steps": trunks, "order": 0},
        {"way": "shared", "part": "trials", "steps": report.steps_trained - trunks, "order": 1},
        {"way": "not shared", "part": "trials", "steps": report.steps_unshared, "order": 1},
    ]
    return (
        alt.Chart(inline(rows))
        .mark_bar()
        .encode(
            x=alt.X("steps:Q").title("optimiser steps"),
            y=alt.Y("way:N").title(None).sort(["shared", "not shared"]),
            color=alt.Color("part:N").scale(domain=["shared parts", "trials"], range=["#efb118", _ACCENT]),
            order="order:Q",
            tooltip=["way:N", "part:N", "steps:Q"],
        )
        .properties(width=PAGE_WIDTH - 180, height=80)
    )


def _shown(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else value
