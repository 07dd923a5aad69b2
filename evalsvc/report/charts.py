"""The report's charts: Vega-Lite specifications with their data inside, drawn from a `Report` and nothing else.

Colours carry meaning once: a task has one colour on the whole page, a heat component has another set. Background, text
and axes are left to the page, which gives them for light and for dark (`THEMES`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt

from evalsvc.report.schema import Report
from evalsvc.report.words import COMPONENTS, unit_in_words

PAGE_WIDTH = 880
COLUMNS = 4
_TASK_COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e", "#97bbf5", "#9498a0",
)  # fmt: skip
_COMPONENT_COLOURS = {"decay": "#e15759", "variance": "#efb118", "rejection": "#a463f2", "gap": "#4269d0"}
_FAINT = "#9a9a9a"


def _theme(ink: str, muted: str, grid: str) -> dict[str, Any]:
    axis = {"labelColor": muted, "titleColor": muted, "gridColor": grid, "domainColor": grid, "tickColor": grid}
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "title": {"color": ink, "fontWeight": 600, "fontSize": 12, "anchor": "start"},
        "axis": {**axis, "titleFontWeight": "normal", "labelOverlap": True},
        "legend": {"labelColor": ink, "titleColor": muted, "orient": "top", "title": None, "columns": 6},
        "header": {"labelColor": ink, "labelFontWeight": 600, "labelFontSize": 12, "labelAnchor": "start"},
        "text": {"color": muted},
    }


THEMES: Mapping[str, dict[str, Any]] = {
    "light": _theme("#1c1e21", "#5d636b", "#e4e6e9"),
    "dark": _theme("#e8eaed", "#a4abb3", "#33383e"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart of the page: its Vega-Lite specification and what it shows, in words."""

    key: str
    title: str
    caption: str
    spec: dict[str, Any]


def figures(report: Report) -> list[Figure]:
    """All charts that the report has data for, in reading order."""
    found: list[Figure] = []
    if report.segments:
        caption = "Weight of each task in the plan that was in force. A dashed line marks the first step of stage 2."
        found.append(figure("weights", "Weights over time", caption, _weights(report)))
    if report.scores:
        caption = (
            "Above: score on the probes, with the task's target dashed. Below: held-out loss in nats per supervised "
            "token. Grey: evaluations that a restart undid."
        )
        found.append(figure("scores", "Score and held-out loss per task", caption, _scores(report)))
    if report.decisions:
        caption = "Heat at each decision, split among what it came from. The parts of a bar sum to the heat."
        found.append(figure("heat", "Heat per task", caption, _heat(report)))
    if report.segments:
        caption = (
            f"Bar: share of the {unit_in_words(report.weight_unit)} the task was served. Tick: share its weights "
            "called for. Ring: first weight."
        )
        found.append(figure("shares", "Realised and target share", caption, _shares(report)))
    return found


def figure(key: str, title: str, caption: str, chart: Any) -> Figure:
    """A chart made with altair, less what the page gives."""
    spec = chart.to_dict()
    for unused in ("$schema", "config"):
        spec.pop(unused, None)
    return Figure(key=key, title=title, caption=caption, spec=spec)


def _task_colour(report: Report) -> alt.Color:
    names = list(report.tasks)
    colours = [_TASK_COLOURS[index % len(_TASK_COLOURS)] for index in range(len(names))]
    return alt.Color("task:N").scale(domain=names, range=colours).sort(names)


def inline(rows: list[dict[str, Any]]) -> alt.InlineData:
    """Rows, written into the specification."""
    return alt.InlineData(values=rows)


def _step_axis(report: Report) -> alt.X:
    last = max(report.num_steps, 1)
    return alt.X("step:Q").scale(domain=[0, last], nice=False).title("step").axis(grid=False, format="d", tickMinStep=1)


def _weights(report: Report) -> Any:
    rows = [
        {"task": task, "step": segment.start_step, "weight": weight, "plan": segment.plan_version}
        for segment in report.segments
        for task, weight in segment.weights.items()
    ]
    last = report.segments[-1]
    rows += [
        {"task": task, "step": last.end_step, "weight": weight, "plan": last.plan_version}
        for task, weight in last.weights.items()
    ]
    encoding = {
        "x": _step_axis(report),
        "y": alt.Y("weight:Q").scale(domainMin=0).axis(format="%").title("weight"),
        "color": _task_colour(report).legend(symbolType="stroke"),
        "tooltip": ["task:N", "step:Q", alt.Tooltip("weight:Q", format=".2%"), "plan:O"],
    }
    lines = alt.Chart(inline(rows)).mark_line(interpolate="step-after", strokeWidth=2).encode(**encoding)
    hover = alt.Chart(inline(rows)).mark_point(size=60, opacity=0).encode(**encoding)
    layers: list[Any] = [lines, hover]
    if report.stage_boundary_step is not None:
        boundary = alt.Chart(inline([{"step": report.stage_boundary_step, "label": "stage 2"}]))
        layers.append(boundary.mark_rule(strokeDash=[4, 4], color=_FAINT).encode(x="step:Q"))
        label = boundary.mark_text(align="left", dx=5, dy=8, baseline="top", color=_FAINT)
        layers.append(label.encode(x="step:Q", y=alt.value(0), text="label:N"))
    return alt.layer(*layers).properties(width=PAGE_WIDTH - 80, height=280)


