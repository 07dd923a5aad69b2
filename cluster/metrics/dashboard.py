"""The Grafana dashboard, as JSON for `Dashboards → Import` or a provisioning folder."""

from typing import Any

from cluster.metrics.names import (
    FAULTS,
    HEAT,
    HELDOUT_LOSS,
    PLAN_VERSION,
    SAMPLES,
    SCORE,
    SPEED,
    STAGE,
    STALENESS,
    STEP,
    TOTAL_STEPS,
    TRAIN_LOSS,
    WEIGHT,
    Metric,
)

_SCHEMA_VERSION = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_RUN = '{run=~"$run"}'
_WIDTH = 24

_Panel = dict[str, Any]


def dashboard() -> dict[str, Any]:
    """One page: where the run stands, then a chart for each figure of the tasks; a run is chosen by name."""
    stats = [
        _stat("Progress", f"{_of(STEP)} / {_of(TOTAL_STEPS)}", unit="percentunit"),
        _stat("Stage", _of(STAGE)),
        _stat("Plan", _of(PLAN_VERSION)),
        _stat("Samples per second", _of(SPEED)),
        _stat("Staleness, steps", _of(STALENESS)),
        _stat("Faults", f"sum by (run) ({_of(FAULTS)})"),
    ]
    charts = [_chart(metric) for metric in (WEIGHT, HEAT, SCORE, HELDOUT_LOSS, TRAIN_LOSS, SAMPLES)]
    charts.append(_lines("Faults by kind", f"increase({_of(FAULTS)}[5m])", legend="{{kind}}", unit="short"))
    return {
        "uid": "taskheat",
        "title": "taskheat",
        "tags": ["taskheat", "ray"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _placed(stats, width=4, height=4, top=0) + _placed(charts, width=12, height=8, top=4),
    }


def _of(metric: Metric) -> str:
    return f"{metric.served_name}{_RUN}"


def _variables() -> list[dict[str, Any]]:
    runs = f"label_values({WEIGHT.served_name}, run)"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "run",
            "label": "Run",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": runs, "refId": "runs"},
            "refresh": 2,
            "sort": 2,
            "includeAll": False,
            "multi": False,
        },
    ]


def _stat(title: str, query: str, *, unit: str = "short") -> _Panel:
    return _panel("stat", title, query, legend="", unit=unit) | {
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "none"}
    }


def _chart(metric: Metric) -> _Panel:
    return _lines(metric.meaning, _of(metric), legend="{{task}}", unit=metric.unit)


def _lines(title: str, query: str, *, legend: str, unit: str) -> _Panel:
    return _panel("timeseries", title, query, legend=legend, unit=unit) | {
        "options": {
            "legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    }


def _panel(kind: str, title: str, query: str, *, legend: str, unit: str) -> _Panel:
    return {
        "type": kind,
        "title": title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"refId": "A", "datasource": _SOURCE, "expr": query, "legendFormat": legend}],
    }


def _placed(panels: list[_Panel], *, width: int, height: int, top: int) -> list[_Panel]:
    """The panels in rows from `top` on, each with a number of its own."""
    in_row = _WIDTH // width
    return [
        panel
        | {
            "id": 100 * top + index + 1,
            "gridPos": {"x": index % in_row * width, "y": top + index // in_row * height, "w": width, "h": height},
        }
        for index, panel in enumerate(panels)
    ]
