import dataclasses
import json
import math

import pytest

from evalsvc.report.model import build_report
from evalsvc.report.page import report_json
from evalsvc.report.words import COMPONENTS
from scheduler.errors import LedgerError
from scheduler.records import AttemptRecord, DecisionRecord, IntervalRecord, RunRecord, SignalRecord, StageRecord
from tests.unit.evalsvc.report.simulated_run import (
    BATCH,
    CHECKPOINT_STEP,
    CRASH_STEP,
    FACTS,
    INTERVAL,
    LATE_STEP,
    STAGE_STEP,
    TASKS,
    TOTAL,
    simulated_records,
)

RECORDS = simulated_records()
REPORT = build_report(RECORDS, FACTS)


def test_steps_trained_twice_are_counted_once():
    assert REPORT.num_steps == TOTAL
    assert REPORT.num_samples == TOTAL * BATCH
    assert sum(task.samples for task in REPORT.tasks.values()) == TOTAL * BATCH
    assert REPORT.num_attempts == 2


def test_segments_cover_every_step_once():
    edges = [(segment.start_step, segment.end_step) for segment in REPORT.segments]
    assert edges == [(start, start + INTERVAL) for start in range(0, TOTAL, INTERVAL)]


def test_what_a_restart_undid_is_kept_aside():
    undone = {(point.task, point.step) for point in REPORT.superseded.scores}
    assert undone == {(task, step) for task in TASKS for step in (CHECKPOINT_STEP, CHECKPOINT_STEP + INTERVAL)}
    assert {decision.version for decision in REPORT.superseded.decisions} == {3, 4}
    assert REPORT.superseded.num_boundaries == (CRASH_STEP - CHECKPOINT_STEP) // INTERVAL
    assert [decision.version for decision in REPORT.decisions] == list(range(1, REPORT.num_plans))


def test_surviving_scores_after_the_checkpoint_are_of_the_second_attempt():
    assert all(point.attempt == 1 for point in REPORT.scores if point.step >= CHECKPOINT_STEP)
    assert len({(point.task, point.step) for point in REPORT.scores}) == len(REPORT.scores)


def test_first_and_last_are_of_the_first_and_last_evaluation_and_plan():
    signals = [record.signal for record in RECORDS if isinstance(record, SignalRecord)]
    first_plan = next(record.plan for record in RECORDS if isinstance(record, RunRecord))
    for index, name in enumerate(TASKS):
        own = [signal for signal in signals if signal.task == name]
        assert REPORT.tasks[name].first_score == own[0].score
        assert REPORT.tasks[name].last_score == own[-1].score
        assert REPORT.tasks[name].first_weight == first_plan.weights[index]
        assert REPORT.tasks[name].last_weight == REPORT.segments[-1].weights[name]


def test_target_share_is_the_mean_weight_over_the_steps_really_trained():
    for name, task in REPORT.tasks.items():
        steps = [segment.weights[name] for segment in REPORT.segments for _ in range(INTERVAL)]
        assert task.target_share == pytest.approx(sum(steps) / TOTAL, abs=1e-12)
        assert task.realised_share == task.samples / (TOTAL * BATCH)


def test_the_share_error_is_the_greatest_distance_at_any_boundary():
    worst = 0.0
    for end in range(1, len(REPORT.segments) + 1):
        for name in TASKS:
            served = sum(segment.samples[name] for segment in REPORT.segments[:end])
            owed = sum(segment.weights[name] * INTERVAL * BATCH for segment in REPORT.segments[:end])
            worst = max(worst, abs(served - owed))
    assert math.isclose(REPORT.max_share_error, worst, abs_tol=1e-9)
    assert 0 < worst < 2


def test_a_late_plan_counts_from_the_step_it_was_trained_under():
    segment = next(segment for segment in REPORT.segments if segment.start_step == LATE_STEP)
    assert segment.plan_version == 4
    missed = next(decision for decision in REPORT.decisions if decision.effective_from_step == LATE_STEP)
    assert missed.in_force_from_step is None
    assert any(event.kind == "late" and str(LATE_STEP) in event.text for event in REPORT.events)


def test_the_stage_boundary_is_the_first_step_trained_in_stage_two():
    assert REPORT.stage_boundary_step == STAGE_STEP
    stages = [event for event in REPORT.events if event.kind == "stage"]
    assert [event.superseded for event in stages] == [True, False]


