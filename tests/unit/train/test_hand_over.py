"""Workers that train one stage only: the next group goes on from their checkpoint, and nothing else is different."""

from pathlib import Path

import pytest

from cluster.audit import audit
from cluster.driver import stage_to_go_on_with
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord, EndRecord
from tests.unit.train.local_run import STEPS, CrashError, Disturbances, LocalRun, local_run, small_tasks

BOUNDARY = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_tasks(tmp_path_factory.mktemp("tasks"))


def attempts(run: LocalRun) -> list[int]:
    return [record.step for record in read_ledger(run.ledger) if isinstance(record, AttemptRecord)]


@pytest.mark.parametrize("mode", ["lag1", "sync"])
def test_a_group_for_each_stage_trains_the_model_of_one_group_bit_for_bit(
    mode: str, tmp_path: Path, data: list[Path]
) -> None:
    mixture = {"mode": mode}
    whole = local_run(tmp_path, "whole", data, mixture=mixture)
    whole.start()
    run = local_run(tmp_path, "parted", data, mixture=mixture, train={"checkpoint_every_intervals": 100})
    first = run.start(trains=(1,))
    assert (first.reason, first.step, first.stage) == ("handed_over", BOUNDARY, 2)
    assert run.checkpoints == [BOUNDARY]
    assert stage_to_go_on_with(run.ledger) == 2
    second = run.start(trains=(2,))
    assert (second.reason, second.step) == ("finished", STEPS)
    assert attempts(run) == [0, BOUNDARY]
    assert [record.step for record in read_ledger(run.ledger) if isinstance(record, EndRecord)] == [STEPS]
    assert run.weights == whole.weights
    assert audit(run.ledger).num_samples == audit(whole.ledger).num_samples


def test_a_group_that_finds_another_stage_hands_over_before_it_trains_a_step(tmp_path: Path, data: list[Path]) -> None:
    run = local_run(tmp_path, "guessed", data)
    wrong = run.start(trains=(2,))
    assert (wrong.reason, wrong.step, wrong.stage) == ("handed_over", 0, 1)
    assert run.checkpoints == []
    assert stage_to_go_on_with(run.ledger) == 1
    assert run.start(trains=(1,)).reason == "handed_over"
    assert run.start(trains=(1,)).step == BOUNDARY
    assert run.start(trains=(2,)).reason == "finished"


def test_after_a_damaged_boundary_checkpoint_the_first_stage_is_trained_again_by_its_own_workers(
    tmp_path: Path, data: list[Path]
) -> None:
    whole = local_run(tmp_path, "whole", data)
    whole.start()
    run = local_run(tmp_path, "damaged", data, train={"checkpoint_every_intervals": 1})
    run.start(trains=(1,))
    (run.checkpoint_folder / f"step-{BOUNDARY:06d}" / "trainable.safetensors").write_bytes(b"cut")
    back = run.start(trains=(2,))
    assert (back.reason, back.step, back.stage) == ("handed_over", BOUNDARY - 3, 1)
    assert run.start(trains=(1,)).step == BOUNDARY
    assert run.start(trains=(2,)).reason == "finished"
    assert run.weights == whole.weights


@pytest.mark.parametrize(("crash_at", "stage"), [(3, 1), (9, 2)])
def test_a_crash_in_either_stage_is_gone_on_from_by_the_group_of_that_stage(
    crash_at: int, stage: int, tmp_path: Path, data: list[Path]
) -> None:
    whole = local_run(tmp_path, "whole", data)
    whole.start()
    run = local_run(tmp_path, "crashed", data)
    if stage == 2:
        run.start(trains=(1,))
    with pytest.raises(CrashError):
        run.start(Disturbances(crash_at=crash_at), trains=(stage,))
    assert stage_to_go_on_with(run.ledger) == stage
    while (result := run.start(trains=(stage,))).reason == "handed_over":
        stage = result.stage
    assert result.reason == "finished"
    assert run.weights == whole.weights


def test_a_request_to_stop_goes_before_handing_over(tmp_path: Path, data: list[Path]) -> None:
    run = local_run(tmp_path, "stopped", data)
    stopped = run.start(Disturbances(stop_at=BOUNDARY), trains=(1,))
    assert (stopped.reason, stopped.step, stopped.stage) == ("stopped", BOUNDARY, 2)
    assert stage_to_go_on_with(run.ledger) == 2
