import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import DataError
from train.config import SPLITS
from train.data.arrangement import CHAIN, CONTRAST, SINGLE
from train.data.preparing.encoding import int_lists
from train.data.store import SplitWriter, TokenStore


def columns_of(rows: range) -> dict[str, pa.Array]:
    """Row n has n % 4 + 2 tokens counted up from 10 n, of which the last is supervised; every third has a chain."""
    ids = [np.arange(10 * n, 10 * n + n % 4 + 2, dtype=np.int32) for n in rows]
    chains = [
        np.concatenate([[7, 7, 7], own]).astype(np.int32) if n % 3 == 0 else None
        for n, own in zip(rows, ids, strict=True)
    ]
    texts = {
        "id": [f"id {n}" for n in rows],
        "content_hash": [f"{n:032x}" for n in rows],
        "source": ["rows.jsonl"] * len(rows),
        "messages": [json.dumps([["user", f"q{n}"]]) for n in rows],
        "answer": [f"a{n}" for n in rows],
    }
    return {name: pa.array(values, pa.string()) for name, values in texts.items()} | {
        "line": pa.array(list(rows), pa.int64()),
        "difficulty": pa.array([None if n % 2 else n / 2 for n in rows], pa.float64()),
        "num_supervised": pa.array([1] * len(rows), pa.int32()),
        "spans": int_lists([np.array([len(own) - 1, len(own)]) for own in ids]),
        "input_ids": int_lists(ids),
        "chain_ids": int_lists(chains),
        "contrast_ids": int_lists([None] * len(rows)),
        "chain_answer": int_lists([np.array([1, 3]) if n % 6 == 0 else np.empty(0, np.int32) for n in rows]),
        "chain_task": pa.array([n % 2 if n % 3 == 0 else -1 for n in rows], pa.int32()),
    }


def write_store(folder: Path, sizes: list[int], *, batch_rows: int, level_sizes: list[list[int]] | None = None) -> Path:
    """Tasks t0, t1, ... of these sizes; the training rows are numbered through, the other sets hold one row a task."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        own = sizes if split == "train" else [1] * len(sizes)
        starts = list(range(0, sum(own), batch_rows))
        tasks = {f"t{number}": size for number, size in enumerate(own)}
        levels = level_sizes or () if split == "train" else ()
        bounds = [*starts, sum(own)]
        with SplitWriter(folder / f"{split}.arrow", tasks, batch_starts=bounds, level_sizes=levels) as writer:
            for start, end in itertools.pairwise(bounds):
                writer.write(columns_of(range(start, end)))
    return folder


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), batch_rows=st.integers(1, 8))
def test_every_row_is_found_by_task_and_number_wherever_the_batches_end(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], batch_rows: int
) -> None:
    store = TokenStore.open(write_store(tmp_path_factory.mktemp("store"), sizes, batch_rows=batch_rows))
    first = 0
    for task, size in enumerate(sizes):
        assert store.num_rows(task) == size
        expected = [n % 4 + 2 for n in range(first, first + size)]
        assert store.lengths(task).tolist() == expected
        assert store.supervised_lengths(task).tolist() == [1] * size
        assert store.has_arrangement(task, CHAIN).tolist() == [n % 3 == 0 for n in range(first, first + size)]
        answers = [store.chain_answer(task, row) for row in range(size)]
        assert answers == [(1, 3) if n % 6 == 0 else (0, 0) for n in range(first, first + size)]
        tasks = [store.chain_task(task, row) for row in range(size)]
        assert tasks == [0 if n % 6 == 0 else -1 for n in range(first, first + size)]
        assert [example.id for example in store.examples(task)] == [f"id {n}" for n in range(first, first + size)]
        for row, length in enumerate(expected):
            encoded = store.encoded(task, row)
            assert encoded.input_ids.tolist() == [10 * (first + row) + place for place in range(length)]
            assert encoded.answer_start == length - 1
        first += size


def test_a_row_that_is_not_there_is_an_index_error_and_never_the_next_tasks_row(tmp_path: Path) -> None:
    store = TokenStore.open(write_store(tmp_path, [2, 3], batch_rows=4))
    for row in (2, -1):
        with pytest.raises(IndexError, match=f"row {row} of a task with 2 rows"):
            store.encoded(0, row)


def test_a_row_in_context_moves_its_spans_and_one_without_is_read_alone(tmp_path: Path) -> None:
    store = TokenStore.open(write_store(tmp_path, [4], batch_rows=4))
    alone, chained = store.encoded(0, 3), store.encoded(0, 3, arrangement=CHAIN)
    assert chained.input_ids.tolist() == [7, 7, 7, *alone.input_ids.tolist()]
    assert chained.spans.tolist() == (alone.spans + 3).tolist()
    for arrangement in (SINGLE, CONTRAST):
        assert np.array_equal(store.encoded(0, 3, arrangement=arrangement).input_ids, alone.input_ids)
    assert not store.has_arrangement(0, CONTRAST).any()


def test_tokens_are_views_of_the_file_that_cannot_be_written(tmp_path: Path) -> None:
    encoded = TokenStore.open(write_store(tmp_path, [2], batch_rows=4)).encoded(0, 0)
    with pytest.raises(ValueError, match="read-only"):
        encoded.input_ids[0] = 1


def test_levels_are_one_a_task_unless_they_were_given_and_missing_difficulty_is_nan(tmp_path: Path) -> None:
    assert TokenStore.open(write_store(tmp_path / "a", [4, 2], batch_rows=4)).level_sizes(0) == (4,)
    store = TokenStore.open(write_store(tmp_path / "b", [4, 2], batch_rows=4, level_sizes=[[3, 1], [2]]))
    assert (store.level_sizes(0), store.level_sizes(1)) == ((3, 1), (2,))
    assert np.isnan(store.difficulty(0)).tolist() == [False, True, False, True]


@pytest.mark.parametrize("kept", [0, 5, 900, -1])
def test_a_file_that_breaks_off_is_named_with_what_to_do(tmp_path: Path, kept: int) -> None:
    path = write_store(tmp_path / "prepared" / "store", [50], batch_rows=10) / "train.arrow"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"{path} .*delete the prepared folder {tmp_path / 'prepared'} and prepare"):
        TokenStore.open(path.parent)


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = write_store(tmp_path, [5], batch_rows=10)
    (folder / "probe.arrow").unlink()
    with pytest.raises(DataError, match=r"probe\.arrow .*delete the prepared folder"):
        TokenStore.open(folder)


def test_an_arrow_file_that_is_no_store_is_refused_and_so_is_another_version(tmp_path: Path) -> None:
    folder = write_store(tmp_path, [5], batch_rows=10)
    for version in (None, "1"):
        metadata = {} if version is None else {"schema_version": version}
        schema = pa.schema([("a", pa.int32())], metadata=metadata)
        with pa.ipc.new_file(str(folder / "train.arrow"), schema):
            pass
        with pytest.raises(DataError, match=f"of version {version or -1}, expected 3.*; delete the prepared folder"):
            TokenStore.open(folder)
