"""Whole runs of the worker loop, in one process: which plan each step follows, stopping, crashing, going on."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.audit import audit
from scheduler.errors import RunFailedError
from scheduler.ledger import read_ledger
from scheduler.plan import MixturePlan
from scheduler.records import (
    AttemptRecord,
    DecisionRecord,
    EndRecord,
    IntervalRecord,
    LateRecord,
    RunRecord,
    StageRecord,
)
from tests.unit.train.local_run import INTERVAL, STEPS, CrashError, Disturbances, LocalRun, local_run, small_tasks
from train.checkpoint_store import CheckpointStore
from train.loop import Worker

BOUNDARIES = [0, 3, 6, 9, 12]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: list[Path]) -> LocalRun:
    run = local_run(tmp_path_factory.mktemp("loop"), "undisturbed", data)
    assert run.start().reason == "finished"
    return run


def plans(run: LocalRun) -> list[MixturePlan]:
    """All plans, in order of version."""
    return [record.plan for record in read_ledger(run.ledger) if isinstance(record, RunRecord | DecisionRecord)]


def in_force(run: LocalRun) -> dict[int, MixturePlan]:
    """The plan the workers applied at each boundary."""
    made = {plan.version: plan for plan in plans(run)}
    reports = [record.report for record in read_ledger(run.ledger) if isinstance(record, IntervalRecord)]
    return {report.step: made[report.plan_version] for report in reports}


def test_equal_runs_write_equal_ledgers_and_equal_weights(
    undisturbed: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    again = local_run(tmp_path, "again", data)
    result = again.start()
    assert (result.step, result.reason, result.num_workers) == (STEPS, "finished", 1)
    assert again.ledger.read_bytes() == undisturbed.ledger.read_bytes()
    assert again.weights == undisturbed.weights


@pytest.mark.parametrize("mode", ["lag1", "sync", "async"])
def test_a_plan_is_in_force_from_exactly_its_effective_step(mode: str, tmp_path: Path, data: list[Path]) -> None:
    run = local_run(tmp_path, mode, data, mixture={"mode": mode})
    run.start()
    applied = in_force(run)
    source_steps = [applied[step].source_step for step in BOUNDARIES]
    assert source_steps == {"sync": BOUNDARIES, "lag1": [-1, 0, 3, 6, 9], "async": [-1, 0, 3, 6, 9]}[mode]
    assert len({plan.weights for plan in applied.values()}) > 2
    for step, plan in applied.items():
        assert plan.effective_from_step <= step
        if mode == "lag1" and step < STEPS:
            assert plan.effective_from_step == step
    proved = audit(run.ledger)
    assert (proved.num_steps, sum(proved.num_samples)) == (STEPS, 6 * STEPS)


def test_boundaries_lie_an_interval_apart_and_the_last_report_is_of_the_last_step(undisturbed: LocalRun) -> None:
    reports = [record.report for record in read_ledger(undisturbed.ledger) if isinstance(record, IntervalRecord)]
    assert [report.step for report in reports] == [*BOUNDARIES, STEPS]
    assert reports[0].num_tokens == (0, 0, 0)
    assert reports[0].train_loss == (None, None, None)
    assert all(loss is not None and loss > 0 for report in reports[1:] for loss in report.train_loss)
    assert [sum(report.num_samples) for report in reports] == [6 * report.step for report in reports]


def test_the_second_stage_begins_at_the_boundary_its_plan_takes_effect(undisturbed: LocalRun) -> None:
    (stage,) = [record for record in read_ledger(undisturbed.ledger) if isinstance(record, StageRecord)]
    applied = in_force(undisturbed)
    assert (stage.step, applied[3].stage, applied[6].stage) == (2 * INTERVAL, 1, 2)
    assert applied[6].version == stage.plan_version


def test_checkpoints_are_taken_every_so_many_intervals_and_hold_the_plan_in_force(undisturbed: LocalRun) -> None:
    assert undisturbed.checkpoints == [6, 12]
    for step in undisturbed.checkpoints:
        manifest = undisturbed.store.read(step).manifest
        assert manifest.step == manifest.stream["step"] == step
        assert manifest.plan == in_force(undisturbed)[step]


@pytest.mark.parametrize("mode", ["lag1", "sync", "async"])
@pytest.mark.parametrize("step", [0, 3, 12])
def test_a_stopped_run_goes_on_to_the_weights_of_one_that_never_stopped(
    mode: str, step: int, tmp_path: Path, data: list[Path]
) -> None:
    whole, parts = (local_run(tmp_path, name, data, mixture={"mode": mode}) for name in ("whole", "parts"))
    whole.start()
    first = parts.start(Disturbances(stop_at=step))
    assert (first.step, first.reason) == (step, "stopped")
    assert not (parts.folder / "result").exists()
    assert parts.checkpoints == [*range(6, step, 6), *([step] if step else [])]
    second = parts.start()
    assert (second.step, second.reason) == (STEPS, "finished")
    assert parts.weights == whole.weights
    assert plans(parts)[-1] == plans(whole)[-1]
    assert audit(parts.ledger).num_samples == audit(whole.ledger).num_samples
    assert [record for record in read_ledger(parts.ledger) if isinstance(record, EndRecord)] == [
        EndRecord(step=step, reason="stopped"),
        EndRecord(step=STEPS, reason="finished"),
    ]


@pytest.mark.parametrize("step", [3, 9])
def test_a_crashed_run_goes_on_from_its_last_checkpoint_to_the_same_weights(
    step: int, undisturbed: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    run = local_run(tmp_path, "crashed", data)
    with pytest.raises(CrashError):
        run.start(Disturbances(crash_at=step))
    assert run.start().step == STEPS
    assert run.weights == undisturbed.weights
    proved = audit(run.ledger)
    assert (proved.num_attempts, proved.num_steps) == (2, STEPS)
    assert proved.num_samples == audit(undisturbed.ledger).num_samples


def damage(run: LocalRun, *steps: int) -> None:
    for step in steps:
        with (run.store.storage.path(step) / "optimizer.pt").open("r+b") as file:
            file.write(bytes(16))


@pytest.mark.parametrize(("stop_at", "damaged", "goes_on_from"), [(12, [12], 6), (9, [9, 6], 0)], ids=["newest", "all"])
@pytest.mark.parametrize("mode", ["lag1", "sync"])
def test_a_run_whose_newest_checkpoints_are_damaged_ends_with_the_weights_of_an_undisturbed_one(
    mode: str, stop_at: int, damaged: list[int], goes_on_from: int, tmp_path: Path, data: list[Path]
) -> None:
    whole, broken = (local_run(tmp_path, name, data, mixture={"mode": mode}) for name in ("whole", "broken"))
    whole.start()
    broken.start(Disturbances(stop_at=stop_at))
    damage(broken, *damaged)
    assert broken.start().step == STEPS
    attempt = [record for record in read_ledger(broken.ledger) if isinstance(record, AttemptRecord)][-1]
    assert (attempt.attempt, attempt.step) == (1, goes_on_from)
    assert [
        f"step-{step:06d} is damaged: optimizer.pt" in reason
        for step, reason in zip(damaged, attempt.refused_checkpoints, strict=True)
    ] == [True] * len(damaged)
    assert broken.weights == whole.weights
    assert plans(broken)[-1] == plans(whole)[-1]
    assert audit(broken.ledger).num_samples == audit(whole.ledger).num_samples
    assert broken.checkpoints == whole.checkpoints


@pytest.mark.parametrize(("steps", "interval"), [(STEPS, 2), (7, 7)], ids=["over boundaries", "in an interval"])
def test_a_diverged_run_fails_with_a_remedy_before_anything_broken_is_kept(
    steps: int, interval: int, tmp_path: Path, data: list[Path]
) -> None:
    run = local_run(
        tmp_path,
        "diverged",
        data,
        train={"steps": steps, "learning_rate": 1e30, "max_grad_norm": 1e30, "checkpoint_every_intervals": 1},
        mixture={"interval_steps": interval},
    )
    with pytest.raises(RunFailedError, match=r"diverged: 4 steps .* step 4: gradient, tasks copy, .* learning rate"):
        run.start()
    assert run.checkpoints == []
    assert not (run.folder / "result").exists()


def test_skipped_steps_are_recorded_and_counted_across_a_restart(tmp_path: Path, data: list[Path]) -> None:
    settings = {"learning_rate": 1e30, "max_grad_norm": 1e30, "max_skipped_steps": 8}
    whole, parts = (local_run(tmp_path, name, data, train=settings) for name in ("whole", "parts"))
    with pytest.raises(RunFailedError, match=r"diverged: 9 steps .* step 9: gradient"):
        whole.start()
    assert parts.start(Disturbances(stop_at=6)).reason == "stopped"
    with pytest.raises(RunFailedError, match=r"diverged: 9 steps .* step 9: gradient"):
        parts.start()
    for run in (whole, parts):
        reports = [record.report for record in read_ledger(run.ledger) if isinstance(record, IntervalRecord)]
        skipped = [[step.step for step in report.skipped_steps] for report in reports]
        assert skipped == [[], [1, 2], [3, 4, 5], [6, 7, 8]]
        assert len(reports[1].skipped_steps[0].rows) == 6
        assert sum(reports[-1].num_samples) == 9 * 6


def test_while_the_engine_cannot_be_reached_the_old_plan_stays_in_force(tmp_path: Path, data: list[Path]) -> None:
    run = local_run(tmp_path, "unreachable", data)
    run.start(Disturbances(unreachable_at=6))
    assert [in_force(run)[step].source_step for step in BOUNDARIES] == [-1, 0, 0, 6, 9]
    assert audit(run.ledger).num_steps == STEPS


def test_a_late_plan_is_written_down_and_followed_at_the_next_boundary(tmp_path: Path, data: list[Path]) -> None:
    run = local_run(tmp_path, "late", data)
    run.start(Disturbances(late_at=3))
    late = [record for record in read_ledger(run.ledger) if isinstance(record, LateRecord)]
    assert late == [LateRecord(step=6, awaited_step=3, kept_version=1)]
    assert [in_force(run)[step].source_step for step in BOUNDARIES] == [-1, 0, 0, 6, 9]
    assert audit(run.ledger).num_steps == STEPS


@pytest.mark.parametrize("micro_batch_size", [1, 6])
def test_the_cut_into_micro_batches_changes_neither_samples_nor_shares(
    micro_batch_size: int, tmp_path: Path, data: list[Path]
) -> None:
    settings = {"mixture": {"policy": {"type": "static"}}}
    runs = [
        local_run(tmp_path, str(size), data, train={"micro_batch_size": size}, **settings)
        for size in (3, micro_batch_size)
    ]
    losses = []
    for run in runs:
        run.start()
        reports = [record.report for record in read_ledger(run.ledger) if isinstance(record, IntervalRecord)]
        losses.append([loss for report in reports[1:] for loss in report.train_loss])
    assert audit(runs[0].ledger).num_samples == audit(runs[1].ledger).num_samples
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("staging", ["taskheat-staging/this-run", "/scratch/this-run"])
def test_each_node_stages_checkpoints_among_its_own_temporary_files_unless_it_is_told_where(
    staging: str, tmp_path: Path, data: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def store(*arguments: Any, **settings: Any) -> CheckpointStore:
        asked.append(settings["staging"])
        return CheckpointStore(*arguments, **settings)

    monkeypatch.setattr("train.loop.CheckpointStore", store)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Worker(replace(local_run(tmp_path, "staged", data).job(Disturbances()), staging=Path(staging)))
    assert asked == [Path("/scratch/this-run") if staging.startswith("/") else tmp_path / "temporary" / staging]
