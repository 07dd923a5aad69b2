"""What the mixture stream promises, for any tasks, batch sizes, weights and sequences of plans."""

import json
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.debt import debt_bound
from train.stream.apportion import ONE, apportion_block, apportion_step, to_units
from train.stream.batch import sequence_hash, slots_hash
from train.stream.mixture import MixtureStream

HASH_MODULUS = 1 << 63


def mixtures(num_tasks: int) -> st.SearchStrategy[np.ndarray]:
    """Weights that sum to one: even, skewed over twelve orders of magnitude, tiny and zero ones among them."""
    one = st.one_of(
        st.sampled_from([0.0, 1e-12, 1e-6, 0.5, 1.0]), st.floats(0, 1), st.floats(-12, 0).map(lambda e: 10.0**e)
    )
    raw = st.lists(one, min_size=num_tasks, max_size=num_tasks).map(np.array)
    return raw.filter(lambda weights: weights.sum() > 1e-9).map(lambda weights: weights / weights.sum())


@st.composite
def streams(draw: st.DrawFn, *, max_rows: int = 40) -> MixtureStream:
    num_rows = draw(st.lists(st.integers(1, max_rows), min_size=1, max_size=50))
    stream = MixtureStream(num_rows=num_rows, batch_size=draw(st.integers(1, 64)), seed=draw(st.integers(0, 2**63 - 1)))
    stream.set_weights(draw(mixtures(len(num_rows))))
    return stream


def drawn(stream: MixtureStream, num_steps: int) -> list[tuple[int, list[int], list[int]]]:
    batches = [stream.next_batch() for _ in range(num_steps)]
    return [(batch.step, batch.tasks.tolist(), batch.rows.tolist()) for batch in batches]


def served_by_step(stream: MixtureStream, num_steps: int) -> np.ndarray:
    """int64 [num_steps, K]: counts per step, taken from the batches themselves."""
    return np.stack([np.bincount(stream.next_batch().tasks, minlength=stream.num_tasks) for _ in range(num_steps)])


@given(streams())
@settings(max_examples=80, deadline=None)
def test_every_task_stays_within_one_sample_of_its_target_at_every_step(stream: MixtureStream) -> None:
    counts = served_by_step(stream, 100)
    assert stream.weights is not None
    batch_size = counts[0].sum()
    targets = np.arange(1, 101)[:, None] * (stream.weights * batch_size)
    assert np.abs(targets - counts.cumsum(axis=0)).max() < 1
    assert (counts[:, stream.weights == 0] == 0).all()
    assert (counts.sum(axis=1) == batch_size).all()
    np.testing.assert_array_equal(stream.num_samples, counts.sum(axis=0))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_block_serves_what_its_steps_would_one_by_one(data: st.DataObject) -> None:
    num_tasks, batch_size = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 32))
    debts = np.zeros(num_tasks, dtype=np.int64)
    for _ in range(4):
        rates = to_units(data.draw(mixtures(num_tasks))) * batch_size
        block = apportion_block(debts, rates, num_steps=data.draw(st.integers(1, 40)))
        for tasks in block:
            counts = apportion_step(debts, rates)
            np.testing.assert_array_equal(np.bincount(tasks, minlength=num_tasks), counts)
            debts = debts + rates - counts * ONE


