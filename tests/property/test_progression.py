"""Levels, states and frozen tasks under any evidence: sound plans, open levels, and a ledger that gives them again."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine import HeatEngine
from scheduler.setup import EngineSetup
from scheduler.signals import TaskSignal
from scheduler.states import STATES
from tests.property.test_plan import STEPS, TOTAL_STEPS, assert_sound, junk, setups, sound_signals
from tests.unit.scheduler.made import report, signal

fractions = st.none() | st.sampled_from([0.3, 0.5, 0.8])


@st.composite
def climbing_setups(draw: st.DrawFn) -> EngineSetup:
    plain = draw(setups())
    sizes = st.lists(st.integers(1, 50), min_size=1, max_size=5).map(tuple)
    levels = tuple(draw(sizes) for _ in plain.tasks)
    late, frozen = draw(fractions), draw(fractions)
    if plain.boundary is not None and frozen == 0.3:
        frozen = 0.8
    mixture = plain.mixture.model_dump()
    mixture["guards"] |= {"overfit_action": "freeze", "overfit_patience": 1}
    mixture["curriculum"] = {
        "open_levels": draw(st.integers(1, 3)),
        "replay_ratio": draw(st.sampled_from([0.0, 0.2, 0.99])),
        "promote_at": draw(st.sampled_from([1e-9, 0.3, 0.7])),
        "promote_evaluations": draw(st.integers(1, 3)),
        "demote_at": 0.0 if draw(st.booleans()) else 1e-10,
        "demote_evaluations": draw(st.integers(1, 3)),
        "open_all_after": draw(fractions),
    }
    mixture["states"] = {
        "warmup_evaluations": draw(st.integers(0, 3)),
        "transition_intervals": draw(st.integers(0, 2)),
        "transition_max_change": draw(st.sampled_from([1e-9, 0.02, 1.0])),
        "late_after": late if frozen is None or late is None or late <= frozen else frozen,
        "frozen_after": frozen,
    }
    changes = {"mixture": mixture, "level_sizes": levels, "num_rows": tuple(map(sum, levels))}
    return EngineSetup.model_validate(plain.model_dump() | changes)


@st.composite
def levelled_signals(draw: st.DrawFn, *, task: str, step: int, num_levels: int) -> TaskSignal:
    plain = draw(sound_signals(task=task, step=step))
    counts = tuple(draw(st.lists(st.integers(0, 2**40) | st.integers(0, 30), max_size=num_levels)))
    if sum(counts) == 0:
        return plain
    right = tuple(draw(st.sampled_from([0.0, 0.5, 1.0])) * count for count in counts)
    return replace(plain, num_probes=sum(counts), level_probes=counts, level_successes=right)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_evidence_gives_sound_plans_with_open_levels_in_states_that_never_go_back(data: st.DataObject) -> None:
    made = data.draw(climbing_setups())
    engine, twin = HeatEngine(made), HeatEngine(made)
    names, ranks = list(engine.index_of), [0]
    frozen = engine.progression.frozen_tasks
    for step in STEPS:
        for name, sizes in zip(names, made.level_sizes, strict=True):
            if data.draw(st.booleans()):
                one = data.draw(levelled_signals(task=name, step=step, num_levels=len(sizes)))
                assert engine.observe(one) is twin.observe(one) is None
        served = report([step] * len(names), step=step)
        engine.observe_interval(served)
        twin.observe_interval(served)
        before = engine.plan
        decision, _ = engine.decide(step)
        assert twin.decide(step)[0] == decision
        assert_sound(engine, before.weights)
        ranks.append(STATES.index(decision.state))
        assert_levels(engine.plan.windows, engine.plan.level_orders, made)
        assert np.all(engine.progression.frozen_tasks >= frozen)
        frozen = engine.progression.frozen_tasks
        if decision.state in ("warm-up", "frozen"):
            assert engine.plan.weights == before.weights
        if decision.state == "frozen" and ranks[-2] == ranks[-1]:
            assert (engine.plan.windows, engine.plan.level_orders) == (before.windows, before.level_orders)
        state = json.dumps(engine.state_dict(), allow_nan=False)
        twin = HeatEngine(made)
        twin.load_state_dict(json.loads(state))
        assert json.dumps(twin.state_dict()) == state
    assert ranks == sorted(ranks)


def assert_levels(windows: Any, orders: Any, made: EngineSetup) -> None:
    counts = [len(sizes) for sizes in made.level_sizes]
    assert all(0 <= first <= last < count for (first, last), count in zip(windows, counts, strict=True))
    assert not orders or [sorted(order) for order in orders] == [list(range(count)) for count in counts]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["level_probes", "level_successes"]), junk | st.lists(junk, max_size=3).map(tuple))
def test_counts_by_level_that_are_no_counts_are_refused(name: str, value: Any) -> None:
    fields: dict[str, Any] = {"num_probes": 4, "level_probes": (2, 2), "level_successes": (1.0, 2.0), name: value}
    assert signal("t0", **fields).fault() is not None or _fits(name, value)


def _fits(name: str, value: Any) -> bool:
    """Whether this one of the wrong values happens to be fine."""
    if value == ():
        return True
    is_pair = isinstance(value, tuple) and len(value) == 2
    if not is_pair or not all(type(one) in (int, float) for one in value):
        return False
    return value == (2, 2) if name == "level_probes" else all(0 <= one <= 2 for one in value)


def test_counts_that_do_not_fit_the_task_or_each_other_are_refused() -> None:
    def fault(probes: tuple[int, ...], right: tuple[float, ...], num_probes: int = 4) -> str | None:
        return signal("t0", num_probes=num_probes, level_probes=probes, level_successes=right).fault()

    assert fault((2, 2), (2.0, 0.0)) is None
    assert fault((2, 2), (2.1, 0.0)) is not None
    assert fault((2, 1), (0.0, 0.0)) == "level_probes add up to 3; num_probes is 4"
    assert fault((2, 2), (0.0,)) is not None
    base = EngineSetup.model_validate(
        {
            "tasks": [{"name": "t0"}],
            "num_rows": [4],
            "seed": 0,
            "total_steps": TOTAL_STEPS,
            "global_batch_size": 4,
            "mixture": {"curriculum": {}},
            "boundary": None,
            "stage_policies": [{"type": "static"}] * 2,
            "level_sizes": [[2, 2]],
        }
    )
    refused = HeatEngine(base).observe(signal("t0", num_probes=3, level_probes=(1, 1, 1), level_successes=(0.0,) * 3))
    assert refused == "it has counts of 3 difficulty levels; the task has 2"
