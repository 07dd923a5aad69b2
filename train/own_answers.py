"""Chains in the model's own words: before a later step, the earlier step as this model answers it now.

A chain's row is trained after the rows it continues. Taught on perfect earlier answers alone, a model meets its own,
imperfect ones only in use. Where the plan says so (the task of the earlier answer scores well enough), the last answer
before the row is replaced by what the model writes there:

    [ … turn of the parent ][ teacher's answer ][ own turn ][ own answer ]
                             └── generated ──┘               └ supervised ┘

Which rows an interval will train is known beforehand (the stream is a function), so the answers are written all at
once at its start, greedily, in batches whose members do not depend on the number of workers: 1 worker and 8 workers
train on the same tokens. An answer that does not end, or would make the row too long, leaves the teacher's in place.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch.distributed as dist

from train.data.arrangement import CHAIN
from train.data.store import EncodedRow, TokenStore
from train.generation import Completion, generate
from train.stream.batch import Batch

_BATCH_SIZE = 32
_MAX_GROWTH = 2
"""A generated answer may have this many times the teacher's tokens, and a few more."""
_SPARE_TOKENS = 8

Place = tuple[int, int]
"""(task, row)."""


def wanted_places(batches: Iterable[Batch], store: TokenStore, own_answers: tuple[int, ...]) -> list[Place]:
    """Rows of the batches that will be trained in a chain whose last earlier answer belongs to one of these tasks."""
    offered = {
        (int(batch.tasks[slot]), int(batch.rows[slot]))
        for batch in batches
        for slot in np.flatnonzero(batch.arrangements == CHAIN).tolist()
    }
    return sorted(place for place in offered if store.chain_task(*place) in own_answers)


def write_contexts(
    model: Any,
    store: TokenStore,
    places: list[Place],
    *,
    stop_id: int,
    pad_id: int,
    max_length: int,
    rank: int,
    world_size: int,
) -> dict[Place, EncodedRow]:
    """Let the model write the last earlier answer of every row; a collective of all ranks.

    Args:
        model: The model as it stands, on every rank the same.
        store: Where the rows' chains are.
        places: The same on every rank, in the same order.
        stop_id: Token that ends an answer.
        pad_id: Any valid token id.
        max_length: Tokens of a row at most.
        rank: This process.
        world_size: All of them.

    Returns:
        The rows in their chains, by place; without those whose answer the model did not end in time.
    """
    chains = [store.encoded(task, row, arrangement=CHAIN) for task, row in places]
    answers = [store.chain_answer(task, row) for task, row in places]
    order = sorted(range(len(places)), key=lambda index: (answers[index][0], places[index]))
    batches = [order[start : start + _BATCH_SIZE] for start in range(0, len(order), _BATCH_SIZE)]
    written: dict[int, Completion] = {}
    for batch in batches[rank::world_size]:
        longest = max(answers[index][1] - answers[index][0] for index in batch)
        completions = generate(
            model,
            [chains[index].input_ids[: answers[index][0]].tolist() for index in batch],
            max_new_tokens=_MAX_GROWTH * longest + _SPARE_TOKENS,
            stop_id=stop_id,
            pad_id=pad_id,
            batch_size=_BATCH_SIZE,
        )
        written.update(zip(batch, completions, strict=True))
    rows: dict[Place, EncodedRow] = {}
    for index, completion in sorted(_gathered(written, world_size).items()):
        row = _spliced(chains[index], answers[index], completion, stop_id)
        if completion.stopped and completion.token_ids and len(row.input_ids) <= max_length:
            rows[places[index]] = row
    return rows


def _gathered(written: dict[int, Completion], world_size: int) -> dict[int, Completion]:
    if world_size == 1:
        return written
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, written)
    return {index: Completion(*found) for part in parts for index, found in part.items()}


def _spliced(chain: EncodedRow, answer: tuple[int, int], completion: Completion, stop_id: int) -> EncodedRow:
    """The chain with another answer in the place of the teacher's; supervised tokens move along."""
    start, end = answer
    words = np.array([*completion.token_ids, stop_id], dtype=np.int32)
    ids = np.concatenate([chain.input_ids[:start], words, chain.input_ids[end:]])
    return EncodedRow(ids, chain.spans + np.int32(len(words) - (end - start)))