@given(st.integers(0, 2**32), st.sampled_from([60, 400, 10_000]), st.sampled_from([1, 2, 16]))
@settings(max_examples=12, deadline=None)
def test_of_many_tasks_a_block_serves_what_its_steps_would_even_after_plans_that_leave_much_owed(
    seed: int, num_tasks: int, batch_size: int
) -> None:
    rng = np.random.default_rng(seed)
    debts = np.zeros(num_tasks, dtype=np.int64)
    for _ in range(12):
        chosen = rng.random(num_tasks) < rng.choice([0.01, 0.5, 1.0])
        weights = np.where(chosen, rng.dirichlet(np.full(num_tasks, rng.choice([0.1, 1.0]))), 0.0)
        top = np.argsort(-debts)[: num_tasks // 4]
        weights = weights if weights.sum() > 0 and rng.random() < 0.5 else np.isin(np.arange(num_tasks), top) * 1.0
        rates = to_units(weights) * batch_size
        for tasks in apportion_block(debts, rates, num_steps=int(rng.integers(1, 12))):
            counts = apportion_step(debts, rates)
            np.testing.assert_array_equal(np.bincount(tasks, minlength=num_tasks), counts)
            debts = debts + rates - counts * ONE
            assert debts.min() > -ONE
            assert debts.max() < debt_bound(num_tasks) * ONE


def test_a_task_of_weight_zero_that_is_owed_a_whole_sample_is_not_overlooked_among_many() -> None:
    debts = np.full(200, round(0.5 * ONE))
    debts[150:] = -round(0.99 * ONE)
    debts[199] = round(1.25 * ONE)
    debts[150] -= debts.sum()
    rates = np.zeros(200, dtype=np.int64)
    rates[:150] = to_units(np.full(150, 1 / 150))
    assert apportion_step(debts, rates)[199] == 1
    np.testing.assert_array_equal(apportion_block(debts, rates, num_steps=4)[0], [199])


@given(st.integers(0, 2**32))
@settings(max_examples=2, deadline=None)
def test_ten_thousand_tasks_keep_every_promise_through_resume_and_changes_of_plan(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_rows = rng.integers(1, 30, 10_000).tolist()
    stream, copy = (MixtureStream(num_rows=num_rows, batch_size=32, seed=seed) for _ in range(2))
    served, targets = np.zeros(10_000, dtype=np.int64), np.zeros(10_000)
    for _ in range(4):
        stream.set_weights(rng.dirichlet(np.full(10_000, rng.choice([0.05, 1.0, 20.0]))))
        assert stream.weights is not None
        rates = 32 * stream.weights
        for _ in range(25):
            served += np.bincount(stream.next_batch().tasks, minlength=10_000)
            targets += rates
            assert (targets - served).min() > -1 - 1e-9
            assert (targets - served).max() < debt_bound(10_000)
        np.testing.assert_array_equal(stream.num_samples, served)
        np.testing.assert_allclose(stream.debts, targets - served, atol=1e-9)
        copy.load_state_dict(stream.state_dict())
        assert drawn(copy, 3) == drawn(stream, 3)
        served = stream.num_samples
        targets = served + stream.debts


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_plans_brings_a_debt_to_the_bound(data: st.DataObject) -> None:
    num_tasks, batch_size = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 8))
    debts = np.zeros(num_tasks, dtype=np.int64)
    for weights in data.draw(st.lists(mixtures(num_tasks), min_size=1, max_size=20)):
        rates = to_units(weights) * batch_size
        for _ in range(data.draw(st.integers(1, 3))):
            counts = apportion_step(debts, rates)
            assert counts.sum() == batch_size
            assert (counts >= 0).all()
            debts = debts + rates - counts * ONE
            assert debts.sum() == 0
            assert debts.min() > -ONE
            assert debts.max() < debt_bound(num_tasks) * ONE


@given(st.data(), streams())
@settings(max_examples=60, deadline=None)
def test_new_weights_rule_the_next_batch_and_carry_the_remainders(data: st.DataObject, stream: MixtureStream) -> None:
    stream.skip(data.draw(st.integers(0, 60)))
    debts = np.rint(stream.debts * ONE).astype(np.int64)
    weights = data.draw(mixtures(stream.num_tasks))
    stream.set_weights(weights)
    np.testing.assert_array_equal(np.rint(stream.debts * ONE), debts)
    batch = stream.next_batch()
    expected = apportion_step(debts, to_units(weights) * len(batch.tasks))
    np.testing.assert_array_equal(np.bincount(batch.tasks, minlength=stream.num_tasks), expected)


