"""A run that moves: stopped and gone on with by another number of workers, its newest checkpoint damaged on the way."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from cluster.audit import audit
from cluster.config import LaunchConfig
from cluster.run import resume_run
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from scheduler.errors import LedgerError
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord, EndRecord, IntervalRecord
from tests.integration.tiny_run import start
from train.checkpoint_store import CheckpointStore

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280), pytest.mark.usefixtures("local_ray")]

SETTINGS = (
    "train.steps=240",
    "mixture.interval_steps=20",
    "evaluation.max_new_tokens=2",
    "mixture.policy={type: static}",
    "train.keep_checkpoints=20",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:  # noqa: ARG001
    """Two workers, two micro-batches a step, every checkpoint kept."""
    return start(tmp_path_factory.mktemp("whole"), "undisturbed", *SETTINGS, num_workers=2)


def test_a_run_moves_from_two_workers_to_one_and_to_three_and_passes_over_a_damaged_checkpoint(
    tmp_path: Path, undisturbed: Path
) -> None:
    root = tmp_path / "runs" / "moved"
    with stopping(root, after_step=20):
        start(tmp_path, "moved", *SETTINGS, num_workers=2)
    first = stopped_at(root)
    damage(root, first)
    with stopping(root, after_step=first):
        resume_run(root, launch_overrides=["num_workers=1"])
    second = stopped_at(root)
    assert first < second < 240
    for step in (first, second):
        assert torch_equal(root, undisturbed, step)

    assert resume_run(root, launch_overrides=["num_workers=3", "cpus_per_worker=0.5"]) is not None
    launch = load_config(LaunchConfig, files=[RunDirectory(root).launch])
    assert (launch.num_workers, launch.cpus_per_worker) == (3, 0.5)
    attempts = [record for record in read_ledger(root) if isinstance(record, AttemptRecord)]
    assert [attempt.step for attempt in attempts] == [0, first - 20, second]
    (reason,) = attempts[1].refused_checkpoints
    assert f"step-{first:06d} is damaged: trainable.safetensors has the size" in reason
    assert audit(root).num_samples == audit(undisturbed).num_samples
    assert last_hash(root) == last_hash(undisturbed)
    for name, tensor in weights(root, 220).items():
        torch.testing.assert_close(tensor, weights(undisturbed, 220)[name], rtol=1e-3, atol=1e-4)


class stopping:  # noqa: N801 - reads as a statement
    """Ctrl-C, once the run has reported a boundary after `after_step`."""

    def __init__(self, root: Path, *, after_step: int) -> None:
        self._root, self._after_step = root, after_step
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._interrupt, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _interrupt(self) -> None:
        while not self._over.is_set():
            time.sleep(0.05)
            if last_step(self._root) > self._after_step:
                os.kill(os.getpid(), signal.SIGINT)
                return


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
    path = store(root).path(step) / "trainable.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def store(root: Path) -> CheckpointStore:
    return CheckpointStore(RunDirectory(root).checkpoints, keep=20)


def weights(root: Path, step: int) -> dict[str, torch.Tensor]:
    return store(root).read(step).weights


def torch_equal(root: Path, other: Path, step: int) -> bool:
    ours, theirs = weights(root, step), weights(other, step)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def last_hash(root: Path) -> int:
    return [record for record in read_ledger(root) if isinstance(record, IntervalRecord)][-1].report.sequence_hash
