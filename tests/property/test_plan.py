"""The engine cannot emit a bad plan: any tasks, bounds, policies and signals, hostile ones included."""

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.debt import debt_bound
from scheduler.engine import HeatEngine
from scheduler.explain import BROUGHT_WITHIN_BOUNDS
from scheduler.keeper import HeatKeeper
from scheduler.ledger import read_ledger
from scheduler.policy_config import AioliPolicy, HeatPolicy
from scheduler.records import DecisionRecord, RefusedRecord, SignalRecord
from scheduler.setup import EngineSetup
from scheduler.signals import TaskSignal
from scheduler.simplex import project, softmax, step_towards
from tests.contract.test_policies import POLICIES
from tests.unit.scheduler.made import INTERVAL, report, setup, signal

TOTAL_STEPS = 200
STEPS = range(0, TOTAL_STEPS, INTERVAL)

ratios = st.one_of(st.sampled_from([0.0, 1e-300, 0.5, 1.0 - 1e-16, 1.0]), st.floats(0, 1))
numbers = st.one_of(ratios, st.sampled_from([1e-12, 1e6, 1e300, 5e-324]), st.floats(0, 1e12))
counts = st.one_of(st.integers(0, 200), st.just(2**53))
no_numbers = st.sampled_from([None, "0.5", "\ud800", b"\xff", True, [0.5], {}, 1j, np.array([0.5]), object()])
wrong_numbers = st.sampled_from(
    [math.nan, math.inf, -math.inf, -1.0, -1, 1.5, 2**60, 10**400, np.float32(0.5), np.int64(3)]
)
junk = no_numbers | wrong_numbers
exposures = st.sampled_from([0, 0, 1, 10**6, 2**40]) | st.integers(0, 2000)
train_losses = st.none() | st.sampled_from([math.nan, math.inf, -1.0, 0.0, 5e-324, 1e300]) | st.floats(0, 10)


@st.composite
def guard_settings(draw: st.DrawFn, *, num_tasks: int, batch_size: int) -> dict[str, Any]:
    least_gap = math.ceil((1.0 + debt_bound(num_tasks)) * num_tasks / batch_size)
    return {
        "hold_core": draw(st.booleans()),
        "max_epochs": draw(st.none() | st.floats(1e-6, 100)),
        "overfit_patience": draw(st.integers(1, 3)),
        "overfit_tolerance": draw(st.sampled_from([0.0, 0.1, 1e9])),
        "overfit_cooling": draw(st.floats(1e-12, 1)),
        "floor_ratio": draw(st.floats(0, 1, exclude_max=True)),
        "max_exposure_gap_steps": draw(st.none() | st.integers(least_gap, least_gap + 50)),
        "ceiling": draw(st.floats(1e-6, 1)),
        "max_change": draw(st.floats(1e-9, 1)),
        "late_max_change": draw(st.floats(1e-9, 1)),
    }


@st.composite
def setups(draw: st.DrawFn) -> EngineSetup:
    names = [f"t{index}" for index in range(draw(st.integers(1, 7)))]
    size = len(names)
    batch_size = draw(st.integers(1, 32))
    tiers = st.sampled_from(["core", "standard", "long_tail"])
    weights = st.none() | st.sampled_from([0.0, 1e-300, 1e-9, 1.0, 1e9])
    cards = {
        name: {"tier": draw(tiers), "base_weight": draw(weights), "target_score": draw(st.floats(1e-9, 1))}
        for name in names
    }
    bounds = guard_settings(num_tasks=size, batch_size=batch_size)
    cards[names[0]]["base_weight"] = draw(st.sampled_from([1e-300, 1.0, 1e300]))
    return setup(
        names,
        cards=cards,
        num_rows=draw(st.lists(st.sampled_from([1, 7, 1000, 10**9]), min_size=size, max_size=size)),
        total_steps=TOTAL_STEPS,
        batch_size=batch_size,
        policies=draw(st.tuples(st.sampled_from(POLICIES), st.sampled_from(POLICIES))),
        boundary=draw(st.sampled_from([None, {"type": "step", "step": 60}, {"type": "capability", "over": "worst"}])),
        mode=draw(st.sampled_from(["lag1", "sync", "async"])),
        guards=draw(bounds),
        stage_guards=draw(st.tuples(*[st.just({}) | bounds] * 2)),
        heat={
            "stall_patience_ratio": 0.0,
            "half_life_evaluations": draw(st.sampled_from([1e-9, 1.0, 1e9])),
        },
    )


