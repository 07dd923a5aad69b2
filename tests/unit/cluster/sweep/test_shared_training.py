"""A trial that forks from a trunk is the same trial from scratch, bit for bit: real worker, engine and evaluation."""

from pathlib import Path
from typing import Any

import pytest

from cluster.audit import audit
from cluster.fork import Fork, changes
from cluster.run_directory import RunDirectory
from cluster.sweep.sharing import plan_sharing
from cluster.sweep.timeline import timeline
from scheduler.ledger import read_ledger
from scheduler.records import CheckpointRecord, DecisionRecord
from tests.unit.train.local_run import INTERVAL, STEPS, Disturbances, LocalRun, local_run, small_tasks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_tasks(tmp_path_factory.mktemp("tasks"))


def settings_of(boundary: int, policy: str, mode: str, rate: float = 0.01) -> dict[str, Any]:
    stages = [
        {"name": "first", "until": {"type": "step", "step": boundary}},
        {"name": "last", "learning_rate": rate, "policy": {"type": policy}},
    ]
    return {"stages": stages, "mixture": {"mode": mode}}


def decided(run: LocalRun) -> list[DecisionRecord]:
    return [record for record in read_ledger(run.ledger) if isinstance(record, DecisionRecord)]


@pytest.mark.parametrize("mode", ["lag1", "sync"])
def test_every_trial_of_a_shared_sweep_is_its_run_from_scratch(mode: str, tmp_path: Path, data: list[Path]) -> None:
    asked = [
        settings_of(6, "odm", mode),
        settings_of(9, "target_gap", mode),
        settings_of(9, "heat", mode),
        settings_of(9, "heat", mode, rate=0.03),
    ]
    scratch = [local_run(tmp_path, f"scratch-{number}", data, **one) for number, one in enumerate(asked)]
    for run in scratch:
        run.start()
    plan = plan_sharing([timeline(run.config) for run in scratch])
    assert [trunk.forks for trunk in plan.trunks] == [(INTERVAL, 2 * INTERVAL, 3 * INTERVAL)]
    trunk = trained_trunk(tmp_path, data, asked[plan.trunks[0].representative], plan.trunks[0].forks)
    assert audit(trunk.ledger).num_steps == plan.trunks[0].stop
    for number, (one, origin) in enumerate(zip(asked, plan.origins, strict=True)):
        assert origin is not None
        run = local_run(tmp_path, f"forked-{number}", data, **one)
        fork = Fork(RunDirectory(trunk.folder), origin.step, changes(trunk.config, run.config))
        fork.plant(RunDirectory(run.folder), run.inputs.engine)
        assert run.start().step == STEPS
        assert run.weights == scratch[number].weights, number
        assert decided(run) == decided(scratch[number])
        assert audit(run.ledger).num_samples == audit(scratch[number].ledger).num_samples
    assert len({run.weights for run in scratch}) == len(scratch)


def trained_trunk(tmp_path: Path, data: list[Path], settings: dict[str, Any], forks: tuple[int, ...]) -> LocalRun:
    train = {"stop_after": forks[-1], "checkpoint_at": forks, "checkpoint_every_intervals": 99, "keep_checkpoints": 1}
    trunk = local_run(tmp_path, "trunk", data, **settings, train=train)
    trunk.start()
    assert trunk.checkpoints == list(forks)
    return trunk


def test_checkpoints_asked_for_stay_beside_the_newest(tmp_path: Path, data: list[Path]) -> None:
    run = local_run(
        tmp_path,
        "kept",
        data,
        train={"checkpoint_at": [3, 9], "checkpoint_every_intervals": 2, "keep_checkpoints": 1},
    )
    run.start()
    assert run.checkpoints == [3, 9, 12]
    taken = [record.step for record in read_ledger(run.ledger) if isinstance(record, CheckpointRecord)]
    assert taken == [3, 6, 9, 12]


def test_a_run_cut_short_can_be_stopped_at_its_last_boundary_and_gone_on_with(tmp_path: Path, data: list[Path]) -> None:
    short = local_run(tmp_path, "short", data, train={"stop_after": 9})
    result = short.start(Disturbances(stop_at=9))
    assert (result.step, result.reason) == (9, "stopped")
    result = short.start()
    assert (result.step, result.reason) == (9, "finished")
    whole = local_run(tmp_path, "whole", data, train={"stop_after": 9})
    whole.start()
    assert short.weights == whole.weights
