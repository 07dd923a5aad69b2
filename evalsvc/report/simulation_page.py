"""Write a simulation: `simulation.html`, one file that needs no network, and its JSON twin `simulation.json`.

Like `evalsvc.report.page`: the page shows figures of the report and computes none; rounding happens here only.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt

from evalsvc.report.charts import COLUMNS, PAGE_WIDTH, Figure, figure
from evalsvc.report.page import render, write_page
from evalsvc.report.simulation import ArmReport, SimulationReport
from scheduler.simulator.summary import Interval

_COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e", "#97bbf5", "#9498a0",
    "#1b6b5a", "#b0532d", "#1f3b8f", "#8a8f2a", "#c2185b", "#5e4a8a",
)  # fmt: skip
_FAINT = "#9a9a9a"
_ROWS = "rows"


def write_simulation(report: SimulationReport, directory: Path) -> Path:
    """Write `simulation.html` and `simulation.json` into `directory` (made if missing); returns the page's path."""
    return write_page(report, render_simulation(report), directory, stem="simulation")


def render_simulation(report: SimulationReport) -> str:
    """The page as HTML text."""
    return render(
        "simulation.html.j2",
        simulation_figures(report),
        report=report,
        header=header(report),
        rows=[cells(report, arm) for arm in report.arms],
    )


def header(report: SimulationReport) -> tuple[str, ...]:
    """Column heads of the table of arms."""
    first = report.arms[0].name
    target = f"steps to {report.target_macro_score:.3f}"
    vs = f"macro vs {first}"
    return "arm", "final macro", vs, "final worst", "mean macro", target, "noise share", "saturated share"


def cells(report: SimulationReport, arm: ArmReport) -> tuple[str, ...]:
    """One row of the table of arms."""
    num_seeds = len(report.seeds)
    reached = f"{arm.steps_to_target.mean:.0f}" if arm.seeds_at_target else "never"
    if 0 < arm.seeds_at_target < num_seeds:
        reached = f"≥ {reached} ({arm.seeds_at_target} of {num_seeds} seeds)"
    return (
        arm.name,
        _score(arm.final_macro),
        "–" if arm.final_macro_gain is None else _score(arm.final_macro_gain, sign="+"),
        _score(arm.final_worst),
        _score(arm.mean_macro),
        reached,
        _percent(arm.noise_share),
        _percent(arm.saturated_share),
    )


def _score(value: Interval, sign: str = "") -> str:
    half = "" if value.high is None else f" ± {value.high - value.mean:.3f}"
    return f"{value.mean:{sign}.3f}{half}"


def _percent(value: Interval) -> str:
    half = "" if value.high is None else f" ± {100 * (value.high - value.mean):.1f}"
    return f"{100 * value.mean:.1f}{half} %"


def simulation_figures(report: SimulationReport) -> list[Figure]:
    """Charts in reading order."""
    which = "" if len(report.shown_tasks) == len(report.kinds) else " The tasks whose weight moved most."
    macro = (
        "Mean of the true scores over tasks, noise tasks left out. Line: mean over seeds; band: from the lowest to the "
        "highest seed; dashed: the target."
    )
    weights = f"Weight in force per task and arm, mean over seeds.{which}"
    tasks = f"True score per task, mean over seeds.{which}"
    return [
        _figure("macro", "Score over time", macro, _macro(report), _macro_rows(report)),
        _figure("weights", "Weights over time", weights, _weights(report), _rows(report, "weights")),
        _figure("tasks", "Score per task", tasks, _tasks(report), _rows(report, "scores")),
    ]


def _figure(key: str, title: str, caption: str, chart: Any, rows: Iterator[dict[str, Any]]) -> Figure:
    """The rows stand beside the chart, under the name it has for them: altair would validate every one of them."""
    made = figure(key, title, caption, chart)
    return dataclasses.replace(made, spec=made.spec | {"datasets": {_ROWS: list(rows)}})


def _colour(field: str, names: tuple[str, ...]) -> alt.Color:
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(len(names))]
    return (
        alt.Color(f"{field}:N")
        .scale(domain=names, range=colours)
        .sort(names)
        .legend(symbolType="stroke", symbolOpacity=1)
    )


def _step(report: SimulationReport) -> alt.X:
    domain = [0, report.num_steps]
    return alt.X("step:Q").scale(domain=domain, nice=False).title("step").axis(grid=False, format="d", tickCount=5)


def _arm_names(report: SimulationReport) -> tuple[str, ...]:
    return tuple(arm.name for arm in report.arms)


def _macro_rows(report: SimulationReport) -> Iterator[dict[str, Any]]:
    for arm in report.arms:
        curves = arm.curves
        columns = (curves.steps, curves.macro, curves.macro_low, curves.macro_high, curves.worst)
        for step, macro, low, high, worst in zip(*columns, strict=True):
            yield {"arm": arm.name, "step": step, "macro": macro, "low": low, "high": high, "worst": worst}


def _macro(report: SimulationReport) -> Any:
    colour = _colour("arm", _arm_names(report))
    base = alt.Chart(alt.NamedData(_ROWS)).encode(x=_step(report), color=colour)
    axis = alt.Y("macro:Q").scale(domain=[0, 1]).title("macro score")
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q")
    tooltip = ["arm:N", "step:Q", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("macro", "worst"))]
    line = base.mark_line(strokeWidth=2).encode(y=axis, tooltip=tooltip)
    target = alt.Chart(alt.InlineData(values=[{"target": report.target_macro_score}]))
    rule = target.mark_rule(strokeDash=[4, 4], color=_FAINT).encode(y="target:Q")
    return alt.layer(band, line, rule).properties(width=PAGE_WIDTH - 80, height=280)


def _rows(report: SimulationReport, name: str) -> Iterator[dict[str, Any]]:
    """One row an arm, task and boundary of `scores` or `weights`."""
    for arm in report.arms:
        for task, values in getattr(arm.curves, name).items():
            for step, value in zip(arm.curves.steps, values, strict=True):
                yield {"arm": arm.name, "task": task, "step": step, "value": value}


def _weights(report: SimulationReport) -> Any:
    columns = min(2, len(report.arms))
    chart = (
        alt.Chart(alt.NamedData(_ROWS))
        .mark_line(interpolate="step-after", strokeWidth=1.5)
        .encode(
            x=_step(report),
            y=alt.Y("value:Q").scale(domainMin=0).axis(format="%").title("weight"),
            color=_colour("task", report.shown_tasks),
            tooltip=["arm:N", "task:N", "step:Q", alt.Tooltip("value:Q", format=".2%")],
        )
        .properties(width=PAGE_WIDTH // columns - 70, height=180)
    )
    return chart.facet(alt.Facet("arm:N").sort(_arm_names(report)).title(None), columns=columns)


def _tasks(report: SimulationReport) -> Any:
    chart = (
        alt.Chart(alt.NamedData(_ROWS))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=_step(report),
            y=alt.Y("value:Q").scale(domain=[0, 1]).axis(values=[0, 0.5, 1]).title("score"),
            color=_colour("arm", _arm_names(report)),
            tooltip=["arm:N", "task:N", "step:Q", alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=PAGE_WIDTH // COLUMNS - 55, height=110)
    )
    return chart.facet(alt.Facet("task:N").sort(report.shown_tasks).title(None), columns=COLUMNS)
