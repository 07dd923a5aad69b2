"""Processes that talk to each other over gloo, forked from a server that has imported torch once."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

multiprocessing.set_forkserver_preload(["torch", "train.agreement", "train.step"])


def on_every_rank(function: Callable[..., Any], *arguments: Any, num_ranks: int, folder: Path) -> list[Any]:
    """Call `function(rank, *arguments)` in a process group of `num_ranks`; returns what each rank gave (plain data)."""
    mp.start_processes(
        _rank, args=(num_ranks, str(folder), function, arguments), nprocs=num_ranks, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(num_ranks)]


def _rank(rank: int, num_ranks: int, folder: str, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/rendezvous", num_ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks, timeout=timedelta(seconds=60))
    torch.save(function(rank, *arguments), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