def _scores(report: Report) -> Any:
    panels = [_score_panel(report, task) for task in report.tasks]
    return alt.concat(*panels, columns=COLUMNS, spacing=16)


def _score_panel(report: Report, task: str) -> Any:
    kept = [{"step": p.step, "score": p.score, "loss": p.loss} for p in report.scores if p.task == task]
    undone = [{"step": p.step, "score": p.score, "loss": p.loss} for p in report.superseded.scores if p.task == task]
    width = PAGE_WIDTH // COLUMNS - 62
    score_axis = alt.Y("score:Q").scale(domain=[0, 1]).axis(values=[0, 0.5, 1]).title("score")
    loss_axis = alt.Y("loss:Q").scale(domainMin=0).axis(tickCount=3).title("loss")
    target = alt.Chart(inline([{"score": report.tasks[task].target_score}]))
    top = alt.layer(
        target.mark_rule(strokeDash=[3, 3], color=_FAINT).encode(y="score:Q"),
        *_measured(report, kept, undone, score_axis, "score", "#4269d0"),
    )
    bottom = alt.layer(*_measured(report, kept, undone, loss_axis, "loss", "#efb118"))
    return alt.vconcat(
        top.properties(width=width, height=100, title=task), bottom.properties(width=width, height=60), spacing=6
    )


def _measured(
    report: Report, kept: list[dict[str, Any]], undone: list[dict[str, Any]], axis: alt.Y, value: str, colour: str
) -> list[Any]:
    tooltip = ["step:Q", alt.Tooltip(f"{value}:Q", format=".3f")]
    encoding = {"x": _step_axis(report).title(None), "y": axis, "tooltip": tooltip}
    layers: list[Any] = (
        [alt.Chart(inline(undone)).mark_point(size=30, shape="cross", color=_FAINT).encode(**encoding)]
        if undone
        else []
    )
    point = alt.OverlayMarkDef(size=18, color=colour)
    return [*layers, alt.Chart(inline(kept)).mark_line(color=colour, strokeWidth=2, point=point).encode(**encoding)]


def _heat(report: Report) -> Any:
    rows = [
        {
            "task": task,
            "step": decision.source_step,
            "part": name,
            "heat": getattr(decision.heat_parts[task], name),
            "order": order,
        }
        for decision in report.decisions
        for task in report.tasks
        for order, name in enumerate(COMPONENTS)
    ]
    width = PAGE_WIDTH // COLUMNS - 50
    bar = max(2, min(18, round(0.7 * width / max(len(report.decisions), 1))))
    colour = alt.Color("part:N").scale(domain=list(_COMPONENT_COLOURS), range=list(_COMPONENT_COLOURS.values()))
    chart = (
        alt.Chart(inline(rows))
        .mark_bar(size=bar)
        .encode(
            x=alt.X("step:Q").title("step").axis(grid=False, format="d", tickMinStep=1).scale(padding=bar / 2 + 2),
            y=alt.Y("heat:Q").scale(domain=[0, 1]).axis(values=[0, 0.5, 1]).title("heat"),
            color=colour,
            order="order:Q",
            tooltip=["step:Q", "part:N", alt.Tooltip("heat:Q", format=".3f")],
        )
        .properties(width=width, height=110)
    )
    return chart.facet(alt.Facet("task:N").sort(list(report.tasks)).title(None), columns=COLUMNS)


def _shares(report: Report) -> Any:
    rows = [
        {"task": name, "realised": task.realised_share, "target": task.target_share, "first": task.first_weight}
        for name, task in report.tasks.items()
    ]
    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("task:N").sort(list(report.tasks)).title(None).axis(ticks=False, domain=False),
        tooltip=["task:N", *(alt.Tooltip(f"{field}:Q", format=".2%") for field in ("realised", "target", "first"))],
    )
    axis = alt.X("realised:Q").axis(format="%").title(f"share of {unit_in_words(report.weight_unit)}")
    bars = base.mark_bar(height=14, opacity=0.85).encode(x=axis, color=_task_colour(report).legend(None))
    ticks = base.mark_tick(thickness=3, size=24, color=_FAINT).encode(x="target:Q")
    rings = base.mark_point(size=60, color=_FAINT, filled=False, strokeWidth=1.5).encode(x="first:Q")
    return alt.layer(bars, ticks, rings).properties(width=PAGE_WIDTH - 180, height=alt.Step(32))
