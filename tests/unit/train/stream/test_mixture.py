"""The stream's contract: what it refuses, what its state holds, how slots are mixed."""

import json
from typing import Any

import numpy as np
import pytest

from scheduler.errors import ConfigError, DataError, StateError
from train.stream.batch import sequence_hash, slots_hash
from train.stream.mixture import MixtureStream


def new_stream(*, num_rows: list[int] | None = None, batch_size: int = 8, seed: int = 3) -> MixtureStream:
    stream = MixtureStream(num_rows=num_rows or [10, 20, 30], batch_size=batch_size, seed=seed)
    stream.set_weights(np.full(stream.num_tasks, 1 / stream.num_tasks))
    return stream


def test_a_batch_names_its_step_and_fits_the_promised_types() -> None:
    stream = new_stream()
    first, second = stream.next_batch(), stream.next_batch()
    assert (first.step, second.step, stream.step) == (0, 1, 2)
    assert first.tasks.shape == first.rows.shape == (8,)
    assert (first.tasks.dtype, first.rows.dtype) == (np.int32, np.int64)


def test_the_sequence_for_a_seed_never_changes_between_versions() -> None:
    stream = new_stream()
    hashes = [sequence_hash(stream.next_batch()) for _ in range(40)]
    assert sum(hashes) % 2**63 == 5404005146632628307


def test_another_seed_gives_other_rows_in_other_slots() -> None:
    one, other = new_stream(seed=3).next_batch(), new_stream(seed=4).next_batch()
    assert one.tasks.tolist() != other.tasks.tolist()
    assert one.rows.tolist() != other.rows.tolist()


def test_tasks_are_mixed_over_the_slots() -> None:
    stream = new_stream(num_rows=[100, 100], batch_size=16)
    front = np.mean([(stream.next_batch().tasks[:8] == 0).mean() for _ in range(400)])
    assert abs(front - 0.5) < 0.02


def test_a_task_of_one_row_repeats_it_and_its_epochs_are_counted() -> None:
    stream = new_stream(num_rows=[1, 4], batch_size=4)
    for _ in range(6):
        batch = stream.next_batch()
        assert (batch.rows[batch.tasks == 0] == 0).all()
    assert stream.num_samples.tolist() == [12, 12]
    assert stream.epochs.tolist() == [12.0, 3.0]


def test_a_task_goes_on_where_it_stopped_after_it_was_left_out() -> None:
    stream = new_stream(num_rows=[40, 40], batch_size=4)
    seen = [batch.rows[batch.tasks == 0] for batch in (stream.next_batch() for _ in range(10))]
    stream.set_weights([0.0, 1.0])
    assert all((stream.next_batch().tasks == 1).all() for _ in range(7))
    stream.set_weights([1.0, 0.0])
    seen += [stream.next_batch().rows for _ in range(5)]
    assert sorted(np.concatenate(seen).tolist()) == list(range(40))


def test_ten_thousand_tasks_keep_their_shares() -> None:
    stream = MixtureStream(num_rows=[5] * 10_000, batch_size=16, seed=0)
    stream.set_weights(np.random.default_rng(0).dirichlet(np.ones(10_000)))
    for _ in range(1500):
        stream.next_batch()
    assert np.abs(stream.debts).max() < 1
    assert stream.num_samples.sum() == 1500 * 16


def test_changing_a_batch_in_place_does_not_change_the_stream() -> None:
    stream, other = new_stream(), new_stream()
    stream.next_batch().tasks[:] = 0
    other.next_batch()
    assert stream.state_dict() == other.state_dict()


def test_the_state_is_small_and_exact_in_json() -> None:
    stream = MixtureStream(num_rows=[1000] * 50, batch_size=32, seed=1)
    stream.set_weights(np.random.default_rng(0).dirichlet(np.ones(50)))
    stream.skip(777)
    text = json.dumps(stream.state_dict())
    assert len(text) < 4096
    assert json.loads(text) == stream.state_dict()


def test_a_stream_without_weights_says_what_to_call() -> None:
    stream = MixtureStream(num_rows=[3], batch_size=1, seed=0)
    with pytest.raises(ConfigError, match="set_weights"):
        stream.next_batch()
    fresh = MixtureStream(num_rows=[3], batch_size=1, seed=0)
    fresh.load_state_dict(stream.state_dict())
    assert fresh.weights is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5], "shape"),
        ([0.5, 0.6, -0.1], "task 2 is -0.1"),
        ([0.5, float("nan"), 0.5], "task 1 is nan"),
        ([float("inf"), 0.0, 0.0], "task 0 is inf"),
        ([0.5, 0.5, 0.5], "sum to 1.5"),
    ],
)
def test_weights_that_are_no_mixture_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        new_stream().set_weights(weights)


def test_impossible_streams_are_refused() -> None:
    with pytest.raises(DataError, match="task 1 has 0 rows"):
        MixtureStream(num_rows=[3, 0], batch_size=1, seed=0)
    with pytest.raises(ConfigError, match="at least one task"):
        MixtureStream(num_rows=[], batch_size=1, seed=0)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        MixtureStream(num_rows=[3], batch_size=0, seed=0)
    with pytest.raises(ConfigError, match="seed is -1"):
        MixtureStream(num_rows=[3], batch_size=1, seed=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cursor": 1}, "unknown keys \\['cursor'\\]"),
        ({"num_rows": [10, 20]}, "has 2 tasks, this stream 3"),
        ({"num_rows": [10, 20, 31]}, "num_rows is"),
        ({"seed": 4}, "seed is 4, this stream has 3"),
        ({"batch_size": 16}, "batch_size is 16"),
        ({"step": 6}, "do not add up to 6 steps"),
        ({"num_samples": [41, -1, 0]}, "do not add up"),
        ({"debts": [5, 0, 0]}, "debts sum to 5, expected 0"),
        ({"debts": [0.5, -0.5, 0.0]}, "not 3 whole numbers"),
        ({"weights": [0.5, 0.5]}, "weights are not 3"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change: dict[str, Any], message: str) -> None:
    donor, stream = new_stream(), new_stream()
    donor.skip(5)
    before = stream.state_dict()
    with pytest.raises(StateError, match=message):
        stream.load_state_dict(donor.state_dict() | change)
    assert stream.state_dict() == before


def test_a_state_with_a_key_missing_is_refused() -> None:
    state = new_stream().state_dict()
    del state["debts"]
    with pytest.raises(StateError, match="missing keys \\['debts'\\]"):
        new_stream().load_state_dict(state)


def test_plans_out_of_order_are_not_replayed() -> None:
    weights = np.full(3, 1 / 3)
    with pytest.raises(ConfigError, match="first from step 0"):
        new_stream().replay([(4, weights), (0, weights)], step=5)


def test_an_empty_share_of_the_slots_adds_nothing_and_uneven_arrays_are_refused() -> None:
    nothing = np.array([], dtype=np.int64)
    assert slots_hash(3, nothing, nothing, nothing) == 0
    with pytest.raises(ValueError, match="differ in length"):
        slots_hash(3, np.arange(2), np.arange(2), np.arange(3))
