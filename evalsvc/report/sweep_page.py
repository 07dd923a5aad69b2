"""Write a sweep's report: `report.html`, one file that needs no network, and its JSON twin `report.json`."""

import dataclasses
import json
from pathlib import Path

import jinja2

from evalsvc.report.charts import THEMES
from evalsvc.report.page import _chart_bundle, _script_json, percent_text, score_text
from evalsvc.report.sweep import SweepReport
from evalsvc.report.sweep_charts import sweep_figures


def write_sweep(report: SweepReport, directory: Path) -> Path:
    """Write `report.html` and `report.json` into `directory`; returns the page's path."""
    text = json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False)
    (directory / "report.json").write_text(text + "\n", encoding="utf-8")
    page = directory / "report.html"
    page.write_text(render_sweep(report), encoding="utf-8")
    return page


def render_sweep(report: SweepReport) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evalsvc.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"score": score_text, "percent": percent_text}
    charts = sweep_figures(report)
    return environment.get_template("sweep.html.j2").render(
        report=report,
        figures=charts,
        specs=_script_json({figure.key: figure.spec for figure in charts}),
        themes=_script_json(THEMES),
        bundle=_chart_bundle() if charts else "",
    )
