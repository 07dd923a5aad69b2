"""Steps that run out of memory or whose numbers break: what the run does instead, on all workers alike."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from scheduler.errors import RunFailedError
from tests.invariant.small_job import BATCH_SIZE, Curve, Job
from tests.unit.train.ranks import on_every_rank
from train.config import TrainConfig

NUM_STEPS = 8
CONFIG = TrainConfig(global_batch_size=BATCH_SIZE, micro_batch_size=BATCH_SIZE // 2, max_skipped_steps=NUM_STEPS)
MORE_THAN_ANY_MACHINE_HAS = 1 << 58


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.make(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="module")
def undisturbed(job: Job) -> Curve:
    return job.train(CONFIG, end=NUM_STEPS)


def short_of_memory(model: Any, *, max_rows: int, rank: int = 0) -> None:
    """On one rank the backward of more than so many rows asks the allocator for more than there is."""
    num_rows = [0]

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        num_rows[0] = len(kwargs["packed_sequences"].lengths) if "packed_sequences" in kwargs else 0

    def allocate(_module: Any, _gradient: Any) -> None:
        if num_rows[0] > max_rows and (not dist.is_initialized() or dist.get_rank() == rank):
            torch.empty(MORE_THAN_ANY_MACHINE_HAS)

    model.register_forward_pre_hook(count, with_kwargs=True)
    model.model.layers[0].register_full_backward_pre_hook(allocate)


def train(rank: int, path: Path, meddle: Callable[[Any], object]) -> Curve:  # noqa: ARG001
    return Job.open(path).train(CONFIG, end=NUM_STEPS, meddle=meddle)


def assert_equal(first: Curve, second: Curve) -> None:
    assert first.losses == second.losses
    assert all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_out_of_memory_on_one_worker_halves_the_micro_batches_of_all_and_trains_the_same_model(
    num_ranks: int, job: Job, undisturbed: Curve, tmp_path: Path
) -> None:
    meddle = partial(short_of_memory, max_rows=BATCH_SIZE // 4, rank=num_ranks - 1)
    curves = on_every_rank(train, job.path, meddle, num_ranks=num_ranks, folder=tmp_path)
    for curve in curves:
        assert curve.num_halvings == 1
        assert_equal(curve, curves[0])
    torch.testing.assert_close(curves[0].losses, undisturbed.losses, rtol=0, atol=1e-4)
    for name, value in undisturbed.weights.items():
        torch.testing.assert_close(curves[0].weights[name], value, rtol=1e-3, atol=1e-4)


def test_out_of_memory_again_ends_the_run_with_what_can_be_done(job: Job) -> None:
    with pytest.raises(RunFailedError, match=r"step 0 with micro-batches of 4 .* once before; lower train.micro_batch"):
        job.train(CONFIG, meddle=partial(short_of_memory, max_rows=1))


def test_another_error_is_no_lack_of_memory(job: Job) -> None:
    def broken(model: Any) -> None:
        model.register_forward_pre_hook(lambda *_: torch.zeros(2) @ torch.zeros(3))

    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        job.train(CONFIG.model_copy(update={"packing": "off"}), meddle=broken)


def poisoned(model: Any, *, row: list[int]) -> None:
    """Whatever contains this row has no numbers where the row stands."""

    def poison(_module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        ids = args[0].flatten().tolist()
        starts = [at for at in range(len(ids) - len(row) + 1) if ids[at : at + len(row)] == row]
        spoilt = output.clone()
        for start in starts:
            spoilt.view(-1, output.shape[-1])[start : start + len(row)] = torch.nan
        return spoilt

    model.get_input_embeddings().register_forward_hook(poison)


def test_a_step_with_a_row_that_gives_no_number_is_skipped_and_the_row_named_on_any_number_of_workers(
    job: Job, undisturbed: Curve, tmp_path: Path
) -> None:
    task, row = int(job.batches[2].tasks[-1]), int(job.batches[2].rows[-1])
    holding = [
        batch.step
        for batch in job.batches[:NUM_STEPS]
        if (task, row) in zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True)
    ]
    meddle = partial(poisoned, row=job.store.encoded(task, row).input_ids.tolist())
    one = job.train(CONFIG, end=NUM_STEPS, meddle=meddle)
    assert [skipped.step for skipped in one.skipped] == holding
    name = job.store.task_names[task]
    for skipped in one.skipped:
        assert (skipped.broken, skipped.tasks) == ("loss", (name,))
        (told,) = skipped.rows
        assert told.startswith(f"{name}: {job.store.row_id(task, row)} ({name}.jsonl, line ")
    assert one.losses[:2] == undisturbed.losses[:2]
    assert one.losses[3] != undisturbed.losses[3]
    assert all(value.isfinite().all() for value in one.weights.values())
    for curve in on_every_rank(train, job.path, meddle, num_ranks=2, folder=tmp_path):
        assert curve.skipped == one.skipped
        assert_equal(curve, one)
