"""Influence shares by hand, the sentence that names the main task, and where page and card show them."""

import dataclasses

import pytest

from evalsvc.report.card import model_card
from evalsvc.report.history import RunHistory
from evalsvc.report.influence import measure_influence
from evalsvc.report.model import build_report
from evalsvc.report.page import render_page
from scheduler.engine import HeatEngine
from scheduler.records import AttemptRecord, DecisionRecord, IntervalRecord, Record, RunRecord
from scheduler.signals import TaskGradient
from tests.unit.evalsvc.report.simulated_run import FACTS, TASKS, setup, simulated_records
from tests.unit.scheduler.made import report


def gradient(task: str, step: int, *, norm: float = 1.0, cosine: float = 0.1) -> TaskGradient:
    return TaskGradient(task=task, step=step, num_rows=8, norm=norm, variance=1.0, cosine=cosine)


def history(*boundaries: tuple[int, list[int], list[TaskGradient]]) -> RunHistory:
    made = setup()
    records: list[Record] = [
        RunRecord(4, made.model_dump(mode="json"), HeatEngine(made).plan),
        AttemptRecord(attempt=0, step=0),
    ]
    for step, served, gradients in boundaries:
        boundary = dataclasses.replace(report(served, step=step), gradients=tuple(gradients))
        records.append(IntervalRecord(boundary, staleness_steps=0))
    return RunHistory.of(records)


def test_influence_is_token_share_times_pull_summed_over_the_run() -> None:
    found = measure_influence(
        history(
            (25, [100, 100, 100, 100], [gradient("lcr", 24, norm=3.0), gradient("qa", 24)]),
            (50, [200, 200, 200, 200], [gradient("lcr", 49, norm=1.0)]),
        )
    )
    assert found.tasks["lcr"].share == pytest.approx((3 + 1) / (3 + 1 + 1 + 1))
    assert found.tasks["qa"].nominal_share == pytest.approx(0.25)
    assert found.tasks["lcr"].num_measurements == 2
    assert found.tasks["lcr"].mean_norm == pytest.approx(2.0)
    assert found.tasks.keys() == {"lcr", "qa"}


def test_the_main_task_is_named_beside_the_one_that_has_the_samples() -> None:
    gradients = [gradient("lcr", step, norm=9.0) for step in (1, 2, 3)] + [gradient("qa", step) for step in (1, 2, 3)]
    found = measure_influence(history((25, [100, 300, 0, 0], gradients)))
    assert found.main_task == "lcr"
    assert found.sentences[:2] == (
        "The de-facto main task is lcr (75% ± 0 of the influence, 25% of the samples).",
        "By samples it would be qa (25% ± 0 of the influence, 75% of the samples).",
    )


def test_no_main_task_is_named_where_the_measurements_scatter_more_than_the_lead() -> None:
    scattered = [gradient("lcr", step, cosine=cosine) for step, cosine in ((1, -0.4), (2, 0.5), (3, -0.2), (4, 0.6))]
    steady = [gradient("qa", step, cosine=0.1) for step in (1, 2, 3, 4)]
    found = measure_influence(history((25, [100, 100, 0, 0], [*scattered, *steady])))
    assert found.main_task == "lcr"
    assert found.sentences[0].startswith("No task leads beyond the error of the measurements; nearest are lcr (")


def test_a_task_pulled_against_has_no_influence_and_one_measured_once_is_marked() -> None:
    found = measure_influence(history((25, [100, 100, 0, 0], [gradient("lcr", 24), gradient("qa", 24, cosine=-0.2)])))
    assert (found.tasks["lcr"].share, found.tasks["qa"].share) == (1.0, 0.0)
    assert found.sentences[-1] == "Measured less than 3 times: lcr, qa."


def test_a_run_that_measured_nothing_says_nothing() -> None:
    found = measure_influence(history((25, [100, 100, 100, 100], [])))
    assert (found.tasks, found.main_task, found.sentences) == ({}, None, ())


def test_page_and_card_show_influence_and_what_was_recognised() -> None:
    records = simulated_records()
    last = max(index for index, record in enumerate(records) if isinstance(record, IntervalRecord))
    boundary = records[last]
    assert isinstance(boundary, IntervalRecord)
    gradients = tuple(
        gradient(name, step, norm=1.0 + index) for index, name in enumerate(TASKS) for step in (147, 148, 149)
    )
    records[last] = dataclasses.replace(boundary, report=dataclasses.replace(boundary.report, gradients=gradients))
    decided = max(index for index, record in enumerate(records) if isinstance(record, DecisionRecord))
    decision = records[decided]
    assert isinstance(decision, DecisionRecord)
    noise, solved, *rest = decision.tasks
    named = (dataclasses.replace(noise, noise_since=50, learnability=0.1), dataclasses.replace(solved, solved_since=75))
    records[decided] = dataclasses.replace(decision, tasks=(*named, *rest))
    made = build_report(records, FACTS)
    page, card = render_page(made), model_card(made, FACTS)
    for text in (page, card):
        assert f"The de-facto main task is {made.influence.main_task}" in text
        assert (
            "lcr: noise, or out of reach: more exposure brought no progress since step 50; its heat counts 10%." in text
        )
        assert "qa: solved since step 75." in text
    assert page.count('data-influence="') == len(TASKS)
