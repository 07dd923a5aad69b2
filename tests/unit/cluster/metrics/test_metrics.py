import json
import re
from itertools import combinations
from typing import Any

import pytest
from click.testing import CliRunner
from ray.util.metrics import Gauge

from cluster.cli import main
from cluster.metrics.dashboard import dashboard
from cluster.metrics.exporter import PrometheusExporter
from cluster.metrics.figures import figures
from cluster.metrics.names import FAULT_KINDS, METRICS, PLAN_VERSION, SCORE, STALENESS, STEP, WEIGHT
from cluster.views.run_state import RunState
from evalsvc.report.history import RunHistory
from scheduler.records import RestartRecord
from tests.unit.evalsvc.report.simulated_run import simulated_records

RECORDS = simulated_records()


def state_after(count: int | None = None) -> RunState:
    state = RunState(lambda: 0.0)
    for record in RECORDS[:count]:
        state.observe(record)
    return state


def test_the_gauges_are_where_the_run_stands() -> None:
    state = state_after()
    found = {(figure.metric, figure.task): figure.value for figure in figures(state)}
    history = state.history
    assert found[STEP, None] == history.boundaries[-1].report.step
    assert found[PLAN_VERSION, None] == history.boundaries[-1].plan.version
    assert found[STALENESS, None] == history.boundaries[-1].staleness_steps
    for index, name in enumerate(history.task_names):
        assert found[WEIGHT, name] == history.plans[-1].weights[index]
        assert found[SCORE, name] == history.signals[name][-1].score
    assert {metric for metric, _ in found} <= set(METRICS)


def test_what_is_not_known_yet_is_not_set() -> None:
    assert list(figures(RunState(lambda: 0.0))) == []
    metrics = {figure.metric for figure in figures(state_after(1))}
    assert WEIGHT in metrics
    assert SCORE not in metrics


def test_every_kind_of_fault_is_a_kind_of_event() -> None:
    history = RunHistory.of([*RECORDS, RestartRecord("engine", "x")])
    assert {event.kind for event in history.events} & set(FAULT_KINDS) >= {"actor", "restart"}


# -- dashboard ------------------------------------------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    return dashboard()["panels"]


def test_the_dashboard_draws_every_metric_and_no_other() -> None:
    queries = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    drawn = set(re.findall(r"ray_taskheat\w+", queries))
    assert drawn == {metric.served_name for metric in METRICS}


def test_every_query_is_of_the_chosen_run_and_per_task_charts_tell_tasks_apart() -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert target["expr"].count("ray_taskheat") == target["expr"].count('{run=~"$run"}'), panel["title"]
    by_title = {panel["title"]: panel for panel in panels()}
    for metric in METRICS:
        if metric.per_task:
            assert by_title[metric.meaning]["targets"][0]["legendFormat"] == "{{task}}"


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


def test_the_command_prints_the_dashboard() -> None:
    done = CliRunner().invoke(main, ["manifest", "--kind", "grafana"])
    assert json.loads(done.stdout) == dashboard()


def test_gauges_are_set_again_every_five_seconds_because_ray_forgets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is not connected here; what it is told is what counts."""
    told: list[tuple[str, float, tuple[str | None, str]]] = []

    def remember(gauge: Gauge, value: float, tags: dict[str, str]) -> None:
        told.append((gauge.info["name"], value, (tags.get("task"), tags["run"])))

    monkeypatch.setattr(Gauge, "set", remember)
    now = [0.0]
    exporter = PrometheusExporter("demo", clock=lambda: now[0])
    for record in RECORDS:
        exporter.observe(record)
    exporter.tick()
    assert told == []
    rounds = []
    for now[0] in (5.0, 7.0, 10.0):
        told.clear()
        exporter.tick()
        rounds.append(list(told))
    assert rounds[0] == rounds[2]
    assert rounds[1] == []
    assert {run for _, _, (_, run) in rounds[0]} == {"demo"}
    assert len(rounds[0]) == len(list(figures(state_after())))
