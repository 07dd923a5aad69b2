"""Before anything starts every trial is known to load; what does not is named with its key and value."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.config import LaunchConfig, RunConfig, StageLaunch
from cluster.manifests.config import ClusterConfig, GroupConfig
from cluster.settings import dump_config, load_config
from cluster.sweep import execute
from cluster.sweep.config import SweepConfig
from cluster.sweep.directory import SweepDirectory, TrialSpec
from cluster.sweep.optuna_search import OptunaSearcher
from cluster.sweep.outcome import winner_text
from cluster.sweep.results import SweepResults, best_of, gather_results, trial_result
from cluster.sweep.room import concurrency
from cluster.sweep.trials import plan_trials, planned_steps
from cluster.sweep.tuning import check_pb2, within
from scheduler.errors import ConfigError, RunDirectoryError
from tests.unit.train.local_run import local_run, small_tasks

BOUNDARY, POLICY = "stages.0.until.step", "stages.1.policy.type"
SPACE: dict[str, Any] = {BOUNDARY: {"values": [20, 30]}, POLICY: {"values": ["heat", "static"]}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    run = local_run(
        folder,
        "run",
        small_tasks(folder),
        train={"steps": 40},
        mixture={"interval_steps": 5},
        stages=[{"name": "a", "until": {"type": "step", "step": 20}}, {"name": "b"}],
    )
    file = folder / "run.yaml"
    file.write_text(dump_config(run.config), encoding="utf-8")
    return file


def loaded(folder: Path, asked: dict[str, Any]) -> SweepConfig:
    """As from a file."""
    file = folder / "sweep.yaml"
    file.write_text(json.dumps(asked), encoding="utf-8")
    return load_config(SweepConfig, files=[file])


def swept(tmp_path: Path, base: Path, **settings: Any) -> tuple[SweepConfig, SweepDirectory]:
    asked = {"run": str(base), "space": SPACE, "output": {"dir": str(tmp_path), "name": "s"}, **settings}
    config = loaded(tmp_path, asked)
    run = load_config(RunConfig, files=config.run, overrides=config.overrides)
    return config, SweepDirectory.create(config, config.output, base=run, launch=LaunchConfig())


def test_a_grid_is_planned_with_its_trunk_first_and_remembered(tmp_path: Path, base: Path) -> None:
    config, directory = swept(tmp_path, base)
    specs, unshared = plan_trials(config, directory)
    assert [spec.name for spec in specs] == ["trunk-000", *(f"trial-00{n}" for n in range(4))]
    assert [spec.origin for spec in specs[1:]] == [("trunk-000", 15)] * 2 + [("trunk-000", 25)] * 2
    assert (planned_steps(specs, directory), unshared) == (25 + 25 + 25 + 15 + 15, 160)
    trunk = directory.trial_config(specs[0])
    assert (trunk.train.stop_after, trunk.train.checkpoint_at) == (25, (15, 25))
    directory.plan(specs)
    assert list(SweepDirectory.reopen(directory.root).planned().values()) == specs
    assert directory.config().space == config.space


def test_without_sharing_every_trial_begins_at_step_0(tmp_path: Path, base: Path) -> None:
    config, directory = swept(tmp_path, base, share_prefix=False)
    specs, _ = plan_trials(config, directory)
    assert [spec.origin for spec in specs] == [None] * 4


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"train.lr": {"values": [1]}}, "trial-000 (train.lr=1) is no valid run because of space.train.lr = 1"),
        ({BOUNDARY: {"values": [20, 50]}}, "trial-001 (stages.0.until.step=50) is no valid run because of"),
        ({POLICY: {"values": ["heat", "warm"]}}, "because of space.stages.1.policy.type = warm"),
        (
            {POLICY: {"values": ["odm", "heat"]}, "stages.1.policy.rate": {"values": [0.2]}},
            "trial-001 (stages.1.policy.type=heat, stages.1.policy.rate=0.2) is no valid run",
        ),
        ({"mixture.prior": {"values": [{"type": "explicit", "weights": {"nobody": 1}}]}}, "cannot be trained: "),
    ],
)
def test_a_trial_that_does_not_load_is_named_with_key_and_value(
    space: dict[str, Any], said: str, tmp_path: Path, base: Path
) -> None:
    config, directory = swept(tmp_path, base, space=space)
    with pytest.raises(ConfigError) as caught:
        plan_trials(config, directory)
    assert said in str(caught.value)


def test_the_corners_of_a_space_are_tried_before_optuna_draws_from_it(tmp_path: Path, base: Path) -> None:
    rate = {"type": "uniform", "low": 0.1, "high": 2.0, "when": {POLICY: "odm"}}
    space = {POLICY: {"values": ["heat", "odm"]}, "stages.1.policy.rate": rate}
    config, directory = swept(tmp_path, base, space=space, search={"type": "optuna", "trials": 5})
    with pytest.raises(ConfigError, match=r"because of space\.stages\.1\.policy\.rate = 2\.0"):
        plan_trials(config, directory)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": {"seed": {"values": [1, 2]}}}, "space.seed: schedule.type pbt changes values while a run goes on"),
        ({"schedule": {"type": "pbt", "every_steps": 7}}, "every_steps 7: give a multiple of the interval of 5"),
        (
            {"schedule": {"type": "pb2", "every_steps": 20}},
            "every_steps 20: pb2 has gains to learn from only",
        ),
        ({"search": {"type": "random", "trials": 1}}, "needs at least two trials"),
    ],
)
def test_a_population_that_could_not_clone_is_refused(
    settings: dict[str, Any], said: str, tmp_path: Path, base: Path
) -> None:
    asked = {
        "space": {"train.learning_rate": {"type": "log_uniform", "low": 0.001, "high": 0.1}},
        "search": {"type": "random", "trials": 4},
        "schedule": {"type": "pbt", "every_steps": 10},
    }
    config, directory = swept(tmp_path, base, **{**asked, **settings})
    with pytest.raises(ConfigError, match=said):
        plan_trials(config, directory)


def test_pb2_without_scikit_learn_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else name)
    with pytest.raises(ConfigError, match="pb2 needs the package scikit-learn, which is not installed"):
        check_pb2()


def test_a_folder_in_use_and_one_that_is_no_sweep_are_refused(tmp_path: Path, base: Path) -> None:
    swept(tmp_path, base)
    with pytest.raises(RunDirectoryError, match="taskheat sweep --resume"):
        swept(tmp_path, base)
    with pytest.raises(RunDirectoryError, match="not the directory of a sweep that was planned"):
        SweepDirectory.reopen(tmp_path / "s")


def test_results_are_read_from_the_runs_and_the_winner_is_a_config_to_run(tmp_path: Path, base: Path) -> None:
    config, directory = swept(tmp_path, base, objective=["worst", "macro"])
    specs, _ = plan_trials(config, directory)
    directory.plan(specs)
    before = gather_results(directory, config)
    assert {trial.status for trial in before.trials} == {"not started"}
    assert before.winner is None
    trial = local_run(directory.trials, "trial-002", small_tasks(tmp_path / "tasks"))
    trial.start()
    run = directory.run("trial-002")
    run.config.write_text(dump_config(directory.trial_config(specs[3])), encoding="utf-8")
    run.update_manifest(status="finished")
    results = gather_results(directory, config)
    assert results.best == ("trial-002",)
    winner = results.winner
    assert winner is not None
    assert (winner.step, winner.num_steps, winner.origin) == (14, 14, None)
    assert winner.objectives["worst"].value == min(score.value for score in winner.scores.values())
    text = winner_text(winner, directory.base(), config)
    file = tmp_path / "winner.yaml"
    file.write_text(text, encoding="utf-8")
    again = load_config(RunConfig, files=[file])
    assert again.stages[0].until == directory.trial_config(specs[3]).stages[0].until
    assert (again.output.name, again.train.checkpoint_at) == (None, ())


def test_selection_rows_decide_where_there_are_any(tmp_path: Path) -> None:
    trial = local_run(tmp_path, "t", small_tasks(tmp_path))
    trial.start()
    from cluster.run_directory import RunDirectory

    run = RunDirectory(trial.folder)
    selection = [{"task": name, "num_rows": 9, "score": 0.25, "loss": 1.0} for name in ("copy", "last", "noise")]
    run.update_manifest(status="finished", selection=selection)
    found = trial_result(run, name="t", values={}, names=("macro",))
    assert (found.measured_on, found.objectives["macro"].value) == ("selection", 0.25)
    assert best_of([found], ("macro",)) == ("t",)


def test_a_member_is_kept_within_its_space_and_only_there(tmp_path: Path, base: Path) -> None:
    space = {"train.learning_rate": {"type": "uniform", "low": 0.1, "high": 0.2}}
    config, _ = swept(tmp_path, base, space=space)
    assert within(config.space, {"train.learning_rate": 0.5, "trial": "x"}) == {
        "train.learning_rate": 0.2,
        "trial": "x",
    }


def test_as_many_trials_run_at_once_as_the_cluster_holds() -> None:
    assert concurrency(LaunchConfig(num_workers=1), {"CPU": 4.0}) == 4
    assert concurrency(LaunchConfig(num_workers=2), {"CPU": 3.0}) == 1
    assert concurrency(LaunchConfig(num_workers=1, cpus_per_worker=0.3), {"CPU": 2.0}) == 6
    assert concurrency(LaunchConfig(), {"CPU": 1.0}) == 1
    assert concurrency(LaunchConfig(num_workers=1), {"CPU": 8.0, "GPU": 2.0}) == 2
    assert concurrency(LaunchConfig(num_workers=1, stages=(StageLaunch(), StageLaunch(num_workers=4))), {"CPU": 8}) == 2


def test_a_cluster_that_grows_is_counted_as_large_as_it_may_become() -> None:
    groups = (GroupConfig(name="workers", cpus=4, min_nodes=0, max_nodes=3),)
    launch = LaunchConfig(address="auto", num_workers=2, cluster=ClusterConfig(groups=groups))
    assert concurrency(launch, {"CPU": 0.0}) == 6
    assert concurrency(launch, {"CPU": 40.0}) == 20
    assert concurrency(launch.model_copy(update={"address": None}), {"CPU": 4.0}) == 2


def test_a_search_that_goes_on_gives_no_name_twice_though_a_trial_in_between_never_began(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    space = {"train.learning_rate": {"type": "log_uniform", "low": 0.001, "high": 0.1}}
    config, directory = swept(tmp_path, base, space=space, search={"type": "optuna", "trials": 7})
    assert config.search.type == "optuna"
    values = {"train.learning_rate": 0.01}
    runs = {name: directory.run(name) for name in ("trial-000", "trial-001", "trial-002", "trial-004")}
    begun = [
        replace(trial_result(run, name=name, values=values, names=("macro",)), status="finished")
        for name, run in runs.items()
    ]
    found = SweepResults(trials=tuple(begun), trunks=(), best=())
    monkeypatch.setattr(execute, "gather_results", lambda *_: found)
    monkeypatch.setattr(execute, "run_named", lambda *_, **__: None)
    monkeypatch.setattr(execute, "_fit", lambda *_: None)
    searchers: list[OptunaSearcher] = []
    monkeypatch.setattr(execute, "tuner_of_search", lambda _, searcher, **__: searchers.append(searcher))
    execute._run_search(directory, config, config.search, 1, print)
    [searcher] = searchers
    named = [searcher.suggest(str(number)) for number in range(4)]
    assert [one if one == "FINISHED" else one["trial"] for one in named] == [
        "trial-005", "trial-006", "trial-007", "FINISHED",
    ]  # fmt: skip


def test_optuna_follows_conditions_and_learns_of_trials_that_finished_before(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    config = loaded(
        tmp_path,
        {
            "run": "r.yaml",
            "space": {
                "stages.1.policy.rate": {"type": "uniform", "low": 0.1, "high": 1.0, "when": {POLICY: "odm"}},
                POLICY: {"values": ["heat", "odm"]},
                "mixture.prior": {"values": [{"type": "uniform"}, {"type": "proportional"}]},
            },
            "search": {"type": "optuna", "trials": 6},
        },
    )
    assert config.search.type == "optuna"
    searcher = OptunaSearcher(
        sweep="x", space=config.space, search=config.search, objective=("macro",), first_number=2, num_trials=4
    )
    searcher.know({POLICY: "odm", "stages.1.policy.rate": 0.4, "mixture.prior": {"type": "proportional"}}, [0.5])
    suggested = []
    for number in range(4):
        asked = searcher.suggest(str(number))
        suggested.append(asked)
        assert ("stages.1.policy.rate" in asked["values"]) == (asked["values"][POLICY] == "odm")
        searcher.on_trial_complete(str(number), {"macro": 0.1 * number} if number else None, error=not number)
    assert [asked["trial"] for asked in suggested] == [f"trial-00{number}" for number in range(2, 6)]
    assert searcher.suggest("4") == "FINISHED"
    json.dumps(suggested)


def test_a_trial_name_never_leaves_its_folder(tmp_path: Path, base: Path) -> None:
    _, directory = swept(tmp_path, base)
    run = directory.trial_config(TrialSpec("trial-007", {BOUNDARY: 20}))
    assert run.output.dir / str(run.output.name) == directory.trials / "trial-007"
