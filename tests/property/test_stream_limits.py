"""What the stream promises of tasks whose rows are used up, in both weight units and under both rules."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import DataError
from scheduler.task import Repetition
from train.stream.mixture import MixtureStream

UNCAPPED = Repetition()


@dataclass(frozen=True)
class Recipe:
    """Everything a stream is built from."""

    num_rows: tuple[int, ...]
    repetition: tuple[Repetition, ...]
    batch_size: int
    seed: int
    in_tokens: bool

    def build(self, *, lookahead_steps: int = 16) -> MixtureStream:
        rng = np.random.default_rng(7)
        lengths = [rng.integers(1, 60, size=rows) for rows in self.num_rows]
        return MixtureStream(
            num_rows=self.num_rows,
            batch_size=self.batch_size,
            seed=self.seed,
            repetition=self.repetition,
            supervised_lengths=lengths if self.in_tokens else None,
            lookahead_steps=lookahead_steps,
        )

    def caps(self) -> list[int | None]:
        return [
            None if rule.max_epochs is None else int(rule.max_epochs * rows + 1e-9)
            for rule, rows in zip(self.repetition, self.num_rows, strict=True)
        ]

    @property
    def unit(self) -> int:
        return 60 if self.in_tokens else 1


@st.composite
def recipes(draw: st.DrawFn, *, rules: tuple[str, ...] = ("redistribute", "stop"), endless: bool = True) -> Recipe:
    num_rows = draw(st.lists(st.integers(1, 25), min_size=1, max_size=10))
    capped = st.builds(
        Repetition, max_epochs=st.sampled_from([0.3, 0.5, 1.0, 1.5, 2.0, 7.0]), then=st.sampled_from(rules)
    )
    rule = st.one_of(st.just(UNCAPPED), capped) if endless else capped
    repetition = draw(st.lists(rule, min_size=len(num_rows), max_size=len(num_rows)))
    return Recipe(
        tuple(num_rows), tuple(repetition), draw(st.integers(1, 16)), draw(st.integers(0, 2**62)), draw(st.booleans())
    )


def mixtures(num_tasks: int) -> st.SearchStrategy[np.ndarray]:
    raw = st.lists(
        st.one_of(st.sampled_from([0.0, 1e-6, 0.5]), st.floats(0.01, 1)), min_size=num_tasks, max_size=num_tasks
    )
    return raw.map(np.array).filter(lambda own: own.sum() > 1e-3).map(lambda own: own / own.sum())


@given(st.data(), recipes())
@settings(max_examples=60, deadline=None)
def test_a_cap_is_never_passed_and_a_task_that_leaves_has_given_all_of_it(data: st.DataObject, recipe: Recipe) -> None:
    stream = recipe.build()
    num_tasks = stream.num_tasks
    stream.set_weights(data.draw(mixtures(num_tasks)))
    counts = np.zeros(num_tasks, dtype=np.int64)
    for step in range(80):
        if step and step % 23 == 0:
            stream.set_weights(data.draw(mixtures(num_tasks)))
        if stream.ended:
            break
        batch = stream.next_batch()
        assert len(batch.tasks) == recipe.batch_size
        counts += np.bincount(batch.tasks, minlength=num_tasks)
        debts = stream.debts
        assert debts.min() > -recipe.unit
        assert debts.max() < max(1, (~stream.used_up).sum()) * recipe.unit
        assert abs(debts.sum()) < 1e-6
    for task, cap in enumerate(recipe.caps()):
        assert cap is None or counts[task] <= cap
        assert not stream.used_up[task] or counts[task] == cap
    np.testing.assert_array_equal(stream.num_samples, counts)


@given(st.data(), recipes(rules=("redistribute",), endless=False))
@settings(max_examples=40, deadline=None)
def test_under_redistribute_every_step_that_the_caps_can_fill_is_drawn(data: st.DataObject, recipe: Recipe) -> None:
    stream = recipe.build()
    raw = data.draw(mixtures(stream.num_tasks)) + 1e-3
    stream.set_weights(raw / raw.sum())
    num_steps = 0
    while not stream.ended:
        stream.next_batch()
        num_steps += 1
    capacity = sum(cap for cap in recipe.caps() if cap is not None)
    assert num_steps == capacity // recipe.batch_size
    before = stream.state_dict()
    with pytest.raises(DataError, match="used up"):
        stream.next_batch()
    assert stream.state_dict() == before


@given(st.data(), recipes())
@settings(max_examples=40, deadline=None)
def test_under_stop_the_stream_ends_before_the_first_step_that_asks_for_too_much(
    data: st.DataObject, recipe: Recipe
) -> None:
    endless = Recipe(recipe.num_rows, (), recipe.batch_size, recipe.seed, recipe.in_tokens).build()
    stopping = tuple(Repetition(max_epochs=rule.max_epochs, then="stop") for rule in recipe.repetition)
    stream = Recipe(recipe.num_rows, stopping, recipe.batch_size, recipe.seed, recipe.in_tokens).build()
    weights = data.draw(mixtures(stream.num_tasks))
    stream.set_weights(weights)
    endless.set_weights(weights)
    caps = np.array([10**9 if cap is None else cap for cap in recipe.caps()])
    for _ in range(60):
        batch = endless.next_batch()
        fits = bool((endless.num_samples <= caps).all())
        assert stream.ended == (not fits)
        if not fits:
            break
        assert stream.next_batch().rows.tolist() == batch.rows.tolist()


@given(st.data(), recipes())
@settings(max_examples=40, deadline=None)
def test_look_ahead_resume_and_looking_at_the_end_do_not_change_what_is_drawn(
    data: st.DataObject, recipe: Recipe
) -> None:
    stream, other = recipe.build(), recipe.build(lookahead_steps=1)
    followed: list[tuple[int, np.ndarray]] = []
    for _ in range(data.draw(st.integers(1, 4))):
        weights = data.draw(mixtures(stream.num_tasks))
        followed.append((stream.step, weights))
        stream.set_weights(weights)
        other.set_weights(weights)
        for _ in range(data.draw(st.integers(0, 20))):
            assert other.ended == stream.ended
            if stream.ended:
                break
            first, second = stream.next_batch(), other.next_batch()
            assert (first.tasks.tolist(), first.rows.tolist()) == (second.tasks.tolist(), second.rows.tolist())
        state = json.loads(json.dumps(other.state_dict()))
        assert state == stream.state_dict()
        other = recipe.build(lookahead_steps=2)
        other.load_state_dict(state)
    again = recipe.build()
    again.replay(followed, step=stream.step)
    assert again.state_dict() == stream.state_dict()
