"""Checkpoints on their way to storage that fails: training is not held up, nothing half-written is ever taken."""

import dataclasses
import threading
import time
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from scheduler.errors import ConfigError, StateError
from tests.unit.train.made import llama
from tests.unit.train.test_checkpoint import adamw, manifest
from train.checkpoint_store import CheckpointStore
from train.model import snapshot


class FailingFileSystem(MemoryFileSystem):
    """In memory; while `broken`, every write of a file fails after half of it."""

    protocol = "failing"
    store: dict = {}  # noqa: RUF012 - as fsspec's own
    pseudo_dirs = [""]  # noqa: RUF012
    broken = threading.Event()
    num_failures = 0

    def put_file(self, lpath: str, rpath: str, *args: object, **kwargs: object) -> None:
        content = Path(lpath).read_bytes()
        if type(self).broken.is_set():
            type(self).num_failures += 1
            self.pipe_file(rpath, content[: len(content) // 2])
            raise OSError(5, "Input/output error")
        super().put_file(lpath, rpath, *args, **kwargs)


fsspec.register_implementation("failing", FailingFileSystem, clobber=True)


@pytest.fixture(autouse=True)
def _whole_again() -> None:
    FailingFileSystem.broken.clear()
    FailingFileSystem.store.clear()
    FailingFileSystem.num_failures = 0


def store_at(place: str | Path, folder: Path, *, keep: int = 2) -> CheckpointStore:
    return CheckpointStore(place, keep=keep, staging=folder / "staging", journal=folder / "journal.jsonl")


def write(store: CheckpointStore, step: int) -> None:
    model = llama()
    made = dataclasses.replace(manifest(), step=step)
    store.write(made, weights=snapshot(model), optimizer=adamw(model).state_dict())


@pytest.mark.parametrize("scheme", ["folder", "file", "failing"])
def test_the_newest_and_the_best_stay_wherever_they_are_kept(scheme: str, tmp_path: Path) -> None:
    place = {"folder": tmp_path / "kept", "file": f"file://{tmp_path}/kept", "failing": "failing://kept"}[scheme]
    store = store_at(place, tmp_path)
    store.storage.make()
    for step in (2, 4, 6, 8):
        store.best_step = 4 if step > 4 else None
        write(store, step)
        assert store.drain(10)
    assert store.steps() == [4, 6, 8]
    assert [store.read(step).manifest.step for step in store.steps()] == [4, 6, 8]
    assert not list((tmp_path / "staging").glob("step-*"))
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 4


def test_while_storage_fails_the_older_checkpoint_stays_in_force_and_the_newest_is_stored_once_it_works(
    tmp_path: Path,
) -> None:
    store = store_at("failing://run", tmp_path)
    write(store, 2)
    assert store.drain(10)
    FailingFileSystem.broken.set()
    started = time.monotonic()
    for step in (4, 6, 8):
        write(store, step)
    assert time.monotonic() - started < 5
    assert not store.drain(0.2)
    assert (store.num_behind, store_at("failing://run", tmp_path / "other").steps()) == (3, [2])
    FailingFileSystem.broken.clear()
    assert store.drain(20)
    assert (store.num_behind, store.steps()) == (0, [2, 8])
    assert store.read(8).manifest.step == 8
    texts = [news.text for news in store.news()]
    assert any("storage failed for the checkpoint, retrying: Input/output error" in text for text in texts)
    assert sum("given up for a newer one" in text for text in texts) == 2
    assert store.news() == []


def test_a_worker_that_restarts_finishes_the_upload_that_its_predecessor_had_begun(tmp_path: Path) -> None:
    FailingFileSystem.broken.set()
    dead = store_at("failing://run", tmp_path)
    write(dead, 2)
    while not FailingFileSystem.num_failures:
        time.sleep(0.01)
    dead.close()
    FailingFileSystem.broken.clear()
    begun: list[int] = []

    class Engine:
        def begin(self, step: int, _state: object, _refused: object) -> int:
            begun.append(step)
            return 1

    start = store_at("failing://run", tmp_path).choose(Engine())  # type: ignore[arg-type]
    assert start.saved is not None
    assert (start.saved.manifest.step, begun) == (2, [2])


def test_a_rank_on_another_node_reads_what_is_stored_and_not_what_an_earlier_attempt_left_there(tmp_path: Path) -> None:
    """Node A staged step 2 and its group died; the next one, on node B, took step 2 again and stored it."""
    node_a, node_b = store_at("failing://run", tmp_path / "a"), store_at("failing://run", tmp_path / "b")
    FailingFileSystem.broken.set()
    write(node_a, 2)
    while not FailingFileSystem.num_failures:
        time.sleep(0.01)
    node_a.close()
    FailingFileSystem.broken.clear()
    other = llama(seed=9)
    stored = snapshot(other)
    node_b.write(dataclasses.replace(manifest(), step=2), weights=stored, optimizer=adamw(other).state_dict())
    node_b.drain(30.0)
    rank_on_a = store_at("failing://run", tmp_path / "a")
    found, left = rank_on_a.read(2, may_be_staged=False).weights, rank_on_a.read(2).weights
    assert all(torch.equal(found[name], stored[name]) for name in stored)
    assert not all(torch.equal(left[name], stored[name]) for name in stored)


def test_a_disk_that_is_full_while_staging_does_not_stop_training(tmp_path: Path) -> None:
    (tmp_path / "staging").write_text("no folder")
    store = store_at(tmp_path / "kept", tmp_path)
    store.storage.make()
    write(store, 2)
    (news,) = store.news()
    assert "could not be staged" in news.text
    assert store.num_behind == 1


def test_storage_that_is_gone_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(
        StateError, match=r"cannot be listed: .*mend the storage, then go on with taskheat run --resume"
    ):
        store_at(tmp_path / "gone", tmp_path).steps()


@pytest.mark.parametrize("place", ["memory://x", "nosuch://bucket/x", "/proc/nowhere"])
def test_a_place_that_cannot_keep_anything_is_refused_before_training(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output\.storage"):
        store_at(place, tmp_path).storage.make()


def test_storage_behind_a_url_that_does_not_answer_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at("failing://run", tmp_path)
    assert store.steps() == []
    write(store, 2)
    assert store.drain(30.0)
    assert store.steps() == [2]

    def unreachable(*_: object, **__: object) -> object:
        raise OSError(111, "Connection refused")

    monkeypatch.setattr(FailingFileSystem, "ls", unreachable)
    with pytest.raises(StateError, match=r"cannot be listed: .*Connection refused"):
        store.steps()


def test_a_checkpoint_that_could_not_be_staged_is_not_durable_until_a_later_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store = store_at(tmp_path / "run", tmp_path)
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("train.checkpoint_store.write_checkpoint", full)
        write(store, 2)
    assert not store.drain(1.0)
    write(store, 4)
    assert store.drain(30.0)
