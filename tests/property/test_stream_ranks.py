"""Any number of ranks trains one sequence: micro-batches are dealt as `train.step` deals them."""

import numpy as np
import pytest

from scheduler.plan import MixturePlan
from train.stream.batch import HASH_MASK, add_hashes, sequence_hash, slots_hash
from train.stream.mixture import MixtureStream

BATCH_SIZE, MICRO_BATCH_SIZE, NUM_STEPS, STEPS_PER_PLAN = 24, 2, 18, 7
LEVEL_SIZES = [(5, 0, 9), (30,), (2, 2, 2), (11, 6)]
Trained = tuple[int, int, int, int, int]


def new_stream(*, in_tokens: bool) -> MixtureStream:
    rng = np.random.default_rng(4)
    return MixtureStream(
        num_rows=[sum(sizes) for sizes in LEVEL_SIZES],
        batch_size=BATCH_SIZE,
        seed=11,
        level_sizes=LEVEL_SIZES,
        supervised_lengths=[rng.integers(1, 90, size=sum(sizes)) for sizes in LEVEL_SIZES] if in_tokens else None,
    )


def plan_from(step: int) -> MixturePlan:
    weights = np.random.default_rng(step).dirichlet(np.ones(len(LEVEL_SIZES)))
    return MixturePlan(
        version=step // STEPS_PER_PLAN,
        source_step=step - 1,
        effective_from_step=step,
        stage=1,
        stage_start_step=0,
        weights=tuple(weights.tolist()),
        arrangement=(0.5, 0.25, 0.25),
        windows=((0, step % 3),) * len(LEVEL_SIZES),
    )


def trained_by(rank: int, *, world_size: int, in_tokens: bool) -> tuple[list[Trained], list[int]]:
    """(step, slot, task, row, arrangement) of every sample the rank trains, in order, and its hash of every step."""
    stream, trained, hashes = new_stream(in_tokens=in_tokens), list[Trained](), list[int]()
    for step in range(NUM_STEPS):
        if step % STEPS_PER_PLAN == 0:
            stream.follow(plan_from(step))
        batch, own_hash = stream.next_batch(), 0
        for index in range(rank, BATCH_SIZE // MICRO_BATCH_SIZE, world_size):
            slots = np.arange(MICRO_BATCH_SIZE) + index * MICRO_BATCH_SIZE
            own = (batch.tasks[slots], batch.rows[slots], batch.arrangements[slots])
            own_hash = add_hashes(own_hash, slots_hash(step, slots, *own))
            trained += [
                (step, *sample) for sample in zip(slots.tolist(), *(each.tolist() for each in own), strict=True)
            ]
        hashes.append(own_hash)
    return trained, hashes


@pytest.mark.parametrize("in_tokens", [False, True])
def test_one_to_eight_ranks_train_the_same_samples_in_the_same_slots(in_tokens: bool) -> None:
    alone, hashes_alone = trained_by(0, world_size=1, in_tokens=in_tokens)
    assert len(alone) == NUM_STEPS * BATCH_SIZE
    for world_size in range(2, 9):
        by_rank = [trained_by(rank, world_size=world_size, in_tokens=in_tokens) for rank in range(world_size)]
        assert sorted(sample for trained, _ in by_rank for sample in trained) == alone
        sums = np.array([hashes for _, hashes in by_rank], dtype=object).sum(axis=0) & HASH_MASK
        assert sums.tolist() == hashes_alone


def test_the_hash_of_one_rank_is_the_hash_of_the_stream() -> None:
    stream = new_stream(in_tokens=False)
    hashes = []
    for step in range(NUM_STEPS):
        if step % STEPS_PER_PLAN == 0:
            stream.follow(plan_from(step))
        hashes.append(sequence_hash(stream.next_batch()))
    assert trained_by(0, world_size=1, in_tokens=False)[1] == hashes
