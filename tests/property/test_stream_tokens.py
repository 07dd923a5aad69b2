"""What the stream promises where a weight is a share of supervised tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from train.stream.mixture import MixtureStream
from train.stream.tokens import TOKEN_ONE


@dataclass(frozen=True)
class Recipe:
    """Everything a stream is built from."""

    lengths: tuple[tuple[int, ...], ...]
    batch_size: int
    seed: int

    def build(self, *, lookahead_steps: int = 16) -> MixtureStream:
        return MixtureStream(
            num_rows=[len(own) for own in self.lengths],
            batch_size=self.batch_size,
            seed=self.seed,
            supervised_lengths=[np.array(own, dtype=np.int32) for own in self.lengths],
            lookahead_steps=lookahead_steps,
        )

    @property
    def longest(self) -> int:
        return max(max(own) for own in self.lengths)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    length = st.one_of(st.integers(1, 5), st.integers(1, 300), st.sampled_from([1, 100, 101, 65_536]))
    lengths = draw(st.lists(st.lists(length, min_size=1, max_size=12).map(tuple), min_size=1, max_size=12))
    return Recipe(tuple(lengths), draw(st.integers(1, 24)), draw(st.integers(0, 2**63 - 1)))


def mixtures(num_tasks: int) -> st.SearchStrategy[np.ndarray]:
    one = st.one_of(st.sampled_from([0.0, 1e-9, 0.01, 0.5, 1.0]), st.floats(0, 1))
    raw = st.lists(one, min_size=num_tasks, max_size=num_tasks).map(np.array)
    return raw.filter(lambda weights: weights.sum() > 1e-6).map(lambda weights: weights / weights.sum())


def tokens_of(recipe: Recipe, tasks: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """int64 [K]"""
    tokens = np.zeros(len(recipe.lengths), dtype=np.int64)
    for task, row in zip(tasks.tolist(), rows.tolist(), strict=True):
        tokens[task] += recipe.lengths[task][row]
    return tokens


def sequence(stream: MixtureStream, num_steps: int) -> Sequence[tuple[list[int], list[int]]]:
    return [(b.tasks.tolist(), b.rows.tolist()) for b in (stream.next_batch() for _ in range(num_steps))]


@given(st.data(), recipes())
@settings(max_examples=12, deadline=None)
def test_every_task_stays_within_the_longest_row_of_its_token_target(data: st.DataObject, recipe: Recipe) -> None:
    stream = recipe.build()
    stream.set_weights(data.draw(mixtures(stream.num_tasks)))
    weights = stream.weights
    assert weights is not None
    served = np.zeros(stream.num_tasks, dtype=np.int64)
    for _ in range(60):
        batch = stream.next_batch()
        assert len(batch.tasks) == recipe.batch_size
        served += tokens_of(recipe, batch.tasks, batch.rows)
        errors = weights * served.sum() - served
        assert np.abs(errors).max() < recipe.longest
        np.testing.assert_allclose(stream.debts, errors, atol=1e-6 * served.sum())
    assert (served[weights == 0] == 0).all()


@given(st.data(), recipes())
@settings(max_examples=12, deadline=None)
def test_look_ahead_and_restarts_do_not_change_what_is_drawn(data: st.DataObject, recipe: Recipe) -> None:
    plain, nervous = recipe.build(), recipe.build(lookahead_steps=1)
    for _ in range(data.draw(st.integers(1, 4))):
        weights = data.draw(mixtures(plain.num_tasks))
        plain.set_weights(weights)
        nervous.set_weights(weights)
        for _ in range(data.draw(st.integers(0, 30))):
            assert sequence(plain, 1) == sequence(nervous, 1)
        copy = recipe.build(lookahead_steps=3)
        copy.load_state_dict(json.loads(json.dumps(nervous.state_dict())))
        assert copy.state_dict() == plain.state_dict()
        nervous = copy


@given(st.data(), recipes())
@settings(max_examples=12, deadline=None)
def test_after_any_plans_no_task_is_ahead_by_its_longest_row(data: st.DataObject, recipe: Recipe) -> None:
    stream = recipe.build()
    for weights in data.draw(st.lists(mixtures(stream.num_tasks), min_size=1, max_size=12)):
        stream.set_weights(weights)
        for _ in range(data.draw(st.integers(1, 3))):
            stream.next_batch()
            debts = np.rint(stream.debts * TOKEN_ONE)
            assert abs(debts.sum()) <= stream.num_tasks
            assert debts.min() > -recipe.longest * TOKEN_ONE
            assert debts.max() < max(1, stream.num_tasks - 1) * recipe.longest * TOKEN_ONE


@given(recipes())
@settings(max_examples=8, deadline=None)
def test_each_row_comes_once_an_epoch(recipe: Recipe) -> None:
    stream = recipe.build()
    stream.set_weights(np.full(stream.num_tasks, 1 / stream.num_tasks))
    batches = [stream.next_batch() for _ in range(40)]
    tasks, rows = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("tasks", "rows"))
    for task, own in enumerate(recipe.lengths):
        walk = rows[tasks == task]
        for start in range(0, len(walk), len(own)):
            epoch = walk[start : start + len(own)].tolist()
            assert len(set(epoch)) == len(epoch)


def test_ten_thousand_tasks_keep_their_token_shares() -> None:
    rng = np.random.default_rng(0)
    lengths = [rng.integers(1, 400, size=5).astype(np.int32) for _ in range(10_000)]
    stream = MixtureStream(num_rows=[5] * 10_000, batch_size=32, seed=1, supervised_lengths=lengths)
    stream.set_weights(rng.dirichlet(np.ones(10_000)))
    for _ in range(300):
        stream.next_batch()
    assert np.abs(stream.debts).max() < 400


def test_the_largest_step_and_the_longest_rows_do_not_overflow() -> None:
    lengths = [np.array([65_536], dtype=np.int32), np.array([1], dtype=np.int32), np.array([65_536], dtype=np.int32)]
    stream = MixtureStream(num_rows=[1, 1, 1], batch_size=1 << 14, seed=1, supervised_lengths=lengths)
    stream.set_weights([1 - 2e-9, 1e-9, 1e-9])
    for _ in range(3):
        stream.next_batch()
        assert np.abs(stream.debts).max() < 65_536
    assert stream.num_samples.sum() == 3 << 14


def test_an_adversary_who_changes_the_plan_after_every_sample_stays_below_the_bound() -> None:
    """Searches: runs some tasks ahead, pours on those owed most, then turns to one and all but drops the others."""
    rng = np.random.default_rng(1)
    num_tasks, longest, worst = 24, 64, 0.0
    stream = MixtureStream(
        num_rows=[1] * num_tasks, batch_size=1, seed=0, supervised_lengths=[np.array([longest])] * num_tasks
    )

    def serve(weights: np.ndarray) -> int:
        nonlocal worst
        stream.set_weights(weights / weights.sum())
        task = int(stream.next_batch().tasks[0])
        assert stream.debts.min() > -longest
        worst = max(worst, stream.debts.max() / longest)
        return task

    for _ in range(40):
        for _ in range(int(rng.integers(1, num_tasks + 1))):
            serve(rng.dirichlet(np.full(num_tasks, 0.1)))
        alive = np.argsort(-stream.debts)[: int(rng.integers(2, num_tasks + 1))].tolist()
        num_kept = int(rng.integers(1, len(alive)))
        while len(alive) > num_kept and (served := serve(np.isin(np.arange(num_tasks), alive) * 1.0)) in alive:
            alive.remove(served)
        favourite = int(np.argmax(stream.debts))
        for _ in range(num_tasks):
            dropped = (stream.debts >= longest) & (np.arange(num_tasks) != favourite)
            if serve(np.where(np.arange(num_tasks) == favourite, 1.0, np.where(dropped, 1e-6, 0.0))) == favourite:
                break
    assert 3 < worst < num_tasks - 1


def test_ten_thousand_tasks_of_the_longest_rows_in_the_largest_step_stay_exact() -> None:
    num_tasks, longest = 10_000, 65_536
    stream = MixtureStream(
        num_rows=[1] * num_tasks, batch_size=1 << 14, seed=1, supervised_lengths=[np.array([longest])] * num_tasks
    )
    stream.set_weights(np.random.default_rng(0).dirichlet(np.full(num_tasks, 0.2)))
    for _ in range(3):
        stream.next_batch()
        debts = stream.state_dict()["debts"]
        assert sum(debts) == 0
        assert max(map(abs, debts)) < longest * TOKEN_ONE


def test_the_largest_debt_that_can_be_is_worked_off_without_overflow() -> None:
    num_tasks, longest = 10_000, 65_536
    stream = MixtureStream(
        num_rows=[1] * num_tasks, batch_size=1 << 14, seed=1, supervised_lengths=[np.array([longest])] * num_tasks
    )
    ahead = longest * TOKEN_ONE - 1
    for owed_weight in (1.0, 0.5, 1e-9):
        weights = np.full(num_tasks, (1 - owed_weight) / (num_tasks - 1))
        weights[0] = owed_weight
        stream.set_weights(weights)
        state = {**stream.state_dict(), "debts": [(num_tasks - 1) * ahead, *[-ahead] * (num_tasks - 1)]}
        stream.load_state_dict(state)
        batch = stream.next_batch()
        units, debts = state["weights"], stream.state_dict()["debts"]
        counts = np.bincount(batch.tasks, minlength=num_tasks).tolist()
        total = len(batch.tasks) * longest
        expected = [
            debt + total * unit - count * longest * TOKEN_ONE
            for debt, unit, count in zip(state["debts"], units, counts, strict=True)
        ]
        assert debts == expected
        assert min(debts) > -longest * TOKEN_ONE
