"""Building a run's stream from its setup, and what the setup refuses about repetition."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from scheduler.errors import ConfigError, DataError, StateError
from scheduler.plan import MixturePlan
from scheduler.setup import EngineSetup
from scheduler.task import Repetition
from train.stream.apportion import ONE
from train.stream.mixture import MixtureStream
from train.stream.opening import open_stream

EVEN = MixturePlan(version=0, source_step=-1, effective_from_step=0, stage=1, stage_start_step=0, weights=(0.5, 0.5))


def setup(**changes: Any) -> EngineSetup:
    fields: dict[str, Any] = {
        "tasks": ({"name": "a"}, {"name": "b"}),
        "num_rows": (10, 20),
        "seed": 5,
        "total_steps": 10,
        "global_batch_size": 4,
        "mixture": {},
        "boundary": None,
        "stage_policies": ({"type": "static"}, {"type": "static"}),
    }
    return EngineSetup.model_validate(fields | changes)


def capped(epochs: float | None, then: str = "redistribute") -> dict[str, Any]:
    return {"repetition": {"max_epochs": epochs, "then": then}}


def test_a_plain_run_opens_the_plain_stream() -> None:
    stream, plain = open_stream(setup()), MixtureStream(num_rows=[10, 20], batch_size=4, seed=5)
    stream.follow(EVEN)
    plain.set_weights(EVEN.weights)
    assert stream.state_dict() == plain.state_dict()
    assert stream.next_batch().rows.tolist() == plain.next_batch().rows.tolist()


def test_shares_of_tokens_need_the_lengths_of_the_rows() -> None:
    in_tokens = setup(mixture={"weight_unit": "tokens"}, mean_supervised_tokens=(30.0, 10.0))
    with pytest.raises(ConfigError, match=r"weight_unit is tokens.*supervised lengths"):
        open_stream(in_tokens)
    with pytest.raises(ConfigError, match="supervised_lengths are of"):
        open_stream(in_tokens, supervised_lengths=[np.ones(10, np.int32), np.ones(19, np.int32)])
    empty = [np.ones(10, np.int32), np.array([3] * 7 + [0] + [3] * 12)]
    with pytest.raises(DataError, match="row 7 of task 1 has 0 supervised tokens"):
        open_stream(in_tokens, supervised_lengths=empty)
    stream = open_stream(in_tokens, supervised_lengths=[np.full(10, 30), np.full(20, 10)])
    stream.follow(EVEN)
    stream.skip(10)
    assert stream.num_samples.tolist() == [10, 30]


def test_lengths_are_ignored_where_weights_are_shares_of_samples() -> None:
    stream = open_stream(setup(), supervised_lengths=[np.full(10, 30), np.full(20, 10)])
    stream.follow(EVEN)
    stream.skip(10)
    assert stream.num_samples.tolist() == [20, 20]


def test_a_run_whose_caps_cannot_fill_its_steps_is_refused_with_the_numbers() -> None:
    tasks = ({"name": "a", **capped(1.0)}, {"name": "b", **capped(1.5)})
    assert setup(tasks=tasks).total_capacity == 40
    with pytest.raises(
        ValidationError, match=r"11 steps of 4 samples need 44 samples.*allow 40 in all.*at most 10 steps"
    ):
        setup(tasks=tasks, total_steps=11)
    assert setup(tasks=({"name": "a", **capped(1.0)}, {"name": "b"}), total_steps=1000).total_capacity is None


def test_a_cap_of_a_fraction_of_an_epoch_is_rounded_down_but_not_by_floating_point() -> None:
    tasks = ({"name": "a", **capped(0.29)}, {"name": "b", **capped(0.99)})
    assert setup(tasks=tasks, num_rows=(100, 3), total_steps=1).total_capacity == 29 + 2


def test_a_task_that_is_used_up_gives_its_share_to_the_others() -> None:
    stream = open_stream(setup(tasks=({"name": "a", **capped(1.0)}, {"name": "b"}), total_steps=100))
    stream.follow(EVEN)
    counts = [int((stream.next_batch().tasks == 0).sum()) for _ in range(8)]
    assert counts == [2, 2, 2, 2, 2, 0, 0, 0]
    assert stream.used_up.tolist() == [True, False]
    assert not stream.ended


def test_under_stop_the_stream_ends_where_the_task_is_used_up_and_a_new_plan_can_go_on() -> None:
    stream = open_stream(setup(tasks=({"name": "a", **capped(1.0, "stop")}, {"name": "b"}), total_steps=100))
    stream.follow(EVEN)
    for _ in range(5):
        assert not stream.ended
        stream.next_batch()
    assert stream.ended
    with pytest.raises(DataError, match=r"ended at step 5.*tasks \[0\] are used up"):
        stream.next_batch()
    stream.set_weights([0.0, 1.0])
    assert not stream.ended
    assert (stream.next_batch().tasks == 1).all()


def test_windows_without_levels_and_windows_of_another_run_are_refused() -> None:
    windowed = MixturePlan(
        version=1,
        source_step=0,
        effective_from_step=0,
        stage=1,
        stage_start_step=0,
        weights=(0.5, 0.5),
        windows=((0, 0), (0, 1)),
        replay_ratio=0.1,
    )
    with pytest.raises(ConfigError, match="without level_sizes"):
        open_stream(setup()).follow(windowed)
    levelled = open_stream(setup(level_sizes=((4, 6), (20,))))
    levelled.follow(windowed)
    for _ in range(5):
        batch = levelled.next_batch()
        assert (batch.rows[batch.tasks == 0] < 4).all()
    assert levelled.level_samples.tolist() == [[10, 0], [10, 0]]
    with pytest.raises(StateError, match="level_sizes"):
        open_stream(setup()).load_state_dict(levelled.state_dict())


def test_shares_that_sum_to_a_little_over_one_are_taken_and_their_state_is_loaded_again() -> None:
    stream, copy = open_stream(setup()), open_stream(setup())
    stream.follow(replace(EVEN, arrangement=(0.0, 0.5, 0.5000005)))
    stream.skip(3)
    copy.load_state_dict(stream.state_dict())


def test_a_damaged_level_or_arrangement_state_is_refused_and_changes_nothing() -> None:
    donor, stream = (open_stream(setup(level_sizes=((4, 6), (20,)))) for _ in range(2))
    donor.follow(EVEN)
    donor.skip(3)
    state, before = donor.state_dict(), stream.state_dict()
    for change, message in (
        ({"levels": {**state["levels"], "begun_at": [1, 0]}}, "samples per difficulty level"),
        ({"levels": {"windows": []}}, "levels have the keys"),
        ({"arrangement": {"shares": [1, 1, 1], "begun_at": [0, 0]}}, "expected three that sum"),
        ({"arrangement": {"shares": [1 << 30, 0, 0], "begun_at": [99, 0]}}, "after the samples"),
        ({"left": [2]}, "left is"),
    ):
        with pytest.raises(StateError, match=message):
            stream.load_state_dict({**state, **change})
        assert stream.state_dict() == before


@pytest.mark.parametrize("in_tokens", [False, True])
@pytest.mark.parametrize("new_weights", [None, (0.3, 0.7), (1.0, 0.0)])
def test_a_stream_restored_around_the_step_in_which_a_task_runs_out_continues_identically(
    in_tokens: bool, new_weights: tuple[float, float] | None
) -> None:
    lengths = [np.full(13, 7), np.arange(1, 41)] if in_tokens else None

    def new_stream() -> MixtureStream:
        repetition = [Repetition(max_epochs=1.0), Repetition()]
        return MixtureStream(num_rows=[13, 40], batch_size=4, seed=2, repetition=repetition, supervised_lengths=lengths)

    stream = new_stream()
    stream.set_weights((0.5, 0.5))
    before = stream.state_dict()
    while not stream.used_up[0]:
        before = stream.state_dict()
        stream.next_batch()
    assert stream.num_samples[0] == 13
    after, runs_out_at = stream.state_dict(), stream.step - 1
    early, late = new_stream(), new_stream()
    early.load_state_dict(before)
    assert not early.ended
    assert early.step == runs_out_at
    early.skip(1)
    assert early.state_dict() == after
    late.load_state_dict(after)
    for one in (stream, early, late):
        if new_weights is not None:
            one.set_weights(new_weights)
    for _ in range(20):
        assert stream.ended == early.ended == late.ended == (new_weights == (1.0, 0.0))
        if stream.ended:
            break
        first = stream.next_batch()
        assert (first.tasks == 1).all()
        assert first.rows.tolist() == early.next_batch().rows.tolist() == late.next_batch().rows.tolist()
    assert stream.state_dict() == early.state_dict() == late.state_dict()


def test_a_plan_at_the_very_step_a_task_runs_out_can_keep_it_from_running_out() -> None:
    stream = open_stream(setup(tasks=({"name": "a", **capped(1.0, "stop")}, {"name": "b"}), total_steps=100))
    stream.follow(EVEN)
    stream.skip(4)
    assert stream.num_samples.tolist() == [8, 8]
    stream.set_weights([0.25, 0.75])
    stream.skip(2)
    assert stream.ended
    stream.set_weights([0.0, 1.0])
    stream.skip(20)
    assert stream.num_samples.tolist() == [10, 94]
    assert not stream.used_up.any()


def test_a_task_of_weight_zero_that_is_still_owed_leaves_and_never_stops_the_stream() -> None:
    capped_tasks = ({"name": name, **capped(1.0, "stop")} for name in "ab")
    tasks = (*capped_tasks, {"name": "c"}, {"name": "d"})
    stream = open_stream(setup(tasks=tasks, num_rows=(1, 1, 50, 50), total_steps=20, global_batch_size=1))
    stream.set_weights([0.0, 0.0, 0.5, 0.5])
    owed = np.rint(np.array([0.9, 0.9, -0.9, -0.9]) * ONE).astype(np.int64)
    state = {**stream.state_dict(), "debts": owed.tolist(), "step": 2, "num_samples": [1, 1, 0, 0]}
    stream.load_state_dict(state)
    assert not stream.ended
    assert stream.next_batch().tasks[0] in (2, 3)
    assert stream.used_up.any()
    assert stream.debts[stream.used_up].tolist() == [0.0] * int(stream.used_up.sum())
    stream.skip(10)
    assert stream.num_samples[:2].tolist() == [1, 1]
