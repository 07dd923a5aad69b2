"""A run goes on from the newest checkpoint that is whole and known to its engine."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from scheduler.errors import DamagedCheckpointError, LedgerError, StateError
from tests.unit.train.made import llama
from tests.unit.train.test_checkpoint import adamw, flip_a_bit, manifest
from train.checkpoint_store import CheckpointStore
from train.model import snapshot


@dataclass
class Engine:
    """Knows some steps; a call to `begin` at another is refused. The rest of a coordinator is not asked for."""

    known: set[int]
    begun: list[tuple[int, Any, tuple[str, ...]]] = field(default_factory=list)

    def begin(self, step: int, engine_state: dict[str, Any] | None, refused: tuple[str, ...]) -> int:
        if step not in {0, *self.known}:
            raise LedgerError(f"no checkpoint at step {step}")
        self.begun.append((step, engine_state, refused))
        return len(self.begun)


def write(store: CheckpointStore, *steps: int) -> None:
    model = llama()
    for step in steps:
        made = dataclasses.replace(manifest(), step=step)
        store.write(made, weights=snapshot(model), optimizer=adamw(model).state_dict())
        assert store.drain(10)


def store_of(folder: Path, *steps: int, keep: int = 3) -> CheckpointStore:
    store = CheckpointStore(folder / "checkpoints", keep=keep)
    store.storage.make()
    write(store, *steps)
    return store


def damage(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        flip_a_bit(store.storage.path(step) / "optimizer.pt")


def chosen(store: CheckpointStore, engine: Engine) -> int | None:
    start = store.choose(engine)  # type: ignore[arg-type]
    assert start.attempt == len(engine.begun)
    return None if start.saved is None else start.saved.manifest.step


def test_only_the_newest_stay_in_order_of_steps_not_of_names(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2, 30, 999_999, 1_000_000, 2_000_000)
    assert store.steps() == [999_999, 1_000_000, 2_000_000]
    assert sorted(path.name for path in store.storage.folder.glob("step-*")) == [
        "step-1000000",
        "step-2000000",
        "step-999999",
    ]


def test_what_a_dead_process_left_half_removed_is_never_seen_and_removed_later(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2, 4, keep=2)
    store.storage.path(2).rename(store.storage.folder / ".old-2")
    assert store.steps() == [4]
    write(store, 6)
    assert not (store.storage.folder / ".old-2").exists()


def test_without_checkpoints_the_run_begins_at_step_zero(tmp_path: Path) -> None:
    engine = Engine(known=set())
    assert chosen(store_of(tmp_path), engine) is None
    assert engine.begun == [(0, None, ())]


def test_the_newest_whole_checkpoint_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    store, engine = store_of(tmp_path, 2, 4, 6), Engine(known={2, 4, 6})
    damage(store, 4, 6)
    assert chosen(store, engine) == 2
    ((step, state, refused),) = engine.begun
    assert (step, state) == (2, manifest().engine)
    assert [reason.split(":")[0] for reason in refused] == [
        "the checkpoint step-000006 is damaged",
        "the checkpoint step-000004 is damaged",
    ]
    assert store.steps() == [2]
    assert (store.storage.folder / "refused-step-000006/manifest.json").is_file()


def test_a_step_told_again_and_damaged_again_is_set_aside_beside_the_first(tmp_path: Path) -> None:
    store, engine = store_of(tmp_path, 2, 4), Engine(known={2, 4})
    for _ in range(2):
        damage(store, 4)
        assert chosen(store, engine) == 2
        write(store, 4)
    refused = {path.name for path in store.storage.folder.glob("refused-*")}
    assert refused == {
        "refused-step-000004",
        "refused-step-000004-2",
    }
    assert chosen(store, engine) == 4


def test_with_no_whole_checkpoint_the_run_begins_again_and_says_why(tmp_path: Path) -> None:
    store, engine = store_of(tmp_path, 2, 4), Engine(known={2, 4})
    damage(store, 2, 4)
    assert chosen(store, engine) is None
    assert [(step, len(refused)) for step, _, refused in engine.begun] == [(0, 2)]
    assert store.steps() == []


def test_a_checkpoint_that_the_ledger_does_not_know_is_passed_over(tmp_path: Path) -> None:
    store, engine = store_of(tmp_path, 2, 4), Engine(known={2})
    assert chosen(store, engine) == 2
    assert engine.begun[0][2] == ("the checkpoint step-000004 is not one that the ledger knows",)


def test_whole_checkpoints_that_the_ledger_does_not_know_are_an_error_and_stay(tmp_path: Path) -> None:
    store, engine = store_of(tmp_path, 2, 4, 6), Engine(known=set())
    damage(store, 6)
    with pytest.raises(LedgerError, match="no checkpoint at step 2"):
        store.choose(engine)  # type: ignore[arg-type]
    assert (engine.begun, store.steps()) == ([], [2, 4])


def test_a_checkpoint_of_another_version_stops_the_run_instead_of_losing_its_work(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2, 4)
    (store.storage.path(4) / "manifest.json").write_text('{"format": 2, "step": 4}')
    with pytest.raises(StateError, match="another version"):
        store.choose(Engine(known={2, 4}))  # type: ignore[arg-type]
    assert store.steps() == [2, 4]


def test_a_checkpoint_under_the_name_of_another_step_is_damage(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    store.storage.path(2).rename(store.storage.path(4))
    with pytest.raises(DamagedCheckpointError, match="step-000004 is of step 2"):
        store.read(4)


def test_foreign_files_in_the_folder_are_not_checkpoints(tmp_path: Path) -> None:
    store = store_of(tmp_path, 2)
    (store.storage.folder / "step-best").mkdir()
    (store.storage.folder / "notes.txt").write_text("mine")
    assert store.steps() == [2]


def test_the_optimizer_of_a_step_written_twice_is_the_second(tmp_path: Path) -> None:
    store, model = store_of(tmp_path, 2), llama(seed=4)
    store.write(dataclasses.replace(manifest(), step=2), weights=snapshot(model), optimizer=adamw(model).state_dict())
    assert torch.equal(next(iter(store.read(2).weights.values())), next(iter(snapshot(model).values())))
