"""A run that moves: stopped and gone on with by another number of workers, its newest checkpoint damaged on the way."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cluster.audit import audit
from cluster.config import LaunchConfig, RunConfig
from cluster.fork import resolve_fork
from cluster.run import resume_run, start_run
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from cluster.setup import gather_inputs
from scheduler.errors import LedgerError
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord, EndRecord, IntervalRecord
from tests.integration.tiny_run import start
from tests.unit.train.local_run import LocalRun
from train.checkpoint_store import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.timeout(560), pytest.mark.usefixtures("local_ray")]

SETTINGS = (
    "train.steps=120",
    "mixture.interval_steps=10",
    "mixture.policy={type: static}",
    "train.keep_checkpoints=20",
    "evaluation.max_new_tokens=2",
)


@dataclass(frozen=True, slots=True)
class Moved:
    """A finished run, where it was stopped twice, and the same run undisturbed."""

    root: Path
    first: int
    second: int
    undisturbed: LocalRun


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Moved:  # noqa: ARG001
    """Two workers; one, after the newest checkpoint was damaged; three. Two micro-batches a step."""
    folder = tmp_path_factory.mktemp("moved")
    root = folder / "runs" / "moved"
    with stopping(root, after_step=10):
        start(folder, "moved", *SETTINGS, num_workers=2)
    first = stopped_at(root)
    damage(root, first)
    with stopping(root, after_step=first):
        resume_run(root, launch_overrides=["num_workers=1"])
    second = stopped_at(root)
    assert resume_run(root, launch_overrides=["num_workers=3", "cpus_per_worker=0.5"]) is not None
    config = load_config(RunConfig, files=[RunDirectory(root).config])
    undisturbed = LocalRun(config=config, inputs=gather_inputs(config), folder=folder / "undisturbed")
    undisturbed.start()
    return Moved(root=root, first=first, second=second, undisturbed=undisturbed)


def test_a_run_that_moved_between_numbers_of_workers_trained_the_samples_of_an_undisturbed_one(moved: Moved) -> None:
    launch = load_config(LaunchConfig, files=[RunDirectory(moved.root).launch])
    assert (launch.num_workers, launch.cpus_per_worker) == (3, 0.5)
    attempts = [record for record in read_ledger(moved.root) if isinstance(record, AttemptRecord)]
    assert [attempt.step for attempt in attempts] == [0, moved.first - 10, moved.second]
    (reason,) = attempts[1].refused_checkpoints
    assert f"step-{moved.first:06d} is damaged: trainable.safetensors has the size" in reason
    assert audit(moved.root).num_samples == audit(moved.undisturbed.ledger).num_samples
    assert last_hash(moved.root) == last_hash(moved.undisturbed.ledger)


def test_two_workers_and_one_give_its_weights_bit_for_bit_and_three_up_to_rounding(moved: Moved) -> None:
    assert 0 < moved.first < moved.second < 110
    for step in (moved.first, moved.second):
        ours, theirs = weights(moved.root, step), moved.undisturbed.store.read(step).weights
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name, tensor in weights(moved.root, 110).items():
        torch.testing.assert_close(tensor, moved.undisturbed.store.read(110).weights[name], rtol=1e-3, atol=1e-4)


def test_a_fork_of_it_from_before_the_third_worker_is_the_undisturbed_run_bit_for_bit(moved: Moved) -> None:
    fork, config, launch = resolve_fork(
        f"{moved.root}@{moved.second}",
        files=[],
        overrides=[],
        launch=[],
        launch_overrides=["num_workers=2", "cpus_per_worker=1"],
    )
    report = start_run(config, launch, fork=fork)
    root = moved.root.with_name(f"moved-fork-{moved.second}")
    assert report is not None
    assert report.num_steps == audit(root).num_steps == 120
    assert (root / "model" / "model.safetensors").read_bytes() == moved.undisturbed.weights
    assert RunDirectory(root).read_manifest()["forked_from"] == {"run": str(moved.root), "step": moved.second}


@contextmanager
def stopping(root: Path, *, after_step: int) -> Iterator[None]:
    """Press Ctrl-C once the run has reported a boundary after `after_step`."""
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(0.05):
            if last_step(root) > after_step:
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


def last_step(root: Path) -> int:
    try:
        return max(record.report.step for record in read_ledger(root) if isinstance(record, IntervalRecord))
    except (LedgerError, ValueError):
        return -1


def stopped_at(root: Path) -> int:
    end = [record for record in read_ledger(root) if isinstance(record, EndRecord)][-1]
    assert end.reason == "stopped"
    return end.step


def damage(root: Path, step: int) -> None:
    path = store(root).storage.path(step) / "trainable.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def store(root: Path) -> CheckpointStore:
    return CheckpointStore(RunDirectory(root).checkpoints, keep=20)


def weights(root: Path, step: int) -> dict[str, torch.Tensor]:
    return store(root).read(step).weights


def last_hash(root: Path) -> int:
    return [record for record in read_ledger(root) if isinstance(record, IntervalRecord)][-1].report.sequence_hash
