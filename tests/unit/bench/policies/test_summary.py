"""What the runs say together, what the aims make of it, and the page."""

import pytest

from bench.policies.check import in_words, missed_aims
from bench.policies.outcome import Outcome
from bench.policies.page import BEGIN, END, page_part, renewed, suites_lost
from bench.policies.summary import BEST_DIRICHLET, ArmSummary, Difference, SuiteSummary, summarise
from tests.unit.bench.policies.made import outcome

SEEDS = range(6)
STATICS = ("uniform", "proportional", "temperature", "unimax")


def runs(heat_worst: float, *, suite: str = "symbols", **fields: object) -> list[Outcome]:
    """Six seeds; every arm but heat has a worst score of 0.3 + seed / 100 and a macro score of about a half."""
    others = [
        outcome(arm, seed, suite=suite, test={"a": 0.7, "b": 0.3 + seed / 100})
        for seed in SEEDS
        for arm in (*STATICS, "random-walk", "time-average", *(f"dirichlet-{number}" for number in range(1, 9)))
    ]
    own = [
        outcome("heat", seed, suite=suite, test={"a": 0.7, "b": heat_worst + seed / 100}, **fields) for seed in SEEDS
    ]
    return [*others, *own]


def arm(summary: SuiteSummary, name: str) -> ArmSummary:
    return next(one for one in summary.arms if one.name == name)


def test_differences_are_paired_by_seed_so_that_seeds_cancel() -> None:
    found = arm(summarise("symbols", runs(0.4)), "heat").to_uniform["worst"]
    assert found.mean == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.1, 0.1))
    assert found.num_seeds == 6


def test_the_best_dirichlet_is_chosen_by_selection_and_scored_on_test() -> None:
    lucky = outcome("dirichlet-3", 0, test={"a": 0.1, "b": 0.1}, selection={"a": 0.9, "b": 0.9})
    others = [one for one in runs(0.3) if (one.arm, one.seed) != ("dirichlet-3", 0)]
    found = arm(summarise("symbols", [*others, lucky]), BEST_DIRICHLET)
    assert found.worst == pytest.approx((0.1 + sum(0.3 + seed / 100 for seed in range(1, 6))) / 6)


def test_an_arm_that_was_not_run_says_whose_run_it_has() -> None:
    shared = [outcome("heat-no-core-hold", 0, test={"a": 0.7, "b": 0.3}, run_of="heat")]
    summary = summarise("symbols", [*runs(0.3), *shared])
    assert arm(summary, "heat-no-core-hold").run_of == {"heat": 1}
    part = page_part([summary], words={"symbols": "words"}, absent={}, missed=[], decisions="0")
    assert "- heat-no-core-hold: its run is that of heat.\n" in part
    assert "its run is" not in page_part(
        [summarise("symbols", runs(0.3))], words={"symbols": "words"}, absent={}, missed=[], decisions="0"
    )


def test_regret_is_what_hindsight_has_more() -> None:
    assert arm(summarise("symbols", runs(0.2)), "heat").regret["worst"] == pytest.approx(0.1)


def test_a_run_that_never_reached_uniforms_end_counts_with_all_compute() -> None:
    summary = summarise("symbols", runs(0.2))
    assert arm(summary, "heat").to_target == 1.0
    assert arm(summary, "heat").num_reached == 0
    assert arm(summary, "uniform").num_reached == len(SEEDS)


def test_a_heat_that_beats_all_on_two_real_suites_misses_nothing() -> None:
    summaries = [summarise(suite, runs(0.4, suite=suite)) for suite in ("symbols", "finrisk")]
    assert missed_aims(summaries) == []


def test_every_miss_is_named() -> None:
    fed = {"random_share": 0.1, "random_floor": 0.01, "recognised_at": 0.4, "random_share_after": 0.05}
    missed = "\n".join(missed_aims([summarise("symbols", runs(0.2, **fed))]))
    for what in ("against random-walk", "against time-average", "0 real suites", "macro, heat against", "5.0 times"):
        assert what in missed


def test_random_labels_that_are_never_recognised_are_a_miss() -> None:
    missed = missed_aims([summarise("symbols", runs(0.4, random_share=0.1, random_floor=0.01))])
    assert "symbols: random labels recognised in 0 of 6 runs" in missed


def test_an_arm_that_was_not_run_is_a_miss_and_no_error() -> None:
    summary = summarise("symbols", [one for one in runs(0.4) if one.arm in STATICS])
    assert "symbols: heat was not run" in missed_aims([summary])


def part() -> str:
    summary = summarise("symbols", runs(0.2))
    return page_part([summary], words={"symbols": "w."}, absent={"smollm2": "no model"}, missed=["x"], decisions="s")


def test_the_page_names_every_arm_every_miss_and_what_is_absent() -> None:
    text = part()
    for arm_name in (*STATICS, BEST_DIRICHLET, "heat", "random-walk", "time-average"):
        assert f"| {arm_name} |" in text
    assert "- x" in text
    assert "smollm2: absent: no model" in text
    assert "worse" in text


def test_writing_again_replaces_our_part_and_nothing_else() -> None:
    page = renewed("# Benchmarks\n\nbefore\n", part()) + "\nafter\n"
    again = renewed(page, "new\n")
    assert again == f"# Benchmarks\n\nbefore\n\n{BEGIN}\nnew\n{END}\n\nafter\n"
    assert renewed(again, "new\n") == again


@pytest.mark.parametrize(
    ("num_seeds", "shown"),
    [(1, "+1.0 points, one seed"), (2, "+1.0 points, two seeds"), (3, "+1.0 points [-5.0, +7.0]")],
)
def test_an_interval_is_shown_from_three_seeds_on(num_seeds: int, shown: str) -> None:
    interval = (-0.05, 0.07) if num_seeds > 1 else None
    assert in_words(Difference(0.01, interval, 1.0, num_seeds)) == shown


def test_a_suite_that_stands_on_the_page_is_not_lost_for_want_of_its_runs() -> None:
    page = renewed("# Benchmarks\n", part())
    assert suites_lost(page, part()) == []
    assert suites_lost(page, "## Mixture policies\n") == ["symbols"]
    assert suites_lost("# Benchmarks\n", part()) == []
