"""Gradients of several ranks added up in small buckets, also where a rank did nothing or broke off."""

from pathlib import Path

import pytest
import torch

from tests.unit.train.ranks import on_every_rank
from train.gradient_sum import GradientSum

NUM_LAYERS = 4


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(3, 3) for _ in range(NUM_LAYERS)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(3, 1))


def gradients(rank: int, breaks_on: int | None, idle: int | None) -> tuple[list[torch.Tensor], list[float]]:
    """Two steps; a rank may have nothing to do, or break off half-way through its backward in the first step."""
    model = network()
    parameters = list(model.parameters())
    total = GradientSum(parameters, bucket_bytes=30)
    numbers = torch.zeros(1)
    told: list[float] = []
    for step in range(2):
        model.zero_grad(set_to_none=True)

        def fail(*_: object, step: int = step) -> None:
            if step == 0 and rank == breaks_on:
                raise MemoryError

        handle = model[2].register_full_backward_pre_hook(fail)
        try:
            if rank != idle:
                for turn in range(2):
                    if turn == 1:
                        total.overlap()
                    model(torch.full((2, 3), rank + 1.0 + turn)).sum().backward()
        except MemoryError:
            numbers = torch.ones(1)
        handle.remove()
        numbers = total.finish(numbers if step == 0 else torch.zeros(1))
        if step == 0:
            told = numbers.tolist()
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None], told


def alone(ranks: list[int]) -> list[torch.Tensor]:
    model = network()
    for rank in ranks:
        for turn in range(2):
            model(torch.full((2, 3), rank + 1.0 + turn)).sum().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    ("breaks_on", "idle"), [(None, None), (1, None), (None, 0), (0, 1)], ids=["both", "one breaks off", "idle", "mixed"]
)
def test_every_rank_gets_the_sum_and_no_rank_waits_for_one_that_broke_off(
    breaks_on: int | None, idle: int | None, tmp_path: Path
) -> None:
    found = on_every_rank(gradients, breaks_on, idle, num_ranks=2, folder=tmp_path)
    expected = alone([rank for rank in range(2) if rank != idle])
    for summed, told in found:
        assert told == [0.0 if breaks_on is None else 1.0]
        assert len(summed) == len(expected)
        for one, other in zip(summed, expected, strict=True):
            torch.testing.assert_close(one, other)


def adam_steps(rank: int, num_ranks: int) -> list[torch.Tensor]:
    """Three steps of AdamW in which the last layer is reached in the second step only, and only on the last rank."""
    model = network()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)
    total = GradientSum(parameters, bucket_bytes=30)
    for step in range(3):
        for part in range(2):
            if part % num_ranks == rank:
                found = model[:-1](torch.full((2, 3), part + 1.0))
                (model[-1](found) if step == part == 1 else found).sum().backward()
        total.finish(torch.zeros(1))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return [parameter.detach().clone() for parameter in parameters]


def test_what_no_rank_reached_is_left_alone_as_it_is_on_one_rank(tmp_path: Path) -> None:
    folders = {num_ranks: tmp_path / str(num_ranks) for num_ranks in (1, 2)}
    for folder in folders.values():
        folder.mkdir()
    (one_rank,) = on_every_rank(adam_steps, 1, num_ranks=1, folder=folders[1])
    for found in on_every_rank(adam_steps, 2, num_ranks=2, folder=folders[2]):
        for one, other in zip(found, one_rank, strict=True):
            torch.testing.assert_close(one, other)
