"""Ranks receive rank 0's plan bit for bit, and notice when they do not stand at the same place."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch.distributed as dist

from scheduler.plan import MixturePlan
from tests.unit.train.ranks import on_every_rank
from train.agreement import Ending, assert_agreement, broadcast_plan, counts_digest

WEIGHTS = (0.1, 1 / 3, 5e-324, 1.0 - 0.1 - 1 / 3)
PLAN = MixturePlan(
    version=7, source_step=-1, effective_from_step=2**31 + 1, stage=2, stage_start_step=2**31, weights=WEIGHTS
)
WINDOWED = dataclasses.replace(
    PLAN, arrangement=(0.7, 0.2, 0.1), windows=((0, 0), (0, 2), (1, 2), (2, 2)), replay_ratio=0.1, own_answers=(1, 3)
)
ORDERED = dataclasses.replace(WINDOWED, level_orders=((0,), (2, 0, 1), (0, 1, 2), (1, 0)))
OTHER = MixturePlan(
    version=0, source_step=3, effective_from_step=0, stage=1, stage_start_step=0, weights=(0.25, 0.25, 0.25, 0.25)
)


def receive(rank: int) -> list[tuple[MixturePlan, Ending]]:
    """Rank 0 has a plan, rank 1 none, rank 2 another, and both a wish of their own to stop."""
    mine = {0: PLAN, 1: None, 2: OTHER}[rank]
    endings: tuple[Ending, ...] = ("", "stopped", "rolled_back")
    return [broadcast_plan(mine, ending=ending if rank == 0 else "stopped", num_tasks=4) for ending in endings]


def compare(rank: int, values_of_ranks: list[list[tuple[int, ...]]]) -> list[str]:
    """What each round of values gives on this rank: agreement, or the error; then that the group still works."""
    found = []
    for values in values_of_ranks:
        try:
            assert_agreement(*values[rank])
            found.append("agreed")
        except RuntimeError as error:
            found.append(str(error))
    dist.barrier()
    return found


def test_every_rank_gets_the_plan_and_the_ending_of_rank_0_and_nobody_elses(tmp_path: Path) -> None:
    for received in on_every_rank(receive, num_ranks=3, folder=tmp_path):
        assert received == [(PLAN, ""), (PLAN, "stopped"), (PLAN, "rolled_back")]
        assert received[0][0].digest() == PLAN.digest()


def test_a_rank_that_differs_in_any_value_is_noticed_by_all(tmp_path: Path) -> None:
    top = (1 << 63) - 1
    rounds = [
        [(5, top, 0), (5, top, 0)],
        [(5, top, 0), (5, top - 1, 0)],
        [(4, 1, 0), (5, 1, 0)],
        [(0, 0, 1), (0, 0, 0)],
        [(9, 9, 9), (9, 9, 9)],
    ]
    for rank, found in enumerate(on_every_rank(compare, rounds, num_ranks=2, folder=tmp_path)):
        assert [result == "agreed" for result in found] == [True, False, False, False, True]
        assert f"ranks disagree on (step, plan, samples served): {list(rounds[1][rank])} here" in found[1]


def test_counts_of_equal_sum_differ_in_their_digest_whatever_the_number_of_tasks() -> None:
    counts = np.array([3, 5, 2**40])
    found = {counts_digest(np.array(own)) for own in ([3, 5, 2**40], [5, 3, 2**40], [4, 4, 2**40], [3, 5, 2**40, 0])}
    assert len(found) == 4
    assert all(0 <= digest < 2**63 for digest in found)
    assert counts_digest(counts) == counts_digest(counts[::-1].copy()[::-1]) == counts_digest(counts.astype(np.uint64))
    assert counts_digest(np.arange(10_000)) != counts_digest(np.arange(10_000)[::-1])


def test_alone_a_process_agrees_with_itself_and_keeps_its_plan() -> None:
    assert_agreement(1, 2, 3)
    assert broadcast_plan(PLAN, ending="stopped", num_tasks=4) == (PLAN, "stopped")
    assert broadcast_plan(WINDOWED, ending="", num_tasks=4) == (WINDOWED, "")
    for plan in (PLAN, WINDOWED, ORDERED):
        assert broadcast_plan(plan, ending="", num_tasks=4, num_levels=(1, 3, 3, 2)) == (plan, "")
    assert len({plan.digest() for plan in (PLAN, WINDOWED, ORDERED)}) == 3


def test_a_plan_survives_json_with_every_field() -> None:
    for plan in (PLAN, WINDOWED):
        assert MixturePlan.from_fields(json.loads(json.dumps(plan.to_fields()))) == plan
        assert plan.to_fields() == json.loads(json.dumps(plan.to_fields()))


def test_any_difference_of_content_changes_the_digest() -> None:
    others = [
        dataclasses.replace(WINDOWED, arrangement=(0.2, 0.7, 0.1)),
        dataclasses.replace(WINDOWED, windows=((0, 0), (0, 2), (1, 2), (1, 2))),
        dataclasses.replace(WINDOWED, replay_ratio=0.2),
        dataclasses.replace(WINDOWED, own_answers=(1,)),
        dataclasses.replace(WINDOWED, version=8),
        PLAN,
    ]
    assert len({plan.digest() for plan in [WINDOWED, *others]}) == len(others) + 1