def test_a_run_cut_before_stage_two_has_no_stage_boundary():
    cut = next(index for index, record in enumerate(RECORDS) if isinstance(record, StageRecord))
    report = build_report(RECORDS[:cut], FACTS)
    assert report.stage_boundary_step is None
    assert report.end_reason is None


def test_the_biggest_change_is_the_greatest_move_of_a_plan_that_was_trained_under():
    moves = {
        (task.task, decision.version): abs(task.weight_after - task.weight_before)
        for decision in REPORT.decisions
        if decision.in_force_from_step is not None
        for task in decision.tasks
    }
    change = REPORT.biggest_change
    assert change is not None
    assert abs(change.after - change.before) == moves[change.task, change.version] == max(moves.values())
    assert change.task in change.sentence
    assert change.sentence in REPORT.notable


def test_heat_parts_sum_to_the_heat():
    for decision in REPORT.decisions:
        for task in decision.tasks:
            parts = decision.heat_parts[task.task]
            assert sum(getattr(parts, name) for name in COMPONENTS) == pytest.approx(task.heat, abs=1e-12)


def test_every_prefix_of_a_ledger_makes_a_report():
    for end in range(1, len(RECORDS) + 1):
        report = build_report(RECORDS[:end], FACTS)
        assert report.num_samples == report.num_steps * BATCH
        json.loads(report_json(report))


def test_a_run_with_no_step_trained_has_no_shares():
    report = build_report(RECORDS[:1], FACTS)
    assert report.num_steps == 0
    assert report.biggest_change is None
    assert {task.realised_share for task in report.tasks.values()} == {None}


def test_a_ledger_without_its_first_line_is_refused():
    with pytest.raises(LedgerError, match="run record"):
        build_report([], FACTS)


def test_a_boundary_under_an_unknown_plan_is_refused():
    records = [record for record in RECORDS if not isinstance(record, DecisionRecord)]
    with pytest.raises(LedgerError, match="plan 1"):
        build_report(records, FACTS)


def test_a_missing_decision_is_refused():
    gone = next(record for record in RECORDS if isinstance(record, DecisionRecord) and record.plan.version == 2)
    with pytest.raises(LedgerError, match="plan 3"):
        build_report(
            [record for record in RECORDS if record is not gone and not isinstance(record, IntervalRecord)], FACTS
        )


def test_a_resume_from_a_step_without_checkpoint_is_refused():
    with pytest.raises(LedgerError, match="checkpoint"):
        build_report([*RECORDS, AttemptRecord(attempt=2, step=INTERVAL)], FACTS)


def test_a_restart_from_scratch_forgets_every_decision():
    report = build_report([*RECORDS, AttemptRecord(attempt=2, step=0)], FACTS)
    assert report.num_plans == 1
    assert report.num_steps == 0
    assert report.end_reason is None


def test_the_json_twin_has_exactly_this_schema():
    twin = json.loads(report_json(REPORT))
    assert twin.keys() == {
        "schema_version", "run_name", "model", "num_workers", "mode", "seed", "num_steps", "total_steps",
        "interval_steps", "global_batch_size", "num_samples", "num_plans", "num_attempts", "stage_boundary_step",
        "end_reason", "weight_unit", "max_share_error", "arranged", "max_staleness_steps", "wall_seconds",
        "num_sessions", "num_untimed_sessions", "rows",
        "tasks", "decisions", "events", "biggest_change", "notable", "segments", "scores", "superseded",
        "influence",
    }  # fmt: skip
    assert twin["tasks"]["lcr"].keys() == {
        "kind", "tier", "target_score", "first_score", "last_score", "test_score", "first_weight", "last_weight",
        "target_share", "realised_share", "samples", "tokens", "epochs", "heat", "learnability",
        "noise_since", "solved_since", "recognised",
        "components", "heat_parts",
    }  # fmt: skip
    assert twin["decisions"][0].keys() == {
        "version", "source_step", "effective_from_step", "in_force_from_step", "stage", "state", "held", "weights",
        "tasks", "heat_parts", "sentences",
    }  # fmt: skip
    assert twin["biggest_change"].keys() == {"task", "version", "before", "after", "sentence"}
    assert twin["events"][0].keys() == {"step", "kind", "text", "plan_version", "superseded"}
    assert twin["tasks"]["lcr"]["components"].keys() == set(COMPONENTS)
    assert twin == json.loads(json.dumps(dataclasses.asdict(REPORT)))
