import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import vl_convert

from evalsvc.report.charts import THEMES, figures
from evalsvc.report.model import build_report
from evalsvc.report.page import percent_text, render_page, score_text, write_report
from scheduler.records import RunRecord
from scheduler.setup import WeightUnit
from tests.unit.evalsvc.report.simulated_run import FACTS, TASKS, simulated_records

RECORDS = simulated_records()
REPORT = build_report(RECORDS, FACTS)


class Page(HTMLParser):
    """Collects cells by (task, field), every address an element points to, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: dict[tuple[str, str], str] = {}
        self.addresses: list[str] = []
        self.text = ""
        self._task, self._field, self._silent = "", None, 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [found[name] for name in ("src", "href", "action", "data") if name in found]
        self._task = found.get("data-task", self._task)
        self._field = found.get("data-field")
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._silent -= tag in ("script", "style")

    def handle_data(self, data):
        if self._silent:
            return
        self.text += data
        if self._field and data.strip():
            self.cells[self._task, self._field] = data.strip()


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "made" / "on the way"
    assert write_report(REPORT, folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def html(directory) -> str:
    return (directory / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_no_network(html):
    page = Page(html)
    assert page.addresses == []
    assert "default-src 'none'" in html
    assert not re.search(r"@import|url\(\s*['\"]?https?:", html)
    assert len(html.encode()) < 2_000_000


def test_the_page_carries_the_charting_library_once(html):
    assert html.count("window.vegaEmbed=") == 1
    assert html.count("<script>") == html.count("</script>") == 2


def test_the_json_twin_holds_the_numbers_the_page_shows(directory, html):
    twin = json.loads((directory / "report.json").read_text(encoding="utf-8"))
    cells = Page(html).cells
    for name in TASKS:
        task = twin["tasks"][name]
        for field in ("first_score", "last_score", "test_score", "heat"):
            assert cells[name, field] == score_text(task[field])
        for field in ("first_weight", "last_weight", "target_share", "realised_share"):
            assert cells[name, field] == percent_text(task[field])
        assert cells[name, "samples"] == f"{task['samples']:,}"


def test_the_page_says_what_happened_in_words(html):
    text = Page(html).text
    for sentence in (*REPORT.notable, *(event.text for event in REPORT.events)):
        assert sentence in text


@pytest.mark.parametrize(("unit", "words"), [("samples", "samples"), ("tokens", "supervised tokens")])
def test_shares_are_told_in_the_unit_of_the_weights(unit: WeightUnit, words: str):
    report = dataclasses.replace(REPORT, weight_unit=unit)
    text = Page(render_page(report)).text
    assert f"mean of the weights over the {words} trained under them" in text
    assert f"the greatest difference between the two, in {words}, at any interval boundary" in text
    assert f"{words} at most" in text
    [shares] = [one for one in figures(report) if one.key == "shares"]
    assert shares.caption.startswith(f"Bar: share of the {words} the task was served.")
    assert f'"title": "share of {words}"' in json.dumps(shares.spec)


def test_times_are_told_to_be_of_all_sessions_or_of_those_that_are_known(html):
    text = Page(html).text
    assert "time: train" in text
    assert "Of all sessions together" in text
    assert "failed or were killed" not in text
    some = Page(render_page(dataclasses.replace(REPORT, num_sessions=3, num_untimed_sessions=1))).text
    assert "time (2 of 3 sessions): train" in some
    assert "of those that failed or were killed it is not known" in some
    once = Page(render_page(dataclasses.replace(REPORT, num_attempts=1))).text
    assert "Of all sessions together" not in once


def test_names_from_the_run_cannot_break_out_of_the_page():
    hostile = "</script><script>alert(1)</script>"
    first = RECORDS[0]
    assert isinstance(first, RunRecord)
    tasks = [{**task, "name": f"{task['name']}{hostile}"} for task in first.setup["tasks"]]
    record = dataclasses.replace(first, setup={**first.setup, "tasks": tasks})
    page = render_page(build_report([record], dataclasses.replace(FACTS, run_name=hostile, test_scores={}, rows={})))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_every_chart_compiles_and_draws_the_reports_data():
    charts = {figure.key: figure.spec for figure in figures(REPORT)}
    assert list(charts) == ["weights", "scores", "heat", "shares"]
    for key, spec in charts.items():
        compiled = json.dumps(vl_convert.vegalite_to_vega({**spec, "config": THEMES["dark"]}))
        assert all(name in compiled for name in TASKS), key


def test_a_run_that_has_only_started_has_a_page_without_charts():
    page = render_page(build_report(RECORDS[:1], FACTS))
    assert "<script>" not in page
    assert "did not change" in page
