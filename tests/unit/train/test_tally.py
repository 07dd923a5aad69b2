"""Sums per task and the hash of what was trained, over one process and over several that really talk to each other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.train.ranks import on_every_rank
from train.stream.batch import sequence_hash
from train.stream.mixture import MixtureStream
from train.tally import Tally, Totals

CPU = torch.device("cpu")
NUM_TASKS, NUM_STEPS, BATCH_SIZE = 3, 4, 6
TOP = (1 << 63) - 1


def trained(slots_of_rank: slice) -> Tally:
    """What a rank notes that trained these slots of each step, in micro-batches of one slot."""
    tally = Tally(NUM_TASKS, CPU)
    stream = MixtureStream(num_rows=[5, 7, 9], batch_size=BATCH_SIZE, seed=3)
    stream.set_weights([0.5, 0.3, 0.2])
    for _ in range(NUM_STEPS):
        batch = stream.next_batch()
        for slot in range(BATCH_SIZE)[slots_of_rank]:
            tasks, rows = batch.tasks[slot : slot + 1], batch.rows[slot : slot + 1]
            generator = torch.Generator().manual_seed(100 * batch.step + slot)
            losses = 10.0 ** torch.empty(1 + slot).uniform_(-9, 1, generator=generator)
            tally.add_losses(tasks=tasks, rows=torch.zeros(1 + slot, dtype=torch.int64), losses=losses)
            alone = np.zeros(1, dtype=np.int8)
            tally.add_slots(step=batch.step, slots=np.array([slot]), tasks=tasks, rows=rows, arrangements=alone)
    return tally


def share(rank: int, num_ranks: int) -> list[Totals]:
    tally = trained(slice(rank, None, num_ranks))
    return [tally.gather(), tally.gather()]


def hold(rank: int, hashes: list[int]) -> int:
    tally = Tally(1, CPU)
    tally._hash = hashes[rank]
    return tally.gather().sequence_hash


def test_losses_and_tokens_go_to_the_task_of_their_row() -> None:
    tally = Tally(NUM_TASKS, CPU)
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    tally.add_losses(tasks=np.array([2, 0, 2]), rows=torch.tensor([0, 0, 1, 2]), losses=losses)
    tally.add_losses(tasks=np.array([0]), rows=torch.tensor([0]), losses=torch.tensor([0.5]))
    assert tally.gather() == Totals(loss=(4.5, 0.0, 11.0), tokens=(2, 0, 3), learnt_tokens=(2, 0, 3), sequence_hash=0)


def test_of_a_skipped_step_the_tokens_count_and_the_losses_do_not() -> None:
    tally = Tally(NUM_TASKS, CPU)
    tasks, rows = np.array([0, 1]), torch.tensor([0, 0, 1])
    tally.add_losses(tasks=tasks, rows=rows, losses=torch.tensor([1.0, 2.0, 3.0]))
    tally.add_losses(tasks=tasks, rows=rows, losses=torch.full((3,), torch.nan), learnt=False)
    assert tally.gather() == Totals(loss=(3.0, 3.0, 0.0), tokens=(4, 2, 0), learnt_tokens=(2, 1, 0), sequence_hash=0)


def test_gathering_starts_the_sums_again() -> None:
    tally = trained(slice(None))
    assert sum(tally.gather().tokens) == NUM_STEPS * sum(range(1, BATCH_SIZE + 1))
    assert tally.gather() == Totals(loss=(0.0,) * 3, tokens=(0,) * 3, learnt_tokens=(0,) * 3, sequence_hash=0)


def test_the_hash_of_what_was_trained_is_that_of_the_stream() -> None:
    stream = MixtureStream(num_rows=[5, 7, 9], batch_size=BATCH_SIZE, seed=3)
    stream.set_weights([0.5, 0.3, 0.2])
    expected = sum(sequence_hash(stream.next_batch()) for _ in range(NUM_STEPS)) & TOP
    assert trained(slice(None)).gather().sequence_hash == expected


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_gather_exactly_what_one_process_would_have_noted(num_ranks: int, tmp_path: Path) -> None:
    alone = trained(slice(None)).gather()
    for first, second in on_every_rank(share, num_ranks, num_ranks=num_ranks, folder=tmp_path):
        assert first == alone
        assert second == Totals(loss=(0.0,) * 3, tokens=(0,) * 3, learnt_tokens=(0,) * 3, sequence_hash=0)


def test_hashes_at_the_top_of_their_range_add_up_modulo_two_to_the_63(tmp_path: Path) -> None:
    hashes = [TOP, TOP - 1, (1 << 62) + 12345]
    found = on_every_rank(hold, hashes, num_ranks=3, folder=tmp_path)
    assert found == [sum(hashes) & TOP] * 3
