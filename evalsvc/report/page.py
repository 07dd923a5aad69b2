"""Write a run's report: `report.html`, one file that needs no network, and its JSON twin `report.json`.

The page shows figures of the report and computes none. The charting library is put into the page once; a content
security policy in the page's head forbids every request. Rounding happens here and in the template only.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from evalsvc.report.charts import THEMES, Figure, figures
from evalsvc.report.schema import Report
from evalsvc.report.words import COMPONENTS, seconds_in_words, unit_in_words

_BUNDLE_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def write_report(report: Report, directory: Path) -> Path:
    """Write `report.html` and `report.json` into `directory` (made if missing); returns the page's path."""
    return write_page(report, render_page(report), directory, stem="report")


def write_page(report: Any, page: str, directory: Path, *, stem: str) -> Path:
    """Write a page, `<stem>.html`, and the dataclass it shows, `<stem>.json`; returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{stem}.json").write_text(report_json(report), encoding="utf-8")
    path = directory / f"{stem}.html"
    path.write_text(page, encoding="utf-8")
    return path


def report_json(report: Any) -> str:
    """A dataclass as JSON, floats with all their digits. Raises ValueError on NaN or infinity."""
    return json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render_page(report: Report) -> str:
    """The page as HTML text."""
    return render(
        "page.html.j2",
        figures(report),
        report=report,
        components=COMPONENTS,
        unit=unit_in_words(report.weight_unit),
        recognised={name: task.recognised for name, task in report.tasks.items() if task.recognised},
        undone=sum(event.superseded for event in report.events),
    )


def render(template: str, charts: Sequence[Figure], **values: Any) -> str:
    """A template on `_layout.html.j2` as HTML text, with its charts and what draws them."""
    return (
        _environment()
        .get_template(template)
        .render(
            figures=charts,
            specs=_script_json({figure.key: figure.spec for figure in charts}),
            themes=_script_json(THEMES),
            bundle=_chart_bundle() if charts else "",
            **values,
        )
    )


@functools.cache
def _chart_bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script (about 0.9 MB)."""
    bundle = vl_convert.javascript_bundle(_BUNDLE_SNIPPET)
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evalsvc.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"score": score_text, "percent": percent_text, "seconds": seconds_in_words}
    return environment


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
