"""The page of a sweep: every chart has its data, the page is whole in itself, and names cannot break out of it."""

import json
from pathlib import Path

import vl_convert

from evalsvc.report.sweep import SCHEMA_VERSION, Clone, Figured, SharedPart, SweepReport, SweptTrial
from evalsvc.report.sweep_charts import positions, sweep_figures
from evalsvc.report.sweep_page import render_sweep, write_sweep

KEY, POLICY = "stages.0.until.step", "stages.1.policy.type"


def swept(number: int, *, step: int, policy: str, value: float | None) -> SweptTrial:
    found = (
        {} if value is None else {"worst": Figured(value, value - 0.1, value + 0.1), "macro": Figured(0.5, 0.4, 0.6)}
    )
    return SweptTrial(
        name=f"trial-{number:03d}",
        status="finished" if value is not None else "not started",
        label=f"{KEY}={step}, {POLICY}={policy}",
        values={KEY: step, POLICY: policy},
        step=100,
        num_steps=100 - step,
        origin=f"trunk-000@{step}",
        scores={} if value is None else {"a": value, "b": 0.9},
        objectives=found,
    )


def report(*, objectives: tuple[str, ...] = ("worst", "macro"), name: str = "<script>") -> SweepReport:
    return SweepReport(
        schema_version=SCHEMA_VERSION,
        title=name,
        search="grid",
        schedule="none",
        objectives=objectives,
        measured_on="probe",
        keys=(KEY, POLICY),
        boundary_key=KEY,
        trials=(
            swept(0, step=20, policy="heat", value=0.3),
            swept(1, step=20, policy="odm", value=0.4),
            swept(2, step=40, policy="heat", value=0.6),
            swept(3, step=40, policy="odm", value=None),
        ),
        best=("trial-002",),
        shared=(SharedPart("trunk-000", 0, 40, 4),),
        clones=(Clone("trial-001", 40, "trial-002", ("mixture.policy.strength: 1 → 2",)),),
        steps_trained=320,
        steps_unshared=400,
    )


def test_every_chart_is_drawn_and_one_objective_has_no_front() -> None:
    figures = {figure.key: figure for figure in sweep_figures(report())}
    assert list(figures) == ["best", "parallel", "boundary", "pareto", "tasks", "cost"]
    for figure in figures.values():
        assert vl_convert.vegalite_to_svg(json.dumps(figure.spec)).count("<path") > 2, figure.key
    assert "pareto" not in {figure.key for figure in sweep_figures(report(objectives=("worst",)))}


def test_the_page_and_its_twin_say_the_same_and_fetch_nothing(tmp_path: Path) -> None:
    page = write_sweep(report(name="<script>alert(1)</script>"), tmp_path).read_text(encoding="utf-8")
    twin = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (twin["steps_trained"], twin["best"]) == (320, ["trial-002"])
    assert "alert(1)</script>" not in page
    assert "default-src 'none'" in page
    for text in ("★ trial-002", "80.0%", "0.600", "not started", "trunk-000@20", "mixture.policy.strength: 1 → 2"):
        assert text in page, text


def test_a_sweep_without_a_result_still_has_a_page() -> None:
    from dataclasses import replace

    empty = replace(report(), trials=(swept(3, step=40, policy="odm", value=None),), best=(), shared=(), clones=())
    assert "not started" in render_sweep(empty)


def test_numbers_stand_to_scale_on_their_axis_and_words_in_order() -> None:
    assert positions({"a": 10, "b": 20, "c": 12.5}) == {"a": 0.0, "b": 1.0, "c": 0.25}
    assert positions({"a": "x", "b": "y", "c": "x"}) == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert positions({"a": 3}) == {"a": 0.5}
