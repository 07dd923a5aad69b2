"""What a decision says."""

from dataclasses import replace

import pytest

from scheduler.explain import measured, recognised_as, recognitions, sentence, sentences
from scheduler.learnability import Recognised
from scheduler.records import TaskDecision
from tests.unit.scheduler.made import signal

CALM = TaskDecision(
    task="sums",
    decay=0.0,
    variance=0.0,
    rejection=0.0,
    gap=0.0,
    heat=0.0,
    learnability=1.0,
    weight_before=0.2,
    target_weight=0.2,
    weight_after=0.2,
    held_by="",
)
HOT = replace(CALM, gap=0.6, decay=0.2, rejection=0.05, heat=0.4, target_weight=0.31, weight_after=0.3)


def test_a_rise_names_its_signals_strongest_first() -> None:
    assert sentence(HOT) == "sums rises 20.0% → 30.0%: heat 0.40 (gap to target 0.60, falling score 0.20)."


def test_a_fall_of_a_cool_task_is_because_others_are_hotter() -> None:
    fallen = replace(CALM, target_weight=0.1, weight_after=0.1)
    assert sentence(fallen) == "sums falls 20.0% → 10.0%: heat 0.00, others are hotter."


def test_a_fall_below_what_was_asked_for_is_because_of_the_bounds_of_others() -> None:
    assert "the bounds of other tasks take the room" in sentence(replace(CALM, target_weight=0.25, weight_after=0.19))


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ("step limit", "the step limit let it go no further towards 31.0%"),
        ("floor", "the floor kept it from falling to 31.0%"),
        ("ceiling", "the ceiling kept it from 31.0%"),
        ("epoch cap", "the epoch cap kept it from 31.0%: its rows would be repeated too often"),
        ("core hold", "as a core task it is held at its prior share (the policy asked for 31.0%)"),
        ("overfit guard", "it is cooled because its held-out loss rises while its score does not"),
    ],
)
def test_the_guard_that_held_a_task_is_named(guard: str, words: str) -> None:
    assert sentence(replace(HOT, held_by=guard)).endswith(f"; {words}.")


def test_a_cooled_task_does_not_fall_because_others_are_hotter() -> None:
    cooled = replace(CALM, target_weight=0.15, weight_after=0.1, held_by="overfit guard")
    assert "hotter" not in sentence(cooled)


def test_damping_is_said_with_what_is_left_of_the_heat() -> None:
    assert "exposure brings little progress, so its heat counts 25%" in sentence(replace(HOT, learnability=0.25))


def test_a_task_that_does_not_move_stays() -> None:
    assert sentence(CALM).startswith("sums stays 20.0% → 20.0%")


def test_only_the_largest_moves_are_told_largest_first() -> None:
    tasks = [
        replace(CALM, task=str(index), weight_after=0.2 + move) for index, move in enumerate([0.01, 0.04, -0.05, 0.03])
    ]
    told = sentences(tasks, held=None)
    assert [text[0] for text in told] == ["2", "1", "3"]


def test_small_moves_are_not_told() -> None:
    assert sentences([replace(CALM, weight_after=0.204)], held=None) == ("No weight moved by half a point or more.",)


def test_a_held_plan_says_why() -> None:
    assert sentences([HOT], held="nothing was measured") == ("Weights kept: nothing was measured.",)


def test_a_measurement_is_told_with_its_change_since_the_one_before() -> None:
    first = signal("a", score=0.5, loss=1.25)
    then = signal("a", step=25, score=0.75, loss=1.0, num_rejected=4, num_human_rejected=1, num_human_reviewed=3)
    assert measured(first, None).startswith("score 0.500 on 64 probes, held-out loss 1.250;")
    assert measured(then, first) == (
        "score 0.750 on 64 probes (+0.250), held-out loss 1.000 (-0.250); of 16 answers reviewed 4 rejected, "
        "100% in the right format; people rejected 1 of 3."
    )


def test_a_task_that_the_bounds_of_others_move_is_not_said_to_go_towards_its_target() -> None:
    pushed = replace(CALM, weight_before=0.15, target_weight=0.15, weight_after=0.65, held_by="step limit")
    assert sentence(pushed).endswith("; the bounds of other tasks move it, as fast as the step limit allows.")
    towards = replace(pushed, target_weight=0.75)
    assert sentence(towards).endswith("; the step limit let it go no further towards 75.0%.")


def test_noise_and_solved_tasks_are_called_what_they_are() -> None:
    noise = replace(HOT, learnability=0.1, noise_since=300)
    assert "noise, or out of reach: more exposure brought no progress since step 300; its heat counts 10%" in sentence(
        noise
    )
    assert sentence(replace(HOT, solved_since=100)).endswith("; solved since step 100.")
    assert recognised_as(noise) is not None
    assert recognised_as(HOT) is None


def test_a_task_is_named_when_it_is_recognised_and_when_that_no_longer_holds() -> None:
    hot = replace(HOT, learnability=0.1)
    tasks = [
        replace(hot, task="a", noise_since=300),
        replace(hot, task="b"),
        replace(hot, task="c", solved_since=100),
        replace(hot, task="d"),
    ]
    words = recognitions(tasks, Recognised([None, 300, None, None], [None, None, None, 100]))
    assert words == (
        "a is recognised as noise, or out of reach: more exposure brought no progress since step 300; "
        "its heat counts 10%.",
        "b makes progress again and is no longer taken for noise.",
        "c is solved since step 100: its score is at its target.",
        "d is no longer solved: its score is below its target again.",
    )
    noise = [replace(hot, noise_since=300)] * 4
    assert recognitions(noise, Recognised([300] * 4, [None] * 4)) == ()