@st.composite
def sound_signals(draw: st.DrawFn, *, task: str, step: int) -> TaskSignal:
    reviewed, people = draw(counts), draw(counts)
    return signal(
        task,
        step=step,
        num_probes=draw(st.integers(1, 500) | st.just(2**53)),
        score=draw(ratios),
        loss=draw(numbers),
        sampled_score=draw(ratios),
        score_variance=draw(ratios),
        num_reviewed=reviewed,
        num_rejected=min(draw(counts), reviewed),
        num_human_reviewed=people,
        num_human_rejected=min(draw(counts), people),
        format_compliance=draw(ratios),
    )


@st.composite
def bad_signals(draw: st.DrawFn, *, step: int) -> TaskSignal:
    """Wrong in one field, or of an unknown task, another attempt, a step decided on or beyond the run."""
    wrong = draw(
        st.one_of(
            st.tuples(st.sampled_from(sorted(TaskSignal.__slots__)), junk),
            st.sampled_from([("task", "ghost"), ("attempt", 1), ("step", TOTAL_STEPS + 1), ("num_probes", 0)]),
            st.sampled_from([("num_rejected", 17), ("num_human_rejected", 1), ("score", 1.0 + 1e-12)]),
            st.just(("step", step - INTERVAL)) if step > 0 else st.just(("step", -1)),
        ).filter(lambda pair: not _is_sound(*pair))
    )
    fields: dict[str, Any] = {"task": "t0", "step": step} | dict([wrong])
    return signal(**fields)


def _is_sound(field: Any, value: Any) -> bool:
    """Whether this one of the wrong values happens to be fine for the field."""
    return field == "loss" and type(value) is float and 0 <= value < math.inf


def assert_sound(engine: HeatEngine, before: tuple[float, ...]) -> None:
    weights, old = np.array(engine.plan.weights), engine.guards.admit(np.array(before))
    assert np.isfinite(weights).all()
    assert abs(weights.sum() - 1.0) <= 1e-12
    assert np.all(weights >= engine.guards.floor)
    assert np.all(weights <= engine.guards.ceiling)
    limit = engine.guards.max_change(engine.plan.effective_from_step / TOTAL_STEPS)
    assert 0.5 * np.abs(weights - old).sum() <= limit + 1e-12


