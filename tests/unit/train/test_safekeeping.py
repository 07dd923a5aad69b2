"""What a run leaves when it chooses its best checkpoint, and what it does when storage or a process goes."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cluster.audit import audit
from cluster.config import RunConfig
from cluster.setup import gather_inputs
from scheduler.errors import PreemptedError
from scheduler.ledger import read_ledger
from scheduler.records import EndRecord, ExportRecord, SelectionRecord, StorageRecord
from scheduler.selection import Ranked, ranking
from tests.unit.train.local_run import STEPS, Disturbances, LocalRun, local_run, small_tasks
from tests.unit.train.test_checkpoint import manifest
from train import notices
from train.config import TrainConfig
from train.safekeeping import Safekeeping


def choosing(folder: Path, name: str, data: list[Path]) -> LocalRun:
    """A checkpoint at every boundary, one kept beside the best, which becomes the result."""
    settings = local_run(folder, name, data).config.model_dump(mode="json")
    settings["data"]["selection_per_task"] = 4
    settings["train"] |= {"export": "best", "checkpoint_every_intervals": 1, "keep_checkpoints": 1}
    config = RunConfig.model_validate(settings)
    return LocalRun(config=config, inputs=gather_inputs(config), folder=folder / name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_tasks(tmp_path_factory.mktemp("tasks"))


def records(run: LocalRun, kind: type) -> list:
    return [record for record in read_ledger(run.ledger) if isinstance(record, kind)]


def test_the_best_of_the_checkpoints_and_the_last_weights_becomes_the_result(tmp_path: Path, data: list[Path]) -> None:
    run = choosing(tmp_path, "best", data)
    run.start()
    scores = {record.step: record.scores for record in records(run, SelectionRecord)}
    assert list(scores) == [3, 6, 9, 12, STEPS]
    best = ranking(scores, "worst")[0]
    (export,) = records(run, ExportRecord)
    assert (export.step, export.why) == (best.step, best.why)
    if best.step < STEPS:
        kept = run.store.read(best.step).weights
        exported = load_file(run.folder / "result/model.safetensors")
        assert all(torch.equal(exported[name], kept[name]) for name in exported)
    assert set(run.checkpoints) <= {best.step, 12}
    assert audit(run.ledger).num_steps == STEPS


def test_a_run_that_chooses_and_is_stopped_ends_as_one_that_was_not(tmp_path: Path, data: list[Path]) -> None:
    whole, parts = (choosing(tmp_path, name, data) for name in ("whole", "parts"))
    whole.start()
    parts.start(Disturbances(stop_at=9))
    parts.start()
    assert parts.weights == whole.weights
    assert records(parts, ExportRecord) == records(whole, ExportRecord)


def test_sigterm_leads_to_a_checkpoint_at_the_next_boundary_and_then_the_process_ends(
    tmp_path: Path, data: list[Path]
) -> None:
    run = local_run(tmp_path, "told", data, train={"checkpoint_every_intervals": 4})
    run.start(Disturbances(stop_at=3))
    notices._told_to_end.set()
    try:
        with pytest.raises(PreemptedError, match=r"SIGTERM.* from step 6"):
            run.start()
    finally:
        notices._told_to_end.clear()
    assert run.checkpoints == [3, 6]
    assert run.start().step == STEPS
    assert audit(run.ledger).num_attempts == 3


def test_a_run_without_a_durable_checkpoint_for_too_long_stops_and_can_go_on(
    tmp_path: Path, data: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"train": {"checkpoint_every_intervals": 1, "max_undurable_checkpoints": 2, "storage_patience_s": 1}}
    run, whole = (local_run(tmp_path, name, data, **settings) for name in ("lost", "whole"))
    whole.start()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("train.checkpoint_storage.FolderStorage.publish", refuse)
        result = run.start()
    assert (result.reason, result.step) == ("storage_lost", 9)
    assert "No space left" in records(run, StorageRecord)[0].detail
    assert records(run, EndRecord) == [EndRecord(step=9, reason="storage_lost")]
    assert run.start().step == STEPS
    assert run.weights == whole.weights


@dataclass
class Ranks:
    """A coordinator that ranks what it is told to, or nothing, as one whose engine does not answer."""

    ranked: list[Ranked]

    def ranking(self, _rule: object) -> list[Ranked]:
        return self.ranked


def keeping_of(store: Any, coordinator: Any) -> Safekeeping:
    train = TrainConfig.model_validate({"select_by": "worst"})
    return Safekeeping(store, coordinator, train, interval_steps=10, has_selection_rows=True)


def test_an_engine_that_does_not_answer_once_costs_no_best_checkpoint() -> None:
    store, coordinator = SimpleNamespace(best_step=None, write=lambda *_, **__: None), Ranks([Ranked(20, "best")])
    keeping = keeping_of(store, coordinator)
    keeping.take(manifest(), weights={}, optimizer={})
    coordinator.ranked = []
    keeping.take(manifest(), weights={}, optimizer={})
    assert store.best_step == 20


def test_every_notice_of_its_own_asks_for_a_checkpoint_of_its_own() -> None:
    drained: list[float] = []
    store = SimpleNamespace(drain=lambda seconds: drained.append(seconds) or True)
    keeping = keeping_of(store, Ranks([]))
    asked = []
    for node_goes, told in ((False, False), (True, False), (True, False), (False, False), (True, False), (True, True)):
        heard = notices.Notices(node_goes=node_goes, told_to_end=told, storage_is_lost=False)
        asked.append(keeping.asks_for_checkpoint(heard))
        keeping.heed(heard, step=10)
    assert asked == [False, True, False, False, True, True]
    assert len(drained) == 3
