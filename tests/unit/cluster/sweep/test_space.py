"""A trial is a function of space, seed and number; conditions hold; every value lies in its domain."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.sweep.config import ChoiceDomain, Domain, IntegerDomain, LogUniformDomain, SweepConfig, UniformDomain
from cluster.sweep.space import bounded, corners, draw, grid, is_active, label, ordered, overrides
from scheduler.errors import ConfigError

POLICY, RATE = "stages.1.policy.type", "stages.1.policy.rate"


CONDITIONAL = {
    RATE: UniformDomain(low=0.1, high=0.5, step=0.2, when={POLICY: ("odm",)}),
    POLICY: ChoiceDomain(values=("heat", "odm")),
}


def test_a_grid_has_every_combination_and_conditional_keys_only_where_they_hold() -> None:
    found = list(grid(CONDITIONAL))
    assert [values[POLICY] for values in found] == ["heat", "odm", "odm", "odm"]
    assert [round(values[RATE], 9) for values in found if RATE in values] == [0.1, 0.3, 0.5]


def test_a_key_is_drawn_after_those_it_depends_on() -> None:
    assert ordered(CONDITIONAL) == [POLICY, RATE]


def test_a_circle_of_conditions_and_an_unknown_key_are_refused() -> None:
    circle = {
        "a": ChoiceDomain(values=(1,), when={"b": (1,)}),
        "b": ChoiceDomain(values=(1,), when={"a": (1,)}),
    }
    with pytest.raises(ConfigError, match="wait for one another"):
        ordered(circle)
    with pytest.raises(ConfigError, match=r"space\.a: `when` names b, which is not searched"):
        ordered({"a": circle["a"]})


def test_a_range_without_a_step_has_no_grid() -> None:
    with pytest.raises(ConfigError, match=r"space\.train\.learning_rate: a log_uniform has no end of values"):
        list(grid({"train.learning_rate": LogUniformDomain(low=1e-4, high=1e-2)}))


domains = st.one_of(
    st.lists(st.integers(), min_size=1, max_size=4, unique=True).map(lambda v: ChoiceDomain(values=tuple(v))),
    st.tuples(st.integers(-20, 20), st.integers(0, 30), st.integers(1, 7)).map(
        lambda t: IntegerDomain(low=t[0], high=t[0] + t[1], step=t[2])
    ),
    st.tuples(st.integers(1, 20), st.integers(0, 30)).map(
        lambda t: IntegerDomain(low=t[0], high=t[0] + t[1], log=True)
    ),
    st.tuples(st.floats(-5, 5), st.floats(0, 5), st.none() | st.floats(0.01, 1)).map(
        lambda t: UniformDomain(low=t[0], high=t[0] + t[1], step=t[2])
    ),
    st.tuples(st.floats(1e-6, 1), st.floats(1, 1e3)).map(lambda t: LogUniformDomain(low=t[0], high=t[0] * t[1])),
)


def lies_in(domain: Domain, value: Any) -> bool:
    if isinstance(domain, ChoiceDomain):
        return value in domain.values
    inside = domain.low - 1e-9 <= value <= domain.high + 1e-9
    step = domain.step if isinstance(domain, IntegerDomain | UniformDomain) else None
    return inside and (step is None or abs((value - domain.low) / step - round((value - domain.low) / step)) < 1e-6)


@given(domains, st.integers(0, 2**31), st.integers(0, 1000))
def test_what_is_drawn_lies_in_its_domain_and_is_drawn_again_the_same(domain: Domain, seed: int, trial: int) -> None:
    first = draw({"k": domain}, seed=seed, trial=trial)
    assert lies_in(domain, first["k"])
    assert draw({"k": domain, "other": ChoiceDomain(values=(1, 2))}, seed=seed, trial=trial)["k"] == first["k"]


@given(domains, st.floats(-100, 100))
def test_a_perturbed_value_is_brought_back_into_its_domain(domain: Domain, value: float) -> None:
    assert lies_in(domain, bounded(domain, value))


def test_corners_have_every_choice_and_both_ends_of_every_range() -> None:
    found = list(corners({**CONDITIONAL, "seed": IntegerDomain(low=1, high=9)}))
    assert {values[POLICY] for values in found} == {"heat", "odm"}
    assert {values["seed"] for values in found} == {1, 9}
    assert {values[RATE] for values in found if RATE in values} == {0.1, 0.5}
    for values in found:
        assert (RATE in values) == is_active(CONDITIONAL[RATE], values)


def test_values_become_overrides_that_mean_the_same() -> None:
    values = {"stages.1.policy": {"type": "odm", "rate": 0.3}, "model.path": "${HOME}/x", "train.learning_rate": 1e-05}
    found = overrides(values)
    assert found[0] == 'stages.1.policy={"type": "odm", "rate": 0.3}'
    assert found[1] == 'model.path="$${HOME}/x"'
    assert json.loads(found[2].partition("=")[2]) == 1e-05
    assert label(values) == "stages.1.policy=odm (rate 0.3), model.path=${HOME}/x, train.learning_rate=1e-05"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": {"seed": {"type": "integer", "low": 3, "high": 1}}}, "high 1 lies below low 3"),
        ({"space": {}}, "at least 1 item"),
        ({"objective": ["macro", "macro"]}, "names one more than once"),
        ({"schedule": {"type": "pb2", "every_steps": 10}}, "pb2 searches numbers only"),
        (
            {"schedule": {"type": "pbt", "every_steps": 10}, "search": {"type": "optuna", "trials": 4}},
            "chooses values itself",
        ),
        ({"schedule": {"type": "pbt", "every_steps": 10}, "space": CONDITIONAL}, "cannot follow `when`"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    base = {"run": "run.yaml", "space": {"seed": {"type": "choice", "values": [1]}}}
    with pytest.raises(ValidationError, match=re.escape(said)):
        SweepConfig.model_validate({**base, **settings})
