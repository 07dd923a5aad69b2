"""The layout is no part of the experiment: however a batch is cut and shared out, the same model comes out.

Sums of floats depend on their order, so cuts agree within a tolerance and without a drift; the same micro-batches on
one worker and on two add the same two gradients, and agree bit for bit.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.invariant.small_job import BATCH_SIZE, Curve, Job
from tests.unit.train.ranks import on_every_rank
from train.config import TrainConfig


def train(rank: int, path: Path, num_ranks: int, micro_batch_size: int) -> Curve:
    # as Ray Train sets them; the group exists already, so the address is never called
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    config = TrainConfig(global_batch_size=BATCH_SIZE, micro_batch_size=micro_batch_size)
    return Job.open(path).train(config)


def on_layout(job: Job, folder: Path, *, num_ranks: int, micro_batch_size: int) -> Curve:
    """What rank 0 has in the end; all ranks must have the same."""
    folder.mkdir()
    curves = on_every_rank(train, job.path, num_ranks, micro_batch_size, num_ranks=num_ranks, folder=folder)
    for other in curves[1:]:
        assert other.losses == curves[0].losses
        assert all(torch.equal(value, other.weights[name]) for name, value in curves[0].weights.items())
    return curves[0]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.make(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def whole(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """One worker, the batch in one piece."""
    return on_layout(job, tmp_path_factory.mktemp("whole") / "1", num_ranks=1, micro_batch_size=BATCH_SIZE)


@pytest.mark.parametrize(
    ("num_ranks", "micro_batch_size"), [(2, BATCH_SIZE // 2), (1, 2), (3, 2)], ids=["2x4", "accumulated", "3 ranks"]
)
def test_the_batch_in_one_piece_shared_out_and_accumulated_train_the_same_model(
    num_ranks: int, micro_batch_size: int, job: Job, whole: Curve, tmp_path: Path
) -> None:
    found = on_layout(job, tmp_path / "other", num_ranks=num_ranks, micro_batch_size=micro_batch_size)
    residuals = np.array(found.losses) - np.array(whole.losses)
    assert np.abs(residuals).max() < 2e-4
    assert abs(residuals.mean()) < 2e-5
    for name, value in whole.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-3, atol=1e-4)


def test_the_same_two_micro_batches_on_one_worker_and_on_two_agree_bit_for_bit(job: Job, tmp_path: Path) -> None:
    one, two = (
        on_layout(job, tmp_path / str(count), num_ranks=count, micro_batch_size=BATCH_SIZE // 2) for count in (1, 2)
    )
    assert one.losses == two.losses
    assert all(torch.equal(value, two.weights[name]) for name, value in one.weights.items())
