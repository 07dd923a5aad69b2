import io
from pathlib import Path

import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from cluster.views.plain import PlainView
from cluster.views.run_state import RunState
from cluster.views.table import TableView, final_table
from cluster.views.tensorboard import TensorBoardWriter
from evalsvc.report.model import build_report
from scheduler.records import AttemptRecord, DecisionRecord, RefusedRecord
from tests.unit.evalsvc.report.simulated_run import (
    CHECKPOINT_STEP,
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


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def text_of(renderable) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_the_state_follows_the_run_to_its_end():
    state = RunState(Clock())
    for record in RECORDS:
        state.observe(record)
    assert (state.step, state.total_steps, state.stage, state.eta_s) == (TOTAL, TOTAL, 2, 0.0)
    for task in state.tasks():
        assert task.score == REPORT.tasks[task.name].last_score
        assert task.samples == REPORT.tasks[task.name].samples
        assert task.heat == REPORT.tasks[task.name].heat


def test_a_restart_takes_the_state_back():
    state = RunState(Clock())
    for record in RECORDS:
        state.observe(record)
        if isinstance(record, AttemptRecord) and record.attempt == 1:
            break
    assert (state.step, state.stage, state.plan_version, state.eta_s) == (CHECKPOINT_STEP, 1, 2, None)


def test_time_left_comes_from_the_recent_speed():
    clock = Clock()
    state = RunState(clock)
    for record in RECORDS[:3]:
        state.observe(record)
    assert state.eta_s is None
    for step in (10, 20, 30):
        clock.now_s += 5.0
        state.heartbeat(step=step, loss=1.5, samples_per_s=64.0)
    assert state.eta_s == pytest.approx((TOTAL - 30) * 0.5)
    clock.now_s += 2.0
    assert state.eta_s == pytest.approx((TOTAL - 30) * 0.5 - 2.0)
    assert (state.step, state.train_loss) == (30, 1.5)


def test_arrows_say_which_way_scores_and_weights_went():
    state = RunState(Clock())
    for record in RECORDS:
        state.observe(record)
        if isinstance(record, DecisionRecord) and record.plan.version == 1:
            break
    by_name = {task.name: task for task in state.tasks()}
    assert by_name["lcr"].weight_direction == "up"
    assert by_name["style"].weight_direction == "down"
    assert by_name["lcr"].score_direction is None
    state = RunState(Clock())
    for record in RECORDS:
        state.observe(record)
    assert {task.name: task.score_direction for task in state.tasks()}["lcr"] == "up"


def test_the_table_can_be_drawn_after_every_record():
    view = TableView(Clock())
    assert "waiting" in text_of(view)
    for record in RECORDS:
        view.observe(record)
        text = text_of(view)
        assert all(name in text for name in TASKS)
    assert f"step {TOTAL}/{TOTAL}" in text_of(view)


def test_the_plain_view_writes_one_line_a_decision_and_names_every_event():
    lines: list[str] = []
    view = PlainView(lines.append, Clock())
    for record in RECORDS:
        view.observe(record)
    decisions = sum(isinstance(record, DecisionRecord) for record in RECORDS)
    assert len(lines) == decisions + len(REPORT.events)
    assert all("\n" not in line for line in lines)
    assert lines[0].startswith(f"step   0/{TOTAL} stage 1 plan v1  lcr .05 heat .")
    assert any(line.startswith(f"step {STAGE_STEP}/{TOTAL}  Stage 2 began") for line in lines)
    assert any(f"At step {LATE_STEP}" in line for line in lines)


def test_verdicts_that_are_not_counted_are_a_line_of_the_log_and_an_event_of_the_report():
    lines: list[str] = []
    view = PlainView(lines.append, Clock())
    refused = RefusedRecord(task="", step=INTERVAL, reason="evaluation.human_verdicts, line 7: not JSON")
    for record in (*RECORDS[:-1], refused):
        view.observe(record)
    text = f"Refused at step {INTERVAL}: evaluation.human_verdicts, line 7: not JSON."
    assert lines[-1] == f"step  {INTERVAL}/{TOTAL}  {text}"
    assert text in [event.text for event in build_report([*RECORDS[:-1], refused], FACTS).events]


def test_the_final_table_shows_the_reports_figures_and_the_biggest_change():
    text = text_of(final_table(REPORT))
    assert REPORT.biggest_change is not None
    for name, task in REPORT.tasks.items():
        row = next(line for line in text.splitlines() if line.strip().startswith(f"{name} "))
        assert f"{task.first_score:.3f}" in row
        assert f"{task.last_weight:.1%}" in row
    assert REPORT.biggest_change.sentence in " ".join(text.split())


def read_events(path: Path) -> list[Event]:
    """TensorBoard's record framing: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data, events, at = path.read_bytes(), [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        events.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return events


def test_tensorboard_gets_every_series_and_purges_what_a_restart_undid(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    for record in RECORDS:
        writer.observe(record)
    writer.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    events = [event for path in files for event in read_events(path)]
    found = {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value}
    tags = {tag for tag, _ in found}
    kinds = ("weights", "score", "heat", "heldout_loss", "train_loss", "share", "epochs")
    assert tags == {"stage"} | {f"{kind}/{name}" for kind in kinds for name in TASKS}
    assert found["score/lcr", TOTAL] == pytest.approx(REPORT.tasks["lcr"].last_score, abs=1e-6)
    assert [found["stage", step] for step in range(0, TOTAL, INTERVAL)] == [1, 1, 1, 1, 2, 2]
    for segment in REPORT.segments:
        for name in TASKS:
            assert found[f"weights/{name}", segment.start_step] == pytest.approx(segment.weights[name], abs=1e-6)
            share = segment.samples[name] / sum(segment.samples.values())
            assert found[f"share/{name}", segment.end_step] == pytest.approx(share, abs=1e-6)
    assert all(found[f"epochs/{name}", 0] == 0 < found[f"epochs/{name}", TOTAL] for name in TASKS)
    assert [event.step for event in events if event.session_log.status] == [CHECKPOINT_STEP + 1]
