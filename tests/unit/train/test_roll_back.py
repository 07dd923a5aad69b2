"""A run that goes back before the peak of a task that overfits, and on without it."""

from pathlib import Path
from typing import TypeVar

import pytest

from cluster.audit import audit
from cluster.driver import stage_to_go_on_with
from evalsvc.report.history import RunHistory
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord, DecisionRecord, RollbackRecord, SignalRecord, StorageRecord
from tests.unit.train.local_run import CrashError, Disturbances, LocalRun, local_run, small_tasks
from train.worker_job import WorkerResult

STEPS, INTERVAL = 60, 3
Kind = TypeVar("Kind")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_tasks(tmp_path_factory.mktemp("tasks"))


def overfitting_run(
    folder: Path, name: str, data: list[Path], action: str = "roll_back", mode: str = "lag1", every_intervals: int = 2
) -> LocalRun:
    """Guesses of random letters are learnt by heart within a few epochs."""
    return local_run(
        folder,
        name,
        data,
        model={"hidden_size": 64},
        data={"probes_per_task": 8, "test_per_task": 4},
        tasks={"noise": {"base_weight": 0.7}, "copy": {"base_weight": 0.15}, "last": {"base_weight": 0.15}},
        stages=[{"name": "only"}],
        train={"steps": STEPS, "checkpoint_every_intervals": every_intervals, "keep_checkpoints": 2},
        mixture={
            "mode": mode,
            "policy": {"type": "static"},
            "guards": {"overfit_action": action, "overfit_patience": 2, "max_change": 0.5, "late_max_change": 0.5},
        },
    )


def to_the_end(run: LocalRun) -> tuple[WorkerResult, int]:
    """Group after group, as the driver starts them; how the last one ended, and how many went back."""
    went_back = 0
    while (result := run.start()).reason == "rolled_back":
        went_back += 1
        assert result.step > max(run.checkpoints, default=0)
    return result, went_back


def records(run: LocalRun, kind: type[Kind]) -> list[Kind]:
    return [record for record in read_ledger(run.ledger) if isinstance(record, kind)]


def first_rollback(run: LocalRun) -> RollbackRecord:
    rollback = records(run, RollbackRecord)[0]
    assert isinstance(rollback, RollbackRecord)
    return rollback


def peak(run: LocalRun, task: str, *, before: int) -> int:
    """Step of the task's least held-out loss in the first attempt."""
    signals = [record.signal for record in read_ledger(run.ledger) if isinstance(record, SignalRecord)]
    losses = {one.step: one.loss for one in signals if one.task == task and one.attempt == 0 and one.step <= before}
    return min(losses, key=lambda step: losses[step])


@pytest.mark.parametrize("mode", ["lag1", "sync"])
def test_the_run_goes_back_before_the_peak_and_on_without_the_task_and_its_ledger_replays(
    mode: str, tmp_path: Path, data: list[Path]
) -> None:
    run = overfitting_run(tmp_path, "run", data, mode=mode)
    result, went_back = to_the_end(run)
    assert (result.reason, result.step) == ("finished", STEPS)
    assert went_back == len(records(run, RollbackRecord)) >= 1
    first = first_rollback(run)
    assert "noise" in first.tasks
    assert first.to_step <= min(peak(run, task, before=first.step) for task in first.tasks) < first.step
    starts = records(run, AttemptRecord)
    assert (starts[1].step, starts[1].frozen) == (first.to_step, first.tasks)
    last = records(run, DecisionRecord)[-1]
    assert last.tasks[-1].task == "noise"
    assert last.tasks[-1].held_by == "overfit freeze"
    assert audit(run.ledger).num_steps == STEPS
    told = [event.text for event in RunHistory.of(read_ledger(run.ledger)).events if event.kind == "restart"]
    assert f"the run goes back to the checkpoint at step {first.to_step} and goes on without." in told[0]
    assert told[1].endswith(f"From there on without what overfits: {', '.join(first.tasks)}.")


def test_what_the_task_was_trained_on_after_its_peak_is_not_in_the_model(tmp_path: Path, data: list[Path]) -> None:
    back, frozen = overfitting_run(tmp_path, "back", data), overfitting_run(tmp_path, "frozen", data, action="freeze")
    to_the_end(back)
    to_the_end(frozen)
    noise = back.inputs.prepared.task_names.index("noise")
    assert audit(back.ledger).num_samples[noise] < audit(frozen.ledger).num_samples[noise]
    assert sum(audit(back.ledger).num_samples) == sum(audit(frozen.ledger).num_samples)


