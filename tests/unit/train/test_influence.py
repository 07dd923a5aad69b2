"""Influence: what is measured, how often, by whom; and that looking changes nothing."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from scheduler.ledger import read_ledger
from scheduler.records import DecisionRecord, IntervalRecord, Record
from scheduler.signals import TaskGradient
from tests.unit.scheduler.made import setup
from tests.unit.train.local_run import STEPS, Disturbances, LocalRun, local_run, small_tasks
from tests.unit.train.ranks import on_every_rank
from train.config import InfluenceConfig, TrainConfig
from train.influence import InfluenceProbe
from train.loop import Worker
from train.micro_batches import MicroBatchLimits
from train.schedule import StageTraining

EVERY_TASK = {"rows": 4, "max_cost_ratio": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_tasks(tmp_path_factory.mktemp("tasks"))


def run_with(influence: Any, folder: Path, data: list[Path]) -> LocalRun:
    run = local_run(folder, "off" if influence is None else "on", data, train={"influence": influence})
    run.start()
    return run


def gradients(run: LocalRun) -> list[TaskGradient]:
    records = (record for record in read_ledger(run.ledger) if isinstance(record, IntervalRecord))
    return [gradient for record in records for gradient in record.report.gradients]


def without_gradients(run: LocalRun) -> list[Record]:
    return [
        dataclasses.replace(record, report=dataclasses.replace(record.report, gradients=()))
        if isinstance(record, IntervalRecord)
        else record
        for record in read_ledger(run.ledger)
    ]


def test_training_is_the_same_bit_for_bit_whether_influence_is_measured_or_not(
    tmp_path: Path, data: list[Path]
) -> None:
    on, off = run_with(EVERY_TASK, tmp_path, data), run_with(None, tmp_path, data)
    assert on.weights == off.weights
    assert without_gradients(on) == list(read_ledger(off.ledger))
    assert not gradients(off)
    assert len(gradients(on)) == 3 * 5
    assert any(isinstance(record, DecisionRecord) for record in read_ledger(on.ledger))


def test_every_task_is_measured_at_the_last_step_of_every_interval_where_the_budget_allows_it(
    tmp_path: Path, data: list[Path]
) -> None:
    found = gradients(run_with(EVERY_TASK, tmp_path, data))
    assert sorted({one.step for one in found}) == [2, 5, 8, 11, STEPS - 1]
    assert {one.task for one in found if one.step == 2} == {"copy", "last", "noise"}
    for one in found:
        assert one.num_rows == 4
        assert one.norm > 0
        assert one.variance > 0
        assert -1 <= one.cosine <= 1
    assert np.mean([one.cosine for one in found]) > 0


def test_a_resumed_run_measures_what_the_undisturbed_one_does(tmp_path: Path, data: list[Path]) -> None:
    whole = run_with(EVERY_TASK, tmp_path, data)
    parts = local_run(tmp_path, "parts", data, train={"influence": EVERY_TASK})
    parts.start(Disturbances(stop_at=6))
    parts.start()
    assert gradients(parts) == gradients(whole)


def test_the_figures_are_those_of_the_gradients_of_two_halves_and_of_the_applied_update(
    tmp_path: Path, data: list[Path]
) -> None:
    run = local_run(tmp_path, "figures", data, train={"influence": EVERY_TASK}, mixture={"interval_steps": 1})
    worker = Worker(run.job(Disturbances()))
    probe, stepper = worker.influence, worker.stepper
    assert probe is not None
    worker.stream.follow(worker.plan)
    task = probe.due(1)[0]
    drawn = np.random.default_rng([0, 0x1F, 0, task]).choice(worker.job.setup.num_rows[task], 4, replace=False)
    one, other = (
        torch.cat([part.flatten() for part in stepper.gradient(task, rows.tolist(), step=0)])
        for rows in (drawn[:2], drawn[2:])
    )
    before = torch.cat([parameter.detach().flatten().clone() for parameter in stepper.layout.parameters])
    worker._train_step()
    update = torch.cat([parameter.detach().flatten() for parameter in stepper.layout.parameters]) - before
    (found, *_) = probe.gather()
    assert found.task == worker.store.task_names[task]
    mean = (one + other) / 2
    assert found.norm == pytest.approx(float(mean.norm()), rel=1e-5)
    assert found.variance == pytest.approx(float((one - other).norm() ** 2), rel=1e-4)
    assert found.cosine == pytest.approx(float(-(mean @ update) / (mean.norm() * update.norm())), rel=1e-4)
    assert found.squared_norm == pytest.approx(float(one @ other), rel=1e-3, abs=1e-6)
    assert found.pull == pytest.approx(found.norm * found.cosine)
    assert not probe.gather()


def test_looking_at_a_gradient_leaves_no_gradient_behind(tmp_path: Path, data: list[Path]) -> None:
    stepper = Worker(local_run(tmp_path, "grad", data).job(Disturbances())).stepper
    assert any(bool(part.any()) for part in stepper.gradient(0, [0, 1], step=3))
    assert all(parameter.grad is None for parameter in stepper.layout.parameters)


STAGE = StageTraining(learning_rate=1.0, warmup_steps=0, max_grad_norm=1.0, micro_batches=MicroBatchLimits(16))


class Names:
    """As much of a store, a stepper and a layout as the turns need: task t has the gradient (1 + t, …)."""

    task_names = ("a", "b", "c", "d", "e")
    in_lockstep = False

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size
        self.parameters = [torch.zeros(2)]
        self.layout = self

    def rows_at_once(self, stage: StageTraining) -> int:
        return stage.micro_batches.num_samples

    def supervised_lengths(self, task: int) -> np.ndarray:
        return np.ones(1 if self.task_names[task] == "e" else 50)

    def gradient(self, task: int, rows: list[int], *, step: int) -> list[torch.Tensor]:
        return [torch.tensor([1.0 + task, float(np.mean(rows)) / 10 + step])]


def probe_of(names: Names, interval_steps: int = 10, batch_size: int = 1000, **config: Any) -> InfluenceProbe:
    made = cast(Any, names)
    train = TrainConfig(
        steps=100, global_batch_size=batch_size, micro_batch_size=1, influence=InfluenceConfig(**config)
    )
    return InfluenceProbe(train, setup(interval_steps=interval_steps), stepper=made, store=made)


@pytest.mark.parametrize(("ratio", "interval"), [(0.01, 10), (0.03, 7), (0.2, 50)])
def test_the_rows_spent_stay_within_the_budget_and_the_tasks_take_turns(ratio: float, interval: int) -> None:
    probe = probe_of(Names(), interval, 16, max_cost_ratio=ratio)
    measured: list[int] = []
    for end in range(interval, 60 * interval, interval):
        measured += probe.due(end)
        assert 8 * len(measured) <= ratio * 16 * end + 8
    assert len(measured) >= 2
    counts = np.bincount(measured, minlength=5)
    assert counts.max() - counts.min() <= 1


def test_a_budget_for_more_than_all_tasks_measures_each_once() -> None:
    assert sorted(probe_of(Names(), max_cost_ratio=1.0).due(10)) == [0, 1, 2, 3, 4]


def measured_by(probe: InfluenceProbe, names: Names) -> list[TaskGradient]:
    with probe.around(9, STAGE):
        names.parameters[0] -= 0.5
    return list(probe.gather())


def measured_on(rank: int, world_size: int) -> list[TaskGradient]:
    names = Names(rank, world_size)
    return measured_by(probe_of(names, max_cost_ratio=1.0), names)


def test_all_ranks_hold_the_same_figures_whatever_their_number(tmp_path: Path) -> None:
    alone = measured_on(0, 1)
    assert [one.task for one in alone] == ["a", "b", "c", "d"]  # e has a single row and no halves
    assert on_every_rank(measured_on, 2, num_ranks=2, folder=tmp_path) == [alone, alone]


def test_only_the_last_step_of_an_interval_is_watched() -> None:
    names = Names()
    probe = probe_of(names, max_cost_ratio=1.0)
    for step in range(9):
        with probe.around(step, STAGE):
            pass
    assert probe.gather() == ()


def test_a_gradient_that_is_no_number_is_left_out() -> None:
    names = Names()
    probe = probe_of(names, max_cost_ratio=1.0)
    with probe.around(9, STAGE):
        names.parameters[0] *= torch.nan
    assert probe.gather() == ()


def test_a_step_that_changed_nothing_is_not_measured_against() -> None:
    probe = probe_of(Names(), max_cost_ratio=1.0)
    with probe.around(9, STAGE):
        pass
    assert probe.gather() == ()


def test_where_memory_is_too_small_for_it_nothing_is_measured_and_training_goes_on(
    tmp_path: Path, data: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    off = run_with(None, tmp_path, data)
    monkeypatch.setattr("train.step.Stepper.gradient", refused)
    on = run_with(EVERY_TASK, tmp_path, data)
    assert not gradients(on)
    assert on.weights == off.weights
    assert "set train.influence: null" in caplog.text