@given(streams(max_rows=12))
@settings(max_examples=40, deadline=None)
def test_each_row_comes_once_an_epoch(stream: MixtureStream) -> None:
    batches = [stream.next_batch() for _ in range(60)]
    tasks = np.concatenate([batch.tasks for batch in batches])
    rows = np.concatenate([batch.rows for batch in batches])
    num_rows = stream.state_dict()["num_rows"]
    for task, size in enumerate(num_rows):
        walk = rows[tasks == task]
        for start in range(0, len(walk), size):
            epoch = walk[start : start + size]
            assert len(set(epoch.tolist())) == len(epoch)
            assert epoch.min() >= 0
            assert epoch.max() < size


@given(st.data(), streams())
@settings(max_examples=60, deadline=None)
def test_a_stream_restored_at_any_step_continues_identically(data: st.DataObject, stream: MixtureStream) -> None:
    first, second = data.draw(st.integers(0, 70)), data.draw(st.integers(0, 10))
    stream.skip(first)
    stream.set_weights(data.draw(mixtures(stream.num_tasks)))
    stream.skip(second)
    state = json.loads(json.dumps(stream.state_dict()))
    copy = MixtureStream(num_rows=state["num_rows"], batch_size=state["batch_size"], seed=state["seed"])
    copy.load_state_dict(state)
    assert copy.state_dict() == state
    later = data.draw(mixtures(stream.num_tasks))
    for one in (stream, copy):
        one.skip(3)
    assert drawn(copy, 30) == drawn(stream, 30)
    stream.set_weights(later)
    copy.set_weights(later)
    assert drawn(copy, 10) == drawn(stream, 10)


@given(st.data(), streams())
@settings(max_examples=40, deadline=None)
def test_replaying_the_plans_gives_the_state_and_the_batches_of_the_run(
    data: st.DataObject, stream: MixtureStream
) -> None:
    assert stream.weights is not None
    plans: list[tuple[int, np.ndarray]] = [(0, stream.weights)]
    for interval in data.draw(st.lists(st.integers(1, 25), max_size=4)):
        drawn(stream, interval)
        plans.append((stream.step, data.draw(mixtures(stream.num_tasks))))
        stream.set_weights(plans[-1][1])
    drawn(stream, 5)
    state = stream.state_dict()
    copy = MixtureStream(num_rows=state["num_rows"], batch_size=state["batch_size"], seed=state["seed"])
    copy.replay([*plans, (stream.step + 1, plans[0][1])], step=stream.step)
    assert copy.state_dict() == state
    assert drawn(copy, 5) == drawn(stream, 5)


@given(streams(), st.sampled_from([1, 2, 3, 8]))
@settings(max_examples=40, deadline=None)
def test_hashes_of_any_shards_add_up_to_the_hash_of_the_batch(stream: MixtureStream, num_ranks: int) -> None:
    batch = stream.next_batch()
    slots = np.arange(len(batch.tasks))
    shards: Sequence[np.ndarray] = [slots[rank::num_ranks][::-1] for rank in range(num_ranks)]
    parts = [slots_hash(batch.step, shard, batch.tasks[shard], batch.rows[shard]) for shard in shards]
    assert sum(parts) % HASH_MODULUS == sequence_hash(batch)


@given(st.data(), streams())
@settings(max_examples=60, deadline=None)
def test_the_hash_sees_any_changed_row_task_slot_or_step(data: st.DataObject, stream: MixtureStream) -> None:
    batch = stream.next_batch()
    slots = np.arange(len(batch.tasks))
    slot = data.draw(st.integers(0, len(slots) - 1))
    whole = slots_hash(batch.step, slots, batch.tasks, batch.rows)
    changed = np.where(slots == slot, batch.rows + 1, batch.rows)
    assert slots_hash(batch.step, slots, batch.tasks, changed) != whole
    assert slots_hash(batch.step, slots, np.where(slots == slot, batch.tasks + 1, batch.tasks), batch.rows) != whole
    assert slots_hash(batch.step + 1, slots, batch.tasks, batch.rows) != whole
    other = data.draw(st.integers(0, len(slots) - 1))
    swapped = batch.rows.copy()
    swapped[[slot, other]] = swapped[[other, slot]]
    if batch.rows[slot] != batch.rows[other]:
        assert slots_hash(batch.step, slots, batch.tasks, swapped) != whole
