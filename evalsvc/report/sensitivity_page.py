"""Write a sensitivity measurement: `report.html`, one file that needs no network, and its JSON twin `report.json`."""

from pathlib import Path
from typing import Any

import altair as alt

from evalsvc.report.charts import PAGE_WIDTH, Figure, figure
from evalsvc.report.page import render, write_page
from evalsvc.report.sensitivity import SensitivityReport

_COLUMNS = 4


def write_sensitivity(report: SensitivityReport, directory: Path) -> Path:
    """Write `report.html` and `report.json` into `directory`; returns the page's path."""
    return write_page(report, render_sensitivity(report), directory, stem="report")


def render_sensitivity(report: SensitivityReport) -> str:
    """The page as HTML text."""
    return render("sensitivity.html.j2", sensitivity_figures(report), report=report)


def sensitivity_figures(report: SensitivityReport) -> list[Figure]:
    """Charts in reading order."""
    whole = "Mean over tasks of how far the score moved, up or down, from the fork whose mixture stayed."
    tasks = "Score of each task, less that of the fork of the same phase whose mixture stayed."
    return [
        figure("behaviour", "Phase and ratio against change of behaviour", whole, _behaviour(report)),
        figure("tasks", "Change of score per task", tasks, _tasks(report)),
    ]


def _axes(report: SensitivityReport) -> dict[str, Any]:
    nudges = sorted({cell.nudge for cell in report.cells}, reverse=True)
    return {
        "x": alt.X("phase:O").title("forked at step").axis(labelAngle=0),
        "y": alt.Y("nudge:N").title("added").sort([f"{nudge:+g}" for nudge in nudges]),
    }


def _behaviour(report: SensitivityReport) -> Any:
    rows = [
        {"phase": cell.phase, "nudge": f"{cell.nudge:+g}", "share": cell.share, "change": cell.behaviour_change}
        for cell in report.cells
        if cell.nudge
    ]
    base = alt.Chart(alt.InlineData(values=rows)).encode(**_axes(report))
    tooltip = ["phase:O", "nudge:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("share", "change"))]
    colour = alt.Color("change:Q").scale(scheme="viridis", domainMin=0).title("change")
    tiles = base.mark_rect().encode(color=colour, tooltip=tooltip)
    text = base.mark_text(fontWeight="bold", color="white").encode(text=alt.Text("change:Q", format=".3f"))
    return alt.layer(tiles, text).properties(width=PAGE_WIDTH - 200, height=alt.Step(44))


def _tasks(report: SensitivityReport) -> Any:
    rows = [
        {"phase": cell.phase, "nudge": f"{cell.nudge:+g}", "task": task, "change": change}
        for cell in report.cells
        if cell.nudge
        for task, change in cell.change.items()
    ]
    furthest = max((abs(row["change"]) for row in rows), default=0.0) or 1.0
    colour = alt.Color("change:Q").scale(scheme="redblue", domain=[-furthest, furthest]).title("change of score")
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            **_axes(report),
            color=colour,
            tooltip=["task:N", "phase:O", "nudge:N", alt.Tooltip("change:Q", format="+.3f")],
        )
        .properties(width=PAGE_WIDTH // _COLUMNS - 90, height=alt.Step(26))
    )
    return chart.facet(alt.Facet("task:N").sort(list(report.tasks)).title(None), columns=_COLUMNS)
