"""Each guard: what it holds, how far, and what it says."""

from typing import Any

import numpy as np
import pytest

from scheduler.debt import debt_bound
from scheduler.engine import HeatEngine
from scheduler.errors import ConfigError
from scheduler.guards import Guarded, GuardFacts, Guards
from scheduler.policies.base import log_prior
from scheduler.prior import prior_weights
from scheduler.setup import EngineSetup, StaticPolicy
from tests.unit.scheduler.made import evaluate, report, setup

LOOSE = {"max_change": 1.0, "late_max_change": 1.0, "floor_ratio": 0.0, "ceiling": 1.0}
STATIC = (StaticPolicy(), StaticPolicy())


def guards(num_tasks: int = 4, *, cards: Any = None, prior: Any = None, **bounds: Any) -> tuple[Guards, EngineSetup]:
    names = [f"t{index}" for index in range(num_tasks)]
    made = setup(names, cards=cards, guards=LOOSE | bounds, prior=prior or {"type": "uniform"})
    return Guards(made, prior_weights(made)), made


def bound(
    chain: Guards, asked: list[float], *, previous: list[float] | None = None, progress: float = 0.0, **facts: Any
) -> Guarded:
    size = len(asked)
    usual = {"overfit_evaluations": np.zeros(size), "epochs_left": np.full(size, np.inf)}
    arrays = usual | {name: np.array(value, dtype=float) for name, value in facts.items()}
    arrays["frozen_tasks"] = np.array(facts.get("frozen_tasks", [False] * size), dtype=bool)
    start = np.array(previous or [1 / size] * size)
    return chain.apply(log_prior(np.array(asked)), GuardFacts(previous=start, progress=progress, **arrays))


def test_within_loose_bounds_the_policy_gets_what_it_asks_for() -> None:
    chain, _ = guards()
    guarded = bound(chain, [0.1, 0.2, 0.3, 0.4])
    assert guarded.weights == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert guarded.held_by == ("", "", "", "")


def test_the_floor_is_a_share_of_the_uniform_weight() -> None:
    chain, _ = guards(floor_ratio=0.4)
    guarded = bound(chain, [0.01, 0.33, 0.33, 0.33])
    assert guarded.weights == pytest.approx([0.1, 0.3, 0.3, 0.3])
    assert guarded.held_by == ("floor", "", "", "")
    assert guarded.target[0] == pytest.approx(0.01)


def test_the_ceiling_gives_the_rest_to_the_others_in_proportion() -> None:
    chain, _ = guards(ceiling=0.6)
    guarded = bound(chain, [0.7, 0.15, 0.1, 0.05])
    assert guarded.weights == pytest.approx([0.6, 0.2, 0.4 / 3, 0.2 / 3])
    assert guarded.held_by == ("ceiling", "", "", "")


def test_a_ceiling_below_the_uniform_weight_gives_way() -> None:
    chain, _ = guards(2, ceiling=0.1)
    assert bound(chain, [0.9, 0.1]).weights == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("num_tasks", "batch_size", "gap", "plan_steps"), [(3, 4, 9, 25), (12, 1, 60, 1)])
def test_the_floor_of_an_exposure_gap_serves_every_task_in_every_such_window(
    num_tasks: int, batch_size: int, gap: int, plan_steps: int
) -> None:
    """Drives the real stream through plans at the floor; also through one plan a step, each of which turns away from
    the tasks that are ahead, so that the others fall behind by more than a sample."""
    stream_module = pytest.importorskip("train.stream.mixture")
    names = [f"t{index}" for index in range(num_tasks)]
    made = setup(names, batch_size=batch_size, guards=LOOSE | {"max_exposure_gap_steps": gap})
    chain = Guards(made, prior_weights(made))
    stream = stream_module.MixtureStream(num_rows=[50] * num_tasks, batch_size=batch_size, seed=0)
    rng, last_seen, served = np.random.default_rng(0), np.full(num_tasks, -1), np.zeros(num_tasks)
    for step in range(1200):
        if step % plan_steps == 0:
            asked = rng.dirichlet([0.1] * num_tasks) * (served <= np.median(served))
            stream.set_weights(bound(chain, (asked / asked.sum()).tolist()).weights)
        assert (step - last_seen).max() <= gap
        tasks = stream.next_batch().tasks
        last_seen[np.unique(tasks)] = step
        served += np.bincount(tasks, minlength=num_tasks)


def test_the_floor_of_an_exposure_gap_covers_what_changing_plans_may_leave_owed() -> None:
    made = setup([f"t{index}" for index in range(40)], batch_size=1, guards=LOOSE | {"max_exposure_gap_steps": 192})
    assert Guards(made, prior_weights(made)).floor[0] * 192 >= 1.0 + debt_bound(40)


def test_an_exposure_gap_that_cannot_be_kept_is_refused_with_the_least_that_can() -> None:
    with pytest.raises(ConfigError, match=r"3 cannot be kept with 10 tasks and batches of 4: set it to 9 or more"):
        HeatEngine(setup([f"t{i}" for i in range(10)], batch_size=4, guards={"max_exposure_gap_steps": 3}))
    HeatEngine(setup([f"t{i}" for i in range(10)], batch_size=4, guards={"max_exposure_gap_steps": 9}))


def test_the_step_limit_stops_on_the_straight_way_to_the_target() -> None:
    chain, _ = guards(max_change=0.1)
    guarded = bound(chain, [0.55, 0.15, 0.15, 0.15])
    assert guarded.weights == pytest.approx([0.35, 0.65 / 3, 0.65 / 3, 0.65 / 3])
    assert guarded.held_by == ("step limit",) * 4


