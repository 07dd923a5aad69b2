"""Runs inside this process: what is charged, what is equal, what a key depends on."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bench.policies import worlds
from bench.policies.arms import ARMS
from bench.policies.compute import affordable_steps
from bench.policies.local import play, rows_served
from bench.policies.runs import decisions_of, differ_in_the_engine_alone, key_of, run_world
from bench.policies.suites import REAL_SUITES
from bench.policies.trace import Trace
from cluster.config import RunConfig
from cluster.setup import Inputs, gather_inputs
from evalsvc.cost import Costs, costs
from scheduler import learnability, simplex, trend
from tests.tiny_tasks import write_tasks
from train.data.store import TokenStore

STEPS, INTERVAL = 12, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    write_tasks(path / "rows", num_rows=60)
    return path


def real_run(folder: Path, mixture: Mapping[str, Any]) -> tuple[RunConfig, Inputs]:
    sources = [str(path) for path in sorted((folder / "rows").glob("*.jsonl"))]
    config = RunConfig.model_validate(
        {
            "model": {"type": "tiny", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300},
            "data": {"sources": sources, "probes_per_task": 6, "selection_per_task": 6, "test_per_task": 6},
            "train": {"steps": STEPS, "global_batch_size": 6, "micro_batch_size": 3, "learning_rate": 0.02},
            "stages": [{"name": "tasks"}],
            "mixture": {"interval_steps": INTERVAL, **mixture},
            "evaluation": {"max_new_tokens": 4, "sampled_probes": 1, "samples_per_probe": 2},
            "output": {"dir": str(folder / "out")},
        }
    )
    return config, gather_inputs(config)


def without_clock(trace: Trace) -> dict[str, Any]:
    fields = {name: getattr(trace, name) for name in Trace.__slots__ if name != "cpu_s"}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}


def test_equal_runs_are_equal_and_the_engine_moves_the_weights_of_a_real_run(folder: Path) -> None:
    config, inputs = real_run(folder, {"policy": {"type": "exp3", "rate": 3.0}})
    first, second = (play(config, inputs, random_tasks=("noise",)) for _ in range(2))
    assert without_clock(first) == without_clock(second)
    assert first.weights.shape == (STEPS // INTERVAL, 3)
    assert np.abs(np.diff(first.weights, axis=0)).sum() > 0.01
    assert (first.weights[0] == first.weights[1]).all(), "the first evaluation takes effect an interval later"
    assert first.given_up is not None
    assert first.given_up.shape == first.weights.shape


def test_a_scripted_run_is_the_run_of_the_engine_that_gives_the_same_weights(folder: Path) -> None:
    config, inputs = real_run(folder, {"policy": {"type": "static"}, "prior": {"type": "uniform"}})
    engine = play(config, inputs, random_tasks=())
    script = play(config, inputs, random_tasks=(), script=[np.full(3, 1 / 3)])
    assert engine.test == script.test
    assert [score for _, score in engine.curve] == [score for _, score in script.curve]
    assert engine.train_units == script.train_units
    assert script.probe_units == 0.0 < engine.probe_units


def test_a_run_is_that_of_every_arm_whose_engine_decides_the_same_and_of_no_other(folder: Path) -> None:
    heat = {"policy": {"type": "heat", "strength": 20.0}, "prior": {"type": "uniform"}}
    config, inputs = real_run(folder, heat)
    arms = {
        "no-core-hold": {**heat, "guards": {"hold_core": False}},  # there is no core task to hold
        "no-step-limit": {**heat, "guards": {"max_change": 1.0, "late_max_change": 1.0}},
        "other-start": {
            "policy": {"type": "heat"},
            "prior": {"type": "explicit", "weights": {"copy": 3.0, "last": 1.0, "noise": 1.0}},
        },
        "other-probes": {**heat, "allocation": {"type": "uniform", "probes_per_task": 2}},
    }
    runs = {name: real_run(folder, mixture) for name, mixture in arms.items()}
    shadows = {name: its_inputs.engine for name, (_, its_inputs) in runs.items()}
    trace = play(config, inputs, random_tasks=("noise",), shadows=shadows)
    assert trace.alike == ("no-core-hold",)
    own = {name: without_clock(play(*run, random_tasks=("noise",))) for name, run in runs.items()}
    assert [name for name, other in own.items() if other == {**without_clock(trace), "alike": ()}] == ["no-core-hold"]


def test_two_scripts_are_one_run_where_they_serve_the_same_rows(folder: Path) -> None:
    _, inputs = real_run(folder, {})
    even, other = np.full(3, 1 / 3), np.array([0.5, 0.25, 0.25])
    rounded = np.array([16.0, 16.0, 16.0]) / 48.0000000001
    served = [rows_served(script, inputs.engine) for script in ([even], [rounded], [other], [even, other])]
    assert served[0] == served[1]
    assert len(set(served)) == 3


def test_tokens_trained_are_counted_as_the_rows_of_the_stream_have_them(folder: Path) -> None:
    config, inputs = real_run(folder, {})
    trace = play(config, inputs, random_tasks=(), script=[np.array([1.0, 0.0, 0.0])])
    lengths = TokenStore.open(inputs.prepared.store_path).lengths(0)
    drawn = STEPS * config.train.global_batch_size
    assert drawn * lengths.min() <= trace.train_units <= drawn * lengths.max()


@pytest.mark.parametrize("probes_per_task", [None, 2])
def test_probes_are_expected_to_cost_about_what_they_cost(folder: Path, probes_per_task: int | None) -> None:
    config, inputs = real_run(folder, {"allocation": {"type": "uniform", "probes_per_task": probes_per_task}})
    store = TokenStore.open(inputs.prepared.store_path)
    found = costs(store, inputs.tasks, batch_size=6, evaluation=config.evaluation, probes_per_task=probes_per_task)
    trace = play(config, inputs, random_tasks=())
    evaluations = STEPS / INTERVAL
    assert trace.train_units == pytest.approx(STEPS * found.step, rel=0.1)
    assert trace.probe_units == pytest.approx(evaluations * found.evaluation, rel=0.5)


def test_random_labels_are_recognised_where_the_engine_first_gives_up_all_of_them() -> None:
    given_up = np.array([[True, False], [True, True], [False, True], [True, True]])
    trace = Trace(
        tasks=("a", "b"),
        random_tasks=("a", "b"),
        num_steps=[10] * 4,
        weights=np.full((4, 2), 0.5),
        given_up=given_up,
        floor=0.1,
        curve=[],
        train_units=1.0,
        probe_units=0.0,
        selection={},
        test={},
        cpu_s=0.0,
    )
    assert trace.outcome(suite="symbols", arm="heat", seed=0).recognised_at == pytest.approx(0.25)


def test_steps_and_evaluations_together_cost_no_more_than_the_budget() -> None:
    found = Costs(step=10.0, evaluation=50.0)
    steps = affordable_steps(found, steps=100, interval=20)
    assert steps * 10 + -(-steps // 20) * 50 <= 1000 < (steps + 1) * 10 + -(-(steps + 1) // 20) * 50
    assert affordable_steps(Costs(step=10.0, evaluation=0.0), steps=100, interval=20) == 100


def test_a_world_is_drawn_by_its_seed_and_its_arms_share_it() -> None:
    assert worlds.draw_world(3) == worlds.draw_world(3) != worlds.draw_world(4)
    arms = ["uniform", "heat", "random-walk", "time-average"]
    first, second = run_world(3, arms), run_world(3, arms)
    assert [one.test for one in first] == [one.test for one in second]
    by_arm = {one.arm: one for one in first}
    heat, average = by_arm["heat"], by_arm["time-average"]
    assert average.mean_weights == pytest.approx(heat.mean_weights)
    assert by_arm["random-walk"].first_weights == pytest.approx(heat.first_weights)
    assert heat.train_units + heat.probe_units <= by_arm["uniform"].train_units


@pytest.mark.parametrize(
    ("arm", "other", "expected"),
    [
        ("heat", "heat-no-floor", True),
        ("heat-no-decay", "heat-uniform", True),
        ("heat", "exp3", False),  # other answers are sampled
        ("heat", "heat-all-probes", False),
    ],
)
def test_arms_whose_engines_alone_differ_may_have_one_run(arm: str, other: str, expected: bool) -> None:
    one, two = (REAL_SUITES["symbols"].config(ARMS[name], seed=0, folder=Path(), quick=False) for name in (arm, other))
    assert differ_in_the_engine_alone(one, two) == expected


@pytest.mark.parametrize("suite", [worlds.NAME, *REAL_SUITES])
def test_every_run_has_a_key_of_its_own_and_controls_follow_their_heat_run(suite: str) -> None:
    keys = [key_of(suite, arm, seed, quick=False, heat="h") for arm in ARMS for seed in (0, 1)]
    assert len(set(keys)) == len(keys)
    assert key_of(suite, "random-walk", 0, quick=False, heat="other") not in keys
    assert key_of(suite, "uniform", 0, quick=False, heat="other") in keys


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """What the engine decides with a constant of one of its modules changed."""

    def found(module: ModuleType | None = None, name: str = "", value: float = 0.0) -> str:
        decisions_of.cache_clear()
        with monkeypatch.context() as patch:
            if module is not None:
                patch.setattr(module, name, value)
            return decisions_of("heat")

    yield found
    decisions_of.cache_clear()


def test_another_way_to_the_same_decisions_runs_nothing_again(decisions: Callable[..., str]) -> None:
    assert decisions() == decisions() == decisions(simplex, "_NEWTON_STEPS", 0)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(learnability, "_BREAK", 3.0), (learnability, "_PRIOR_SIGMA", 0.031), (trend, "_SLOPE_NOISE", 0.02**2 * 1.01)],
)
def test_a_formula_that_moves_decisions_runs_the_engines_arms_again(
    decisions: Callable[..., str], module: ModuleType, name: str, value: float
) -> None:
    assert decisions(module, name, value) != decisions()
