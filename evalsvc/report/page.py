"""Write a run's report: `report.html`, one file that needs no network, and its JSON twin `report.json`.

The page shows figures of the report and computes none. The charting library is put into the page once; a content
security policy in the page's head forbids every request. Rounding happens here and in the template only.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from evalsvc.report.charts import THEMES, figures
from evalsvc.report.schema import Report
from evalsvc.report.words import COMPONENTS, seconds_in_words

_BUNDLE_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def write_report(report: Report, directory: Path) -> Path:
    """Write `report.html` and `report.json` into `directory` (made if missing); returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(report_json(report), encoding="utf-8")
    page = directory / "report.html"
    page.write_text(render_page(report), encoding="utf-8")
    return page


def report_json(report: Report) -> str:
    """The report as JSON, floats with all their digits. Raises ValueError on NaN or infinity."""
    return json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_page(report: Report) -> str:
    """The page as HTML text."""
    charts = figures(report)
    return _template().render(
        report=report,
        figures=charts,
        components=COMPONENTS,
        recognised={name: task.recognised for name, task in report.tasks.items() if task.recognised},
        undone=sum(event.superseded for event in report.events),
        specs=_script_json({figure.key: figure.spec for figure in charts}),
        themes=_script_json(THEMES),
        bundle=_chart_bundle() if charts else "",
    )


@functools.cache
def _chart_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script (about 0.9 MB)."""
    bundle = vl_convert.javascript_bundle(_BUNDLE_SNIPPET)
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evalsvc.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"score": score_text, "percent": percent_text, "seconds": seconds_in_words}
    return environment.get_template("page.html.j2")


def score_text(value: float | None) -> str:
    """`0.513`; a dash where nothing was measured."""
    return "–" if value is None else f"{value:.3f}"


def percent_text(value: float | None) -> str:
    """`12.3%`; a dash where nothing was trained."""
    return "–" if value is None else f"{value:.1%}"


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element whatever the strings in it hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