def test_a_crash_before_or_after_going_back_changes_nothing_of_the_result(tmp_path: Path, data: list[Path]) -> None:
    run = overfitting_run(tmp_path, "run", data)
    to_the_end(run)
    rollback = first_rollback(run)
    crashed = overfitting_run(tmp_path, "crashed", data)
    with pytest.raises(CrashError):
        crashed.start(Disturbances(crash_at=rollback.step + INTERVAL))
    assert stage_to_go_on_with(crashed.ledger) == 1
    assert crashed.start().reason == "rolled_back"
    with pytest.raises(CrashError):
        crashed.start(Disturbances(crash_at=rollback.to_step + 2 * INTERVAL))
    assert to_the_end(crashed)[0].reason == "finished"
    assert crashed.weights == run.weights


def test_a_group_that_dies_before_its_next_checkpoint_goes_on_without_the_task_all_the_same(
    tmp_path: Path, data: list[Path]
) -> None:
    run = overfitting_run(tmp_path, "run", data)
    to_the_end(run)
    rollback = first_rollback(run)
    crashed = overfitting_run(tmp_path, "crashed", data)
    assert crashed.start().reason == "rolled_back"
    for _ in range(2):
        with pytest.raises(CrashError):
            crashed.start(Disturbances(crash_at=rollback.to_step + INTERVAL))
    assert to_the_end(crashed)[0].reason == "finished"
    starts = records(crashed, AttemptRecord)
    assert [(start.step, start.frozen) for start in starts[1:4]] == [(rollback.to_step, rollback.tasks)] * 3
    assert crashed.weights == run.weights
    assert audit(crashed.ledger).num_steps == STEPS


def test_a_peak_before_the_first_checkpoint_sends_the_run_back_to_its_beginning(
    tmp_path: Path, data: list[Path]
) -> None:
    run = overfitting_run(tmp_path, "run", data, every_intervals=8)
    result, went_back = to_the_end(run)
    assert (result.reason, result.step) == ("finished", STEPS)
    assert went_back >= 1
    assert first_rollback(run).to_step == 0
    starts = records(run, AttemptRecord)
    assert (starts[1].step, starts[1].frozen) == (0, first_rollback(run).tasks)
    assert audit(run.ledger).num_steps == STEPS


def test_without_a_checkpoint_that_old_the_task_is_frozen_and_the_ledger_says_why_nothing_went_back(
    tmp_path: Path, data: list[Path]
) -> None:
    run = overfitting_run(tmp_path, "run", data)
    to_the_end(run)
    rollback = first_rollback(run)
    bare = overfitting_run(tmp_path, "bare", data)
    with pytest.raises(CrashError):
        bare.start(Disturbances(crash_at=rollback.step))
    bare.start(Disturbances(stop_at=rollback.step))
    for step in bare.checkpoints:
        if step <= rollback.to_step:
            bare.store.storage.remove(step)
    assert bare.checkpoints
    result, went_back = to_the_end(bare)
    assert (result.reason, went_back) == ("finished", 0)
    notes = [record.detail for record in records(bare, StorageRecord)]
    assert notes == [f"no checkpoint of step {rollback.to_step} or before is left, so the run does not go back there"]


def test_a_run_that_was_stopped_instead_goes_back_once_it_goes_on(tmp_path: Path, data: list[Path]) -> None:
    run = overfitting_run(tmp_path, "run", data)
    to_the_end(run)
    rollback = first_rollback(run)
    stopped = overfitting_run(tmp_path, "stopped", data)
    assert stopped.start(Disturbances(stop_at=rollback.step + INTERVAL)).reason == "stopped"
    assert max(stopped.checkpoints) == rollback.step + INTERVAL
    result, went_back = to_the_end(stopped)
    assert (result.reason, went_back) == ("finished", 1)
    starts = [record.step for record in records(stopped, AttemptRecord)]
    assert starts == [0, rollback.step + INTERVAL, rollback.to_step]
    assert audit(stopped.ledger).num_steps == STEPS
    assert stopped.weights == run.weights
