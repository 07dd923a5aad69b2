"""The mixture before any evidence."""

import pytest
from pydantic import ValidationError

from scheduler.errors import ConfigError
from scheduler.prior import prior_weights
from tests.unit.scheduler.made import setup


def shares(
    prior: dict, cards: dict | None = None, names: tuple[str, ...] = ("a", "b"), rows: tuple = (100, 400)
) -> list:
    return prior_weights(setup(names, prior=prior, cards=cards, num_rows=rows)).tolist()


def test_proportional_is_by_rows() -> None:
    assert shares({"type": "proportional"}) == pytest.approx([0.2, 0.8])


def test_uniform_ignores_rows() -> None:
    assert shares({"type": "uniform"}) == pytest.approx([0.5, 0.5])


def test_temperature_is_by_the_root_of_rows() -> None:
    assert shares({"type": "temperature", "tau": 2.0}) == pytest.approx([1 / 3, 2 / 3])


def test_temperature_one_is_proportional_and_a_huge_one_is_uniform() -> None:
    assert shares({"type": "temperature", "tau": 1.0}) == pytest.approx([0.2, 0.8])
    assert shares({"type": "temperature", "tau": 1e12}) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("unit", [1.0, 1e-320, 1e307])
def test_explicit_weights_count_by_their_proportions_in_any_unit(unit: float) -> None:
    assert shares({"type": "explicit", "weights": {"a": 9 * unit, "b": 3 * unit}}) == pytest.approx(
        [0.75, 0.25], rel=1e-3
    )


def test_a_task_left_out_of_explicit_weights_has_none() -> None:
    assert shares({"type": "explicit", "weights": {"b": 3}}) == [0.0, 1.0]


def test_a_base_weight_replaces_the_share_and_the_value_multiplies_it() -> None:
    cards = {"a": {"base_weight": 0.2}, "b": {"business_value": 3.0}}
    assert shares({"type": "proportional"}, cards) == pytest.approx([0.2 / 2.6, 2.4 / 2.6])


def test_explicit_weights_of_unknown_tasks_are_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"names \['c'\], which are not tasks of this run; the tasks are \['a', 'b'\]"
    ):
        shares({"type": "explicit", "weights": {"a": 1, "c": 1}})


def test_a_mixture_without_any_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="every task's weight is zero"):
        shares({"type": "explicit", "weights": {"a": 1}}, {"a": {"base_weight": 0}})


def test_weights_too_large_to_add_are_refused() -> None:
    with pytest.raises(ConfigError, match="give smaller numbers"):
        shares({"type": "uniform"}, {"a": {"base_weight": 1e308, "business_value": 1e10}})


@pytest.mark.parametrize("weights", [{"a": -1.0}, {"a": float("nan")}, {"a": float("inf")}, {"a": 0.0}, {}])
def test_explicit_weights_that_are_no_mixture_are_refused_when_the_settings_are_read(weights: dict) -> None:
    with pytest.raises(ValidationError):
        setup(("a", "b"), prior={"type": "explicit", "weights": weights})


def test_a_setup_with_two_tasks_of_one_name_or_without_rows_is_refused() -> None:
    with pytest.raises(ValidationError, match="more than once"):
        setup(("a", "b", "a"))
    with pytest.raises(ValidationError, match="no training row"):
        setup(("a", "b"), num_rows=(3, 0))
    with pytest.raises(ValidationError, match="3 entries for 2 tasks"):
        setup(("a", "b"), num_rows=(3, 3, 3))
