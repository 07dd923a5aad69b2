"""What the stream promises of difficulty levels, arrangements and plans that carry them."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.plan import MixturePlan
from train.stream.batch import Batch
from train.stream.interleave import deal
from train.stream.mixture import MixtureStream

Drawn = list[tuple[int, list[int], list[int], list[int]]]


def plan(
    weights: np.ndarray,
    *,
    arrangement: tuple[float, float, float] = (1.0, 0.0, 0.0),
    windows: tuple[tuple[int, int], ...] = (),
    replay_ratio: float = 0.0,
) -> MixturePlan:
    return MixturePlan(
        version=0,
        source_step=-1,
        effective_from_step=0,
        stage=1,
        stage_start_step=0,
        weights=tuple(weights.tolist()),
        arrangement=arrangement,
        windows=windows,
        replay_ratio=replay_ratio,
    )


@st.composite
def plans(draw: st.DrawFn, num_tasks: int, level_sizes: Sequence[Sequence[int]] = ()) -> MixturePlan:
    raw = np.array(draw(st.lists(st.floats(0.001, 1), min_size=num_tasks, max_size=num_tasks)))
    shares = np.array(draw(st.lists(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0]), min_size=3, max_size=3)))
    shares = shares / shares.sum() if shares.sum() > 0 else np.array([1.0, 0.0, 0.0])
    window = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(lambda pair: (min(pair), max(pair)))
    windows = draw(st.one_of(st.just(()), st.tuples(*[window] * num_tasks)))
    arrangement = (float(shares[0]), float(shares[1]), float(shares[2]))
    replay_ratio = draw(st.sampled_from([0.0, 0.05, 0.3, 0.9]))
    orders = tuple(tuple(draw(st.permutations(range(len(sizes))))) for sizes in level_sizes)
    orders = draw(st.sampled_from([(), orders]))
    made = plan(raw / raw.sum(), arrangement=arrangement, windows=windows, replay_ratio=replay_ratio)
    return replace(made, level_orders=orders)


def level_tables() -> st.SearchStrategy[list[list[int]]]:
    sizes = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(lambda own: sum(own) > 0)
    return st.lists(sizes, min_size=1, max_size=6)


def build(level_sizes: list[list[int]], *, batch_size: int, seed: int, lookahead_steps: int = 16) -> MixtureStream:
    return MixtureStream(
        num_rows=[sum(sizes) for sizes in level_sizes],
        batch_size=batch_size,
        seed=seed,
        level_sizes=level_sizes,
        lookahead_steps=lookahead_steps,
    )


def as_lists(batch: Batch) -> tuple[int, list[int], list[int], list[int]]:
    return batch.step, batch.tasks.tolist(), batch.rows.tolist(), batch.arrangements.tolist()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_options_are_dealt_by_share_within_the_depth_of_the_tree_at_every_sample(data: st.DataObject) -> None:
    shares = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(lambda own: sum(own) > 0))
    cuts = np.cumsum([0, *shares])[None, :]
    num_samples = 3 * sum(shares)
    numbers, group = np.arange(num_samples), np.zeros(num_samples, dtype=np.int64)
    first, end = np.zeros(num_samples, dtype=np.int64), np.full(num_samples, len(shares))
    options, within = deal(cuts, group, numbers, first=first, end=end, seed=data.draw(st.integers(0, 9)))
    served = (options[:, None] == np.arange(len(shares))).cumsum(axis=0)
    targets = (numbers[:, None] + 1) * (np.array(shares) / sum(shares))
    depth = int(np.ceil(np.log2(len(shares))))
    assert np.abs(served - targets).max() < max(depth, 1e-9)
    np.testing.assert_array_equal(within, served[numbers, options] - 1)
    np.testing.assert_array_equal(served[sum(shares) - 1], shares)


@given(st.data(), level_tables(), st.integers(1, 16), st.integers(0, 2**62))
@settings(max_examples=30, deadline=None)
def test_levels_and_arrangements_follow_each_plan_and_every_level_its_epochs(
    data: st.DataObject, level_sizes: list[list[int]], batch_size: int, seed: int
) -> None:
    num_tasks = len(level_sizes)
    stream = build(level_sizes, batch_size=batch_size, seed=seed)
    walks: dict[tuple[int, int], list[int]] = {}
    bounds = [np.cumsum([0, *sizes]) for sizes in level_sizes]
    for _ in range(data.draw(st.integers(1, 3))):
        current = data.draw(plans(num_tasks, level_sizes))
        before = stream.level_samples.copy()
        stream.follow(current)
        for _ in range(25):
            batch = stream.next_batch()
            for task, row in zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True):
                level = int(np.searchsorted(bounds[task], row, side="right")) - 1
                walks.setdefault((task, level), []).append(row)
        given_now = stream.level_samples
        for (task, level), rows in walks.items():
            assert given_now[task, level] == len(rows)
        for task, own in enumerate(level_sizes):
            order = list(current.level_orders[task]) if current.level_orders else list(range(len(own)))
            sizes = [own[level] for level in order]
            first, last = current.windows[task] if current.windows else (0, len(sizes) - 1)
            first, last = min(first, len(sizes) - 1), min(last, len(sizes) - 1)
            inside, below = np.array(sizes[first : last + 1]), np.array(sizes[:first])
            if inside.sum() == 0:
                continue
            got = (given_now - before)[task, order]
            ratio = round(current.replay_ratio * 2**30) / 2**30 if below.sum() else 0.0
            expected = np.zeros(len(sizes))
            expected[first : last + 1] = (1 - ratio) * got.sum() * inside / inside.sum()
            if below.sum():
                expected[:first] = ratio * got.sum() * below / below.sum()
            assert np.abs(got - expected).max() < np.ceil(np.log2(len(sizes))) + 1
    for (task, level), rows in walks.items():
        size = level_sizes[task][level]
        for start in range(0, len(rows), size):
            epoch = rows[start : start + size]
            assert len(set(epoch)) == len(epoch)


@given(st.data(), st.integers(1, 5), st.integers(1, 16), st.integers(0, 2**62))
@settings(max_examples=30, deadline=None)
def test_each_arrangement_is_offered_its_share_within_two_samples_at_every_step(
    data: st.DataObject, num_tasks: int, batch_size: int, seed: int
) -> None:
    stream = MixtureStream(num_rows=[7] * num_tasks, batch_size=batch_size, seed=seed)
    even = np.full(num_tasks, 1 / num_tasks)
    for _ in range(3):
        current = data.draw(plans(num_tasks))
        changed = plan(even, arrangement=current.arrangement)
        start = stream.state_dict()["arrangement"]
        stream.follow(changed)
        if stream.state_dict()["arrangement"] == start:
            continue
        offered = np.zeros((num_tasks, 3), dtype=np.int64)
        for _ in range(30):
            batch = stream.next_batch()
            np.add.at(offered, (batch.tasks, batch.arrangements.astype(np.int64)), 1)
            targets = offered.sum(axis=1, keepdims=True) * np.array(current.arrangement)
            assert np.abs(offered - targets).max() < 2


@given(st.data(), level_tables(), st.integers(1, 16), st.integers(0, 2**62))
@settings(max_examples=25, deadline=None)
def test_resume_replay_and_look_ahead_do_not_change_what_is_drawn(
    data: st.DataObject, level_sizes: list[list[int]], batch_size: int, seed: int
) -> None:
    stream = build(level_sizes, batch_size=batch_size, seed=seed)
    other = build(level_sizes, batch_size=batch_size, seed=seed, lookahead_steps=1)
    followed: list[tuple[int, MixturePlan]] = []
    for _ in range(data.draw(st.integers(1, 4))):
        current = data.draw(plans(len(level_sizes), level_sizes))
        followed.append((stream.step, current))
        stream.follow(current)
        other.follow(current)
        for _ in range(data.draw(st.integers(0, 20))):
            assert as_lists(stream.next_batch()) == as_lists(other.next_batch())
        state = json.loads(json.dumps(other.state_dict()))
        assert state == stream.state_dict()
        other = build(level_sizes, batch_size=batch_size, seed=seed, lookahead_steps=2)
        other.load_state_dict(state)
    again = build(level_sizes, batch_size=batch_size, seed=seed)
    again.replay(followed, step=stream.step)
    assert again.state_dict() == stream.state_dict()
    assert as_lists(again.next_batch()) == as_lists(stream.next_batch())


@given(level_tables(), st.integers(1, 16), st.integers(0, 2**62))
@settings(max_examples=30, deadline=None)
def test_levels_do_not_change_which_task_is_served_when(
    level_sizes: list[list[int]], batch_size: int, seed: int
) -> None:
    num_rows = [sum(sizes) for sizes in level_sizes]
    plain = MixtureStream(num_rows=num_rows, batch_size=batch_size, seed=seed)
    levelled = build(level_sizes, batch_size=batch_size, seed=seed)
    weights = np.arange(1, len(num_rows) + 1) / np.arange(1, len(num_rows) + 1).sum()
    plain.set_weights(weights)
    levelled.follow(plan(weights, arrangement=(0.5, 0.3, 0.2), windows=((0, 0),) * len(num_rows)))
    for _ in range(30):
        assert plain.next_batch().tasks.tolist() == levelled.next_batch().tasks.tolist()
