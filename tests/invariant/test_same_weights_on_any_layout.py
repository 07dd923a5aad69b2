"""The layout is no part of the experiment: however a batch is cut and shared out, the same model comes out.

Sums of floats depend on their order, so cuts agree within a tolerance and without a drift; in double precision they
agree as much closer as a double is finer than a float, so that nothing but rounding is between them. The same
micro-batches on one worker and on two add the same two gradients, and agree bit for bit.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.invariant.small_job import BATCH_SIZE, NUM_STEPS, Curve, Job
from tests.unit.train.ranks import on_every_rank
from train.config import TrainConfig


def train(rank: int, path: Path, num_ranks: int, cut: dict[str, int], options: dict[str, Any]) -> Curve:
    # as Ray Train sets them; the group exists already, so the address is never called
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    return Job.open(path).train(TrainConfig.model_validate({"global_batch_size": BATCH_SIZE, **cut}), **options)


def on_layout(job: Job, folder: Path, *, num_ranks: int, cut: dict[str, int], **options: Any) -> Curve:
    """What rank 0 has in the end; all ranks must have the same."""
    folder.mkdir()
    curves = on_every_rank(train, job.path, num_ranks, cut, options, num_ranks=num_ranks, folder=folder)
    for other in curves[1:]:
        assert other.losses == curves[0].losses
        assert not other.optimizer, "rank 0 alone holds what is written down"
        if options.get("parallelism") == "fsdp2":
            assert not other.weights
        else:
            assert all(torch.equal(value, other.weights[name]) for name, value in curves[0].weights.items())
    return curves[0]


def samples(number: int) -> dict[str, int]:
    return {"micro_batch_size": number}


def tokens(number: int) -> dict[str, int]:
    return {"micro_batch_size": BATCH_SIZE, "micro_batch_tokens": number}


def assert_the_same_up_to_rounding(found: Curve, whole: Curve, *, first_step: int = 0) -> None:
    residuals = np.array(found.losses) - np.array(whole.losses[first_step:])
    assert np.abs(residuals).max() < 2e-4
    assert abs(residuals.mean()) < 2e-5
    for name, value in whole.weights.items():
        torch.testing.assert_close(found.weights[name], value, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.make(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def whole(job: Job) -> Curve:
    """One worker, the batch in one piece."""
    return job.train(TrainConfig(global_batch_size=BATCH_SIZE, micro_batch_size=BATCH_SIZE))


@pytest.mark.parametrize(
    ("num_ranks", "cut", "parallelism"),
    [
        (2, samples(BATCH_SIZE // 2), "ddp"),
        (1, samples(2), "ddp"),
        (3, samples(4), "ddp"),
        (1, tokens(100), "ddp"),
        (2, tokens(100), "ddp"),
        (2, samples(BATCH_SIZE // 2), "fsdp2"),
        (2, tokens(200), "fsdp2"),
    ],
    ids=["2x8", "accumulated", "3 ranks", "tokens", "tokens, 2 ranks", "fsdp2", "fsdp2, tokens"],
)
def test_the_batch_in_one_piece_shared_out_and_accumulated_train_the_same_model(
    num_ranks: int, cut: dict[str, int], parallelism: str, job: Job, whole: Curve, tmp_path: Path
) -> None:
    found = on_layout(job, tmp_path / "other", num_ranks=num_ranks, cut=cut, parallelism=parallelism)
    assert_the_same_up_to_rounding(found, whole)


@pytest.mark.parametrize("cut", [samples(2), tokens(100)], ids=["samples", "tokens"])
def test_nothing_but_rounding_is_between_two_cuts(cut: dict[str, int], job: Job, whole: Curve) -> None:
    single = job.train(TrainConfig.model_validate({"global_batch_size": BATCH_SIZE, **cut}))
    pieces, one_piece = (
        job.train(TrainConfig.model_validate({"global_batch_size": BATCH_SIZE, **some}), dtype=torch.float64)
        for some in (cut, samples(BATCH_SIZE))
    )
    in_float = max(float((single.weights[name] - value).abs().max()) for name, value in whole.weights.items())
    in_double = max(float((pieces.weights[name] - value).abs().max()) for name, value in one_piece.weights.items())
    assert in_float > 0
    assert in_double < 1e-6 * in_float


@pytest.mark.parametrize("cut", [samples(BATCH_SIZE // 2), tokens(200)], ids=["samples", "tokens"])
def test_the_same_two_micro_batches_on_one_worker_and_on_two_agree_bit_for_bit(
    cut: dict[str, int], job: Job, tmp_path: Path
) -> None:
    one, two = (on_layout(job, tmp_path / str(count), num_ranks=count, cut=cut) for count in (1, 2))
    assert one.losses == two.losses
    assert all(torch.equal(value, two.weights[name]) for name, value in one.weights.items())


def test_a_checkpoint_of_either_kind_is_gone_on_from_under_the_other(job: Job, whole: Curve, tmp_path: Path) -> None:
    third = NUM_STEPS // 3
    cut = samples(BATCH_SIZE // 2)
    first = on_layout(job, tmp_path / "a", num_ranks=2, cut=cut, end=third, parallelism="ddp")
    second = on_layout(
        job, tmp_path / "b", num_ranks=2, cut=cut, begin=third, end=2 * third, saved=first, parallelism="fsdp2"
    )
    assert [list(state) for state in second.optimizer["state"].values()] == [
        list(state) for state in first.optimizer["state"].values()
    ]
    last = on_layout(job, tmp_path / "c", num_ranks=1, cut=cut, begin=2 * third, saved=second)
    assert_the_same_up_to_rounding(last, whole, first_step=2 * third)
