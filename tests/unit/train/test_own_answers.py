"""Chains in the model's own words: what is replaced, what stays, and who writes what."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cluster.data import TrainedTokenizer
from tests.unit.train.ranks import on_every_rank
from train.batch import collate
from train.config import DataConfig, TinyModel
from train.data.arrangement import CHAIN, SINGLE
from train.data.prepare import prepare
from train.data.store import EncodedRow, TokenStore
from train.model import SupervisedLoss, build_model, pad_id
from train.model_path import load_tokenizer
from train.own_answers import Place, wanted_places, write_contexts
from train.stream.batch import Batch
from train.tokenizer import stop_id

NUM_CHAINS = 24
MODEL = TinyModel(hidden_size=64, num_layers=2, num_heads=2, vocab_size=300)


class Chains(NamedTuple):
    """Chains through two tasks: `first` (a number), then `second` (its double), the same file."""

    path: Path
    store: TokenStore
    tokenizer: Any

    @classmethod
    def open(cls, path: Path) -> "Chains":
        return cls(path, TokenStore.open(path / "store"), load_tokenizer(path / "tokenizer"))

    @property
    def places(self) -> list[Place]:
        """Every training row with a chain."""
        second = self.store.task_names.index("second")
        return [(second, row) for row in np.flatnonzero(self.store.has_arrangement(second, CHAIN)).tolist()]

    def model(self) -> Any:
        return build_model(MODEL, self.tokenizer, device=torch.device("cpu"), seed=0)

    def write(self, model: Any, places: list[Place], *, rank: int = 0, world_size: int = 1) -> dict[Place, EncodedRow]:
        return write_contexts(
            model,
            self.store,
            places,
            stop_id=stop_id(self.tokenizer),
            pad_id=pad_id(self.tokenizer),
            max_length=128,
            rank=rank,
            world_size=world_size,
        )


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Chains:
    folder = tmp_path_factory.mktemp("chains")
    rows: list[dict[str, Any]] = []
    for n in range(NUM_CHAINS):
        rows.append({"id": f"{n}", "task": "first", "instruction": f"name {n}", "output": f"it is {n % 5}"})
        second = {"task": "second", "instruction": "double it", "input": f"of {n}", "output": f"{2 * (n % 5)}"}
        rows.append({"id": f"{n}b", "parent_id": f"{n}", **second})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"path": str(folder / "rows.jsonl"), "task_column": "task"}
    prepared = prepare(
        DataConfig.model_validate({"sources": [source], "probes_per_task": 4, "test_per_task": 0}),
        specs={},
        tokenizer_source=TrainedTokenizer(vocab_size=300),
        chat_template="auto",
        out_dir=folder,
        seed=0,
        arrangements=frozenset({CHAIN}),
    )
    return Chains.open(prepared.path)


def memorise(model: Any, chains: Chains) -> None:
    """Teach the model the first task."""
    first = chains.store.task_names.index("first")
    rows = [chains.store.encoded(first, row) for row in range(chains.store.num_rows(first))]
    loss, optimizer = SupervisedLoss(model), torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        value = loss(collate(rows, pad_id=0, device=torch.device("cpu"))).mean()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        if float(value.detach()) < 1e-3:
            return


def text(chains: Chains, row: EncodedRow) -> str:
    return chains.tokenizer.decode(row.input_ids)


def test_a_chain_through_two_tasks_stays_in_one_set_and_knows_whose_answer_stands_before_it(chains: Chains) -> None:
    store = chains.store
    first, second = (store.task_names.index(name) for name in ("first", "second"))
    for split in ("train", "probe"):
        roots = {example.id for example in store.examples(first, split)}
        assert {example.id.removesuffix("b") for example in store.examples(second, split)} == roots
    assert {store.chain_task(*place) for place in chains.places} == {first}
    for task, row in chains.places:
        chain, (start, end) = store.encoded(task, row, arrangement=CHAIN), store.chain_answer(task, row)
        number = int(store.texts(task, [row])[0]["id"].removesuffix("b"))
        assert chains.tokenizer.decode(chain.input_ids[start : end - 1]) == f"it is {number % 5}"
        assert chain.input_ids[end - 1] == stop_id(chains.tokenizer)


def test_rows_are_wanted_that_are_offered_a_chain_after_an_answer_the_model_may_give(chains: Chains) -> None:
    (task, row), *_ = chains.places
    offered = Batch(0, np.array([task, task]), np.array([row, row]), np.array([CHAIN, SINGLE], dtype=np.int8))
    parent = chains.store.chain_task(task, row)
    assert wanted_places([offered, offered], chains.store, (parent,)) == [(task, row)]
    assert wanted_places([offered], chains.store, (task,)) == []
    assert wanted_places([], chains.store, (parent,)) == []


def test_the_models_own_answer_takes_the_place_of_the_teachers_and_nothing_else_changes(chains: Chains) -> None:
    model = chains.model()
    memorise(model, chains)
    found = chains.write(model, chains.places)
    assert found.keys() == set(chains.places)  # it knows how to end an answer
    for place, row in found.items():
        teacher, (start, end) = chains.store.encoded(*place, arrangement=CHAIN), chains.store.chain_answer(*place)
        grown = len(row.input_ids) - len(teacher.input_ids)
        assert row.input_ids[:start].tolist() == teacher.input_ids[:start].tolist()
        assert row.input_ids[end + grown :].tolist() == teacher.input_ids[end:].tolist()
        assert row.input_ids[row.answer_start :].tolist() == teacher.input_ids[teacher.answer_start :].tolist()
        assert text(chains, row).startswith(text(chains, EncodedRow(teacher.input_ids[:start], teacher.spans)))
    teachers = {place: chains.store.encoded(*place, arrangement=CHAIN).input_ids for place in found}
    exact = sum(np.array_equal(row.input_ids, teachers[place]) for place, row in found.items())
    assert exact > 0  # answers it has learnt come out as the teacher's


def test_an_answer_that_does_not_end_leaves_the_teachers(chains: Chains) -> None:
    model = chains.model()
    with torch.no_grad():
        model.lm_head.weight[stop_id(chains.tokenizer)] = 0.0  # tied to the embedding: it never wins
    found = chains.write(model, chains.places)
    assert all(stop_id(chains.tokenizer) in row.input_ids for row in found.values())
    assert len(found) < len(chains.places)


def share(rank: int, path: Path, num_ranks: int) -> dict[Place, list[int]]:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(num_ranks)}
    chains = Chains.open(path)
    places = chains.places * 3  # several batches
    found = chains.write(chains.model(), places, rank=rank, world_size=num_ranks)
    return {place: row.input_ids.tolist() for place, row in found.items()}


def test_any_number_of_ranks_writes_the_same(chains: Chains, tmp_path: Path) -> None:
    alone = share(0, chains.path, 1)
    for found in on_every_rank(share, chains.path, 2, num_ranks=2, folder=tmp_path):
        assert found == alone
