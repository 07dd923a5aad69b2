"""Engine and ledger as one: calls that come twice, attempts, deaths between two lines, other people's ledgers."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scheduler.errors import LedgerError, StateError
from scheduler.keeper import HeatKeeper, replay
from scheduler.ledger import read_ledger
from scheduler.policy_config import OdmPolicy
from scheduler.records import (
    AttemptRecord,
    CheckpointRecord,
    DecisionRecord,
    EndRecord,
    ForkRecord,
    IntervalRecord,
    LateRecord,
    RefusedRecord,
    SignalRecord,
    SkippedRecord,
    StageRecord,
    to_json,
)
from scheduler.setup import EngineSetup
from tests.unit.scheduler.made import report, setup, signal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def opened(path: Path, made: EngineSetup | None = None) -> HeatKeeper:
    keeper = HeatKeeper.open(path, made or setup())
    keeper.begin_attempt("first", 0)
    return keeper


def evaluate(keeper: HeatKeeper, step: int, *, attempt: int = 0, score: float = 0.3) -> None:
    for name in keeper.memory.engine.index_of:
        keeper.observe(signal(name, step=step, attempt=attempt, score=score))
    keeper.evaluation_done(attempt, step)


def kinds(path: Path) -> Counter[type]:
    return Counter(type(record) for record in read_ledger(path))


def test_a_call_repeated_writes_nothing_twice(path: Path) -> None:
    keeper = opened(path)
    for _ in range(3):
        keeper.begin_attempt("first", 0)
        keeper.observe(signal("a"))
        keeper.observe(signal("a", step=5000))
        keeper.evaluation_done(0, 0)
        keeper.skip(25)
        keeper.keep_late_plan(25)
        keeper.observe_interval(report([1, 2, 3], step=25))
        keeper.checkpoint(25)
        keeper.end(25, "stopped")
    kind_of_call = (
        AttemptRecord,
        DecisionRecord,
        SkippedRecord,
        LateRecord,
        IntervalRecord,
        CheckpointRecord,
        EndRecord,
    )
    assert {kind: kinds(path)[kind] for kind in kind_of_call} == dict.fromkeys(kind_of_call, 1)
    assert kinds(path)[SignalRecord] == 1


def test_a_call_repeated_after_the_keeper_died_writes_nothing_twice(path: Path) -> None:
    keeper = opened(path)
    again = HeatKeeper.open(path, setup())
    again.note_restart("engine", "came back")
    again = HeatKeeper.open(path, setup())
    assert again.begin_attempt("first", 0) == 0
    evaluate(again, 0)
    state = again.checkpoint(25)
    last = HeatKeeper.open(path, setup())
    evaluate(last, 0)
    assert last.checkpoint(25) == state
    assert (kinds(path)[AttemptRecord], kinds(path)[DecisionRecord], kinds(path)[CheckpointRecord]) == (1, 1, 1)
    assert keeper.memory.attempt == 0


def test_a_new_group_of_workers_after_a_death_is_a_new_attempt(path: Path) -> None:
    evaluate(opened(path), 0)
    assert HeatKeeper.open(path, setup()).begin_attempt("second", 0) == 1


def test_a_death_between_a_decision_and_its_stage_is_made_good(path: Path) -> None:
    made = setup(boundary={"type": "step", "step": 25})
    keeper = opened(path, made)
    evaluate(keeper, 0)
    whole = path.read_text()
    assert kinds(path)[StageRecord] == 1
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    HeatKeeper.open(path, made)
    assert path.read_text() == whole


def test_a_restart_rolls_the_engine_back_to_the_checkpoint(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 0)
    state = json.loads(json.dumps(keeper.checkpoint(25)))
    evaluate(keeper, 25, score=0.9)
    assert keeper.begin_attempt("second", 25, state) == 1
    assert keeper.memory.engine.state_dict() == state
    assert keeper.memory.decided_step == 0
    evaluate(keeper, 25, attempt=1)
    assert keeper.memory.engine.plan.version == 2
    assert replay(read_ledger(path)).engine.plan == keeper.memory.engine.plan


def test_an_attempt_says_which_newer_checkpoints_were_not_taken(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 0)
    state = keeper.checkpoint(25)
    evaluate(keeper, 25)
    keeper.checkpoint(50)
    assert keeper.begin_attempt("second", 25, state, ("step 50 is damaged",)) == 1
    attempts = [record for record in read_ledger(path) if isinstance(record, AttemptRecord)]
    assert attempts[-1] == AttemptRecord(attempt=1, step=25, refused_checkpoints=("step 50 is damaged",))
    with pytest.raises(LedgerError, match="resume from step 50"):
        keeper.begin_attempt("third", 50)
    assert HeatKeeper.open(path, setup()).memory.engine.state_dict() == state


def test_a_fork_goes_on_under_its_own_setup_from_the_checkpoint_alone(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 0)
    keeper.checkpoint(25)
    evaluate(keeper, 25)
    keeper.checkpoint(50)
    made = setup(policies=(OdmPolicy(), OdmPolicy()))
    fork = ForkRecord(step=25, setup=made.model_dump(mode="json"), changed=("mixture.policy: heat → odm",))
    with path.open("a", encoding="utf-8") as file:
        file.write(to_json(fork) + "\n")
    with pytest.raises(StateError, match="another configuration"):
        HeatKeeper.open(path, setup())
    forked = HeatKeeper.open(path, made)
    state = forked.memory.checkpoint_at(25)
    for step in (0, 50):
        with pytest.raises(LedgerError):
            forked.begin_attempt(f"at {step}", step)
    assert forked.begin_attempt("forked", 25, state) == 1
    evaluate(forked, 25, attempt=1)
    assert replay(read_ledger(path)).engine.plan == forked.memory.engine.plan
    assert HeatKeeper.open(path, made).memory.engine.state_dict() == forked.memory.engine.state_dict()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": 7}, "global_batch_size differs"),
        ({"num_rows": [1, 2, 3]}, "num_rows differs"),
        ({"interval_steps": 5}, "interval_steps differs"),
        ({"total_steps": 25}, "total_steps 25 is not beyond step 25"),
    ],
)
def test_a_fork_to_other_samples_is_refused(changed: dict[str, Any], said: str, path: Path) -> None:
    keeper = opened(path)
    keeper.checkpoint(25)
    made = setup(**changed)
    with pytest.raises(LedgerError, match=said):
        keeper.memory.fold(ForkRecord(step=25, setup=made.model_dump(mode="json"), changed=()))
    with pytest.raises(LedgerError, match="no checkpoint at step 50 to fork from"):
        keeper.memory.fold(ForkRecord(step=50, setup=setup().model_dump(mode="json"), changed=()))


def test_a_restart_without_a_checkpoint_begins_anew(path: Path) -> None:
    keeper = opened(path)
    initial = keeper.memory.engine.plan
    evaluate(keeper, 0)
    keeper.begin_attempt("second", 0)
    assert keeper.memory.engine.plan == initial
    assert keeper.memory.plan_in_force(0) == initial


def test_a_checkpoint_at_step_zero_is_resumed_from_like_any_other(path: Path) -> None:
    made = setup(mode="sync")
    keeper = opened(path, made)
    evaluate(keeper, 0)
    state = keeper.checkpoint(0)
    keeper.begin_attempt("second", 0, state)
    assert keeper.memory.engine.plan.version == 1


def test_a_plan_not_yet_in_force_at_the_checkpoint_leaves_the_older_one_in_force(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 0)
    evaluate(keeper, 25)
    keeper.checkpoint(25)
    keeper.begin_attempt("second", 25)
    assert keeper.memory.plan_in_force(25).version == 1
    assert keeper.memory.plan_in_force(50).version == 2


def test_signals_of_an_evaluation_the_old_workers_left_undecided_do_not_block_the_new_ones(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 0)
    keeper.observe(signal("a", step=25, score=0.4))
    keeper.checkpoint(25)
    keeper.begin_attempt("second", 25)
    evaluate(keeper, 25, attempt=1, score=0.4)
    assert kinds(path)[RefusedRecord] == 0
    assert replay(read_ledger(path)).engine.state_dict() == keeper.memory.engine.state_dict()


def test_a_checkpoint_of_another_run_is_refused_and_nothing_changes(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 0)
    state = keeper.checkpoint(25)
    before, lines = keeper.memory.engine.state_dict(), len(keeper.lines)
    with pytest.raises(LedgerError, match="resume from step 50, but the ledger has checkpoints at"):
        keeper.begin_attempt("second", 50)
    with pytest.raises(LedgerError, match="holds another engine state than the ledger"):
        keeper.begin_attempt("second", 25, state | {"served": [1.0, 1.0, 1.0]})
    assert (keeper.memory.engine.state_dict(), len(keeper.lines), keeper.memory.attempt) == (before, lines, 0)


def test_signals_of_another_attempt_are_refused_by_its_number(path: Path) -> None:
    keeper = opened(path)
    keeper.observe(signal("a", attempt=1))
    assert list(read_ledger(path))[-1] == RefusedRecord("a", 0, "from attempt 1; the run is at attempt 0")
    keeper.observe(signal("a", attempt=False))
    assert list(read_ledger(path))[-1] == RefusedRecord(
        "a", 0, "attempt is False; expected a whole number from 0 to 2**53"
    )


def test_signals_after_the_decision_are_late(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 25)
    keeper.observe(signal("b", step=0))
    assert list(read_ledger(path))[-1] == RefusedRecord(
        "b", 0, "late: the evaluation at step 25 has already been decided on"
    )


def test_verdicts_that_are_not_counted_stand_in_the_ledger_once_and_change_no_decision(path: Path) -> None:
    keeper, other = opened(path), opened(path.with_name("other.jsonl"))
    for _ in range(2):
        keeper.note_refused_verdicts(0, "line 7: not JSON")
    evaluate(keeper, 0)
    evaluate(other, 0)
    assert kinds(path)[RefusedRecord] == 1
    assert list(read_ledger(path))[-1] == list(read_ledger(other._ledger.path))[-1]
    assert replay(read_ledger(path)).engine.state_dict() == other.memory.engine.state_dict()


@pytest.mark.parametrize("task", ["\ud800", ["a"], 10**5000, object(), "x" * 10_000], ids=type)
def test_a_task_of_any_kind_is_refused_in_one_readable_line(path: Path, task: object) -> None:
    keeper = opened(path)
    keeper.observe(dataclasses.replace(signal("a"), task=task))  # pyright: ignore[reportArgumentType]
    last = list(read_ledger(path))[-1]
    assert isinstance(last, RefusedRecord)
    assert len(last.reason) < 200
    assert len(keeper.lines[-1]) < 800


def test_the_evaluation_of_the_last_step_is_recorded_but_decides_nothing(path: Path) -> None:
    keeper = opened(path, setup(total_steps=100))
    evaluate(keeper, 100)
    assert (kinds(path)[SignalRecord], kinds(path)[DecisionRecord]) == (3, 0)


def test_in_lag1_a_plan_waits_for_the_evaluation_one_interval_before(path: Path) -> None:
    keeper = opened(path)
    assert keeper.ready_plan(0) is not None
    assert keeper.ready_plan(25) is None
    evaluate(keeper, 0)
    plan = keeper.ready_plan(25)
    assert plan is not None
    assert (plan.version, plan.effective_from_step) == (1, 25)


def test_in_sync_a_plan_waits_for_its_own_step_and_in_async_for_nothing(tmp_path: Path) -> None:
    waiting, free = opened(tmp_path / "s", setup(mode="sync")), opened(tmp_path / "a", setup(mode="async"))
    assert waiting.ready_plan(0) is None
    evaluate(waiting, 0)
    assert waiting.ready_plan(0) == waiting.memory.engine.plan
    assert free.ready_plan(900) == free.memory.engine.plan


def test_a_skipped_evaluation_is_not_waited_for(path: Path) -> None:
    keeper = opened(path)
    keeper.skip(0)
    plan = keeper.ready_plan(25)
    assert plan is not None
    assert plan.version == 0


def test_a_late_plan_is_kept_and_the_new_one_holds_from_the_next_boundary(path: Path) -> None:
    keeper = opened(path)
    assert keeper.keep_late_plan(25).version == 0
    evaluate(keeper, 0)
    assert LateRecord(step=25, awaited_step=0, kept_version=0) in list(read_ledger(path))
    assert keeper.memory.plan_in_force(50).version == 1


def test_the_age_of_the_evidence_behind_a_plan_is_recorded(path: Path) -> None:
    keeper = opened(path)
    evaluate(keeper, 0)
    keeper.observe_interval(report([1, 1, 1], step=75, plan_version=1))
    last = list(read_ledger(path))[-1]
    assert isinstance(last, IntervalRecord)
    assert last.staleness_steps == 75


def test_workers_under_a_plan_the_run_never_made_are_an_error(path: Path) -> None:
    with pytest.raises(LedgerError, match=r"step 25 begins under plan 7; the latest are \[0\]"):
        opened(path).observe_interval(report([1, 1, 1], step=25, plan_version=7))


def test_a_report_on_another_number_of_tasks_is_an_error_and_is_not_recorded(path: Path) -> None:
    keeper = opened(path)
    with pytest.raises(StateError, match="on 2 tasks; this run has 3"):
        keeper.observe_interval(report([1, 1], step=25))
    assert kinds(path)[IntervalRecord] == 0


def test_lines_are_handed_on_from_any_number_though_only_the_newest_are_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.keeper._RECENT_LINES", 3)
    monkeypatch.setattr("scheduler.keeper._LINES_AT_ONCE", 4)
    keeper = opened(path)
    evaluate(keeper, 0)
    evaluate(keeper, 25)
    whole = path.read_text().split("\n")[:-1]
    assert keeper.lines == whole
    assert keeper.num_lines == len(whole) > 7
    assert keeper.lines_from(len(whole) - 2) == whole[-2:]
    assert keeper.lines_from(len(whole)) == []
    seen: list[str] = []
    while more := keeper.lines_from(len(seen)):
        seen += more
    assert seen == whole
