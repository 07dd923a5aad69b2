"""Write a sweep's report: `report.html`, one file that needs no network, and its JSON twin `report.json`."""

from pathlib import Path

from evalsvc.report.page import render, write_page
from evalsvc.report.sweep import SweepReport
from evalsvc.report.sweep_charts import sweep_figures


def write_sweep(report: SweepReport, directory: Path) -> Path:
    """Write `report.html` and `report.json` into `directory`; returns the page's path."""
    return write_page(report, render_sweep(report), directory, stem="report")


def render_sweep(report: SweepReport) -> str:
    """The page as HTML text."""
    return render("sweep.html.j2", sweep_figures(report), report=report)