def assert_explained(decision: DecisionRecord, engine: HeatEngine) -> None:
    """Every decision says why; unless the policy goes by heat, every weight names its statistic."""
    policy = engine.setup.stage_policies[decision.plan.stage - 1]
    assert decision.sentences
    assert all(sentence.endswith(".") and "nan" not in sentence for sentence in decision.sentences)
    if decision.held is not None:
        assert decision.sentences[0] == f"Weights kept: {decision.held}."
        kept = all(task.weight_after == task.weight_before for task in decision.tasks)
        assert kept != (BROUGHT_WITHIN_BOUNDS in decision.sentences)
    elif not isinstance(policy, HeatPolicy | AioliPolicy):
        assert all(task.driver for task in decision.tasks)
        moved = [task for task in decision.tasks if abs(task.weight_after - task.weight_before) >= 0.005]
        assert sum(any(task.driver in sentence for task in moved) for sentence in decision.sentences) >= min(
            len(moved), 3
        )


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_evidence_under_any_bounds_gives_a_sound_plan(policy: Any, data: st.DataObject) -> None:
    made = data.draw(setups())
    other = data.draw(st.sampled_from(POLICIES))
    policies = data.draw(st.sampled_from([(policy, policy), (policy, other), (other, policy)]))
    engine = HeatEngine(made.model_copy(update={"stage_policies": policies}))
    assert_sound(engine, engine.plan.weights)
    names, served = list(engine.index_of), np.zeros(len(engine.index_of), dtype=int)
    for step in STEPS:
        for name in names:
            if data.draw(st.booleans()):
                assert engine.observe(data.draw(sound_signals(task=name, step=step))) is None
        if data.draw(st.booleans()):
            served += data.draw(st.lists(exposures, min_size=len(names), max_size=len(names)))
            losses = data.draw(st.lists(train_losses, min_size=len(names), max_size=len(names)))
            engine.observe_interval(replace(report(served.tolist(), step=step), train_loss=tuple(losses)))
        before = engine.plan
        decision, _ = engine.decide(step)
        assert_sound(engine, before.weights)
        assert decision.plan.version == before.version + 1
        assert all(
            0 <= getattr(task, part) <= 1 for task in decision.tasks for part in ("heat", "learnability", "decay")
        )
        assert_explained(decision, engine)
        state = json.dumps(engine.state_dict(), allow_nan=False)
        engine.load_state_dict(json.loads(state))
        assert json.dumps(engine.state_dict()) == state


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bad_signals_are_refused_recorded_and_change_nothing(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        keeper = HeatKeeper.open(path, setup(("t0", "t1"), total_steps=TOTAL_STEPS))
        keeper.begin_attempt("first", 0)
        for step in STEPS[: data.draw(st.integers(1, 4))]:
            keeper.observe(signal("t0", step=step, score=data.draw(ratios)))
            before, lines = json.dumps(keeper.memory.engine.state_dict()), len(keeper.lines)
            bad = data.draw(bad_signals(step=step))
            keeper.observe(bad)
            keeper.observe(bad)
            assert json.dumps(keeper.memory.engine.state_dict()) == before
            assert len(keeper.lines) == lines + 1, "recorded once, however often it comes"
            assert isinstance(list(read_ledger(path))[-1], RefusedRecord)
            keeper.evaluation_done(0, step)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_decisions_do_not_depend_on_refused_repeated_or_reordered_signals(data: st.DataObject) -> None:
    made = data.draw(setups())
    calm, harassed = HeatEngine(made), HeatEngine(made)
    for step in STEPS[:4]:
        sound = [data.draw(sound_signals(task=task.name, step=step)) for task in made.tasks]
        for one in sound:
            calm.observe(one)
        for one in data.draw(st.permutations(sound)):
            bad = data.draw(bad_signals(step=step))
            if bad.attempt == 0 and bad.task in ("t0", "ghost"):
                assert harassed.observe(bad)
            assert harassed.observe(one) in (None, "")
            assert harassed.observe(one) == ""
            other = signal(one.task, step=step, score=0.123456)
            assert harassed.observe(other) == "a different signal for this task and step came before"
        assert calm.decide(step) == harassed.decide(step)


@st.composite
def bounded_simplices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits and bounds [K] with sum(lower) <= 1 <= sum(upper), degenerate ones among them."""
    size = draw(st.integers(1, 12))
    unit = st.lists(st.sampled_from([0.0, 1e-12, 1e-3]) | st.floats(0, 1), min_size=size, max_size=size).map(np.array)
    inner = draw(unit) + 1e-15
    inner = inner / inner.sum()
    lower = inner * draw(unit)
    upper = inner + (1.0 - inner) * draw(unit)
    logits = draw(st.lists(st.floats(-500, 50), min_size=size, max_size=size))
    return np.array(logits), lower, upper


def by_bisection(logits: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The same projection by bisection of its one multiplier."""
    shifted = logits - logits.max()

    def clipped(log_scale: float) -> np.ndarray:
        return np.clip(np.exp(np.minimum(shifted + log_scale, 700.0)), lower, upper)

    low, high = -800.0, 800.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if clipped(middle).sum() < 1.0 else (low, middle)
    return clipped(high)


@settings(max_examples=300, deadline=None)
@given(bounded_simplices())
def test_the_projection_is_the_one_that_bisection_finds(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    logits, lower, upper = problem
    weights = project(logits, lower, upper)
    assert np.all((weights >= lower) & (weights <= upper))
    assert abs(weights.sum() - 1.0) <= 1e-12
    np.testing.assert_allclose(weights, by_bisection(logits, lower, upper), atol=1e-10)


@settings(max_examples=150, deadline=None)
@given(bounded_simplices())
def test_projecting_twice_is_projecting_once(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    logits, lower, upper = problem
    once = project(logits, lower, upper)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(project(np.log(once), lower, upper), once, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(bounded_simplices(), st.integers(0, 11), st.floats(0, 20))
def test_asking_for_more_of_a_task_never_gives_it_less_nor_another_more(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], index: int, more: float
) -> None:
    logits, lower, upper = problem
    index %= len(logits)
    raised = logits.copy()
    raised[index] += more
    change = project(raised, lower, upper) - project(logits, lower, upper)
    assert change[index] >= -1e-12
    assert np.all(np.delete(change, index) <= 1e-12)


@settings(max_examples=150, deadline=None)
@given(bounded_simplices(), st.floats(1e-12, 1))
def test_a_limited_step_keeps_every_bound_and_goes_no_further(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray], limit: float
) -> None:
    logits, lower, upper = problem
    previous, target = project(-logits, lower, upper), project(logits, lower, upper)
    stepped, held = step_towards(previous, target, limit)
    assert np.all((stepped >= lower) & (stepped <= upper))
    assert abs(stepped.sum() - 1.0) <= 1e-12
    assert 0.5 * np.abs(stepped - previous).sum() <= limit + 1e-12
    assert held or stepped.tolist() == target.tolist()


@given(st.lists(st.floats() | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=9))
def test_any_logits_at_all_give_probabilities(logits: list[float]) -> None:
    weights = softmax(np.array(logits))
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)


def test_accepted_signals_are_recorded_with_all_their_digits() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        keeper = HeatKeeper.open(path, setup(("t0",)))
        keeper.begin_attempt("first", 0)
        kept = signal("t0", score=1 / 3, loss=5e-324)
        keeper.observe(kept)
        assert list(read_ledger(path))[-1] == SignalRecord(kept)