def test_the_step_limit_never_loosens() -> None:
    chain, _ = guards(max_change=0.02, late_max_change=0.04)
    assert [chain.max_change(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.02] * 3)
    assert chain.late_max_change == 0.02


def test_the_step_limit_tightens_with_progress() -> None:
    chain, _ = guards(max_change=0.12, late_max_change=0.04)
    assert [chain.max_change(progress) for progress in (-1.0, 0.0, 0.5, 1.0, 2.0)] == pytest.approx(
        [0.12, 0.12, 0.08, 0.04, 0.04]
    )
    moved = [bound(chain, [0.97, 0.01, 0.01, 0.01], progress=p).weights[0] - 0.25 for p in (0.0, 0.5, 1.0)]
    assert moved == pytest.approx([0.12, 0.08, 0.04])


def test_an_overfitting_task_is_cooled_from_its_patience_on() -> None:
    chain, _ = guards(overfit_patience=3, overfit_cooling=0.5)
    guarded = bound(chain, [0.25] * 4, overfit_evaluations=[2, 3, 0, 0])
    assert guarded.weights == pytest.approx([1 / 3.5, 0.5 / 3.5, 1 / 3.5, 1 / 3.5])
    assert guarded.held_by == ("", "overfit guard", "", "")


def test_the_epoch_cap_holds_a_small_pool_and_gives_its_room_away() -> None:
    chain, _ = guards()
    guarded = bound(chain, [0.4, 0.3, 0.2, 0.1], epochs_left=[0.1, np.inf, np.inf, np.inf])
    assert guarded.weights == pytest.approx([0.1, 0.45, 0.3, 0.15])
    assert guarded.held_by == ("epoch cap", "", "", "")


def test_epoch_caps_that_leave_no_mixture_give_way_in_proportion() -> None:
    chain, _ = guards()
    guarded = bound(chain, [0.7, 0.1, 0.1, 0.1], epochs_left=[0.0, 0.2, 0.2, 0.2])
    room = np.array([1.0, 0.8, 0.8, 0.8])
    assert guarded.weights == pytest.approx(np.array([0.0, 0.2, 0.2, 0.2]) + room * 0.4 / room.sum())


def test_the_epoch_cap_never_breaks_the_floor() -> None:
    chain, _ = guards(floor_ratio=0.4)
    assert bound(chain, [0.25] * 4, epochs_left=[0.0, np.inf, np.inf, np.inf]).weights[0] == pytest.approx(0.1)


def test_the_epoch_cap_holds_over_a_whole_run_from_its_first_plan() -> None:
    made = setup(
        ("small", "big"), num_rows=(100, 10_000), total_steps=200, policies=STATIC, guards=LOOSE | {"max_epochs": 4.0}
    )
    engine, served = HeatEngine(made), np.zeros(2)
    for step in range(0, 200, 25):
        engine.observe_interval(report(np.round(served).astype(int).tolist(), step=step))
        in_force = np.array(engine.plan.weights)  # the plan decided on at this step takes effect an interval later
        evaluate(engine, step, {"small": {}, "big": {}})
        served += in_force * 16 * 25
    assert 0.95 * 4.0 * 100 <= served[0] <= 4.0 * 100 * 1.01


def test_a_core_task_keeps_at_least_its_prior_share() -> None:
    chain, _ = guards(cards={"t0": {"tier": "core"}})
    guarded = bound(chain, [0.01, 0.33, 0.33, 0.33])
    assert guarded.weights == pytest.approx([0.25] * 4)
    assert guarded.held_by[0] == "core hold"


def test_a_falling_core_task_is_not_let_go_below_its_prior_share() -> None:
    made = setup(("core", "hot"), cards={"core": {"tier": "core"}}, guards=LOOSE)
    engine = HeatEngine(made)
    for step, core_score in zip(range(0, 250, 25), [0.95] * 6 + [0.93, 0.91, 0.89, 0.87], strict=True):
        many = {"num_probes": 5000}
        evaluate(
            engine, step, {"core": many | {"score": core_score}, "hot": many | {"score": 0.0, "loss": 9 - step / 50}}
        )
    assert engine.heat.state.decay[0] > 0
    assert engine.plan.weights[0] >= 0.5 - 1e-12


def test_the_hold_can_be_switched_off() -> None:
    chain, _ = guards(cards={"t0": {"tier": "core"}}, hold_core=False)
    assert bound(chain, [0.01, 0.33, 0.33, 0.33]).weights[0] == pytest.approx(0.01, rel=0.01)


def test_holds_that_ask_for_more_than_the_floors_leave_give_way_in_proportion() -> None:
    cards = {f"t{index}": {"tier": "core"} for index in range(3)}
    prior = {"type": "explicit", "weights": {"t0": 6, "t1": 3, "t2": 1}}
    chain, _ = guards(cards=cards, prior=prior, floor_ratio=0.8)
    spare, above_floor = 0.2, np.array([0.4, 0.1, 0.0, 0.0])
    expected = 0.2 + above_floor * spare / above_floor.sum()
    assert bound(chain, [0.01, 0.01, 0.01, 0.97]).weights == pytest.approx(expected)


def test_a_static_mixture_never_moves_whatever_its_bounds() -> None:
    cards = {"a": {"tier": "core"}, "b": {"base_weight": 0.001}, "c": {"tier": "long_tail"}}
    engine = HeatEngine(setup(cards=cards, policies=STATIC, prior={"type": "explicit", "weights": {"a": 8, "c": 1}}))
    first = engine.plan.weights
    for step in range(0, 500, 25):
        evaluate(engine, step, {"a": {"score": 0.1 + step / 1000}, "c": {"score": 0.9 - step / 1000}})
    assert engine.plan.weights == first
