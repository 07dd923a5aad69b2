"""What a trial tells Tune while it trains is what its ledger says, each evaluation once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import tune

from cluster.config import LaunchConfig
from cluster.manifests.config import ClusterConfig, GroupConfig
from cluster.sweep import trainable
from cluster.sweep.config import SweepConfig
from cluster.sweep.directory import SweepDirectory
from cluster.sweep.objective import Score
from cluster.sweep.results import objectives_of, trial_result
from cluster.sweep.trainable import Evaluations, leg_name, member_name
from cluster.sweep.tuning import Notices
from evalsvc.report.history import RunHistory
from scheduler.errors import ResourceError
from scheduler.ledger import read_ledger
from tests.unit.cluster.sweep.configs import run_config
from tests.unit.train.local_run import CrashError, Disturbances, LocalRun, local_run, small_tasks


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """Trained to step 9, then again from its checkpoint at 6 to the end."""
    folder = tmp_path_factory.mktemp("trial")
    run = local_run(folder, "run", small_tasks(folder))
    with pytest.raises(CrashError):
        run.start(Disturbances(crash_at=9))
    run.start()
    return run


def test_every_evaluation_is_told_once_though_a_restart_repeats_some(crashed: LocalRun) -> None:
    evaluations = Evaluations(("macro", "worst"))
    told = [found for record in read_ledger(crashed.ledger) if (found := evaluations.concluded(record)) is not None]
    assert [step for step, _ in told] == [0, 3, 6, 9, 12]
    history = RunHistory.of(read_ledger(crashed.ledger))
    for step, objectives in told:
        signals = {task: one for task, all_of in history.signals.items() for one in all_of if one.step == step}
        scores = {task: Score(signal.score, signal.num_probes) for task, signal in signals.items()}
        expected = objectives_of(scores, history.run_setup.tasks, ("macro", "worst"))
        assert objectives == {name: estimate.value for name, estimate in expected.items()}


def test_the_end_of_a_trial_is_its_last_evaluation(crashed: LocalRun, tmp_path: Path) -> None:
    from cluster.run_directory import RunDirectory

    found = trial_result(RunDirectory(crashed.folder), name="t", values={}, names=("macro",))
    assert (found.step, found.status) == (14, "unfinished")
    last = {task: all_of[-1].score for task, all_of in RunHistory.of(read_ledger(crashed.ledger)).signals.items()}
    assert {task: score.value for task, score in found.scores.items()} == last
    nothing = trial_result(RunDirectory(tmp_path / "none"), name="t", values={}, names=("macro",))
    assert (nothing.status, nothing.objectives) == ("not started", {})


def test_a_member_is_known_by_tunes_number_of_it() -> None:
    assert [member_name(one) for one in ("0b524_00000", "0b524_00012")] == ["trial-000", "trial-012"]


def test_a_leg_is_gone_on_with_only_from_the_same_beginning_under_the_same_values(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    pointer = {"run": "/runs/donor", "step": 80}
    values = {"train.learning_rate": 0.1}
    assert leg_name(directory, "trial-001", values, None) == "trial-001"
    name = leg_name(directory, "trial-001", values, pointer)
    assert name == "trial-001-from-000080"
    run = directory.run(name)
    run.ledger.parent.mkdir(parents=True)
    run.ledger.touch()
    run.update_manifest(forked_from=pointer, sweep={"trial": "trial-001", "values": values})
    assert leg_name(directory, "trial-001", values, pointer) == name
    assert leg_name(directory, "trial-001", {"train.learning_rate": 0.2}, pointer) == f"{name}-2"
    assert leg_name(directory, "trial-001", values, {"run": "/runs/other", "step": 80}) == f"{name}-2"


def test_the_log_says_of_a_member_whether_it_goes_on_with_its_own_run_or_clones_anothers(tmp_path: Path) -> None:
    config = SweepConfig.model_validate(
        {
            "run": ["run.yaml"],
            "space": {"train.learning_rate": {"type": "log_uniform", "low": 1e-4, "high": 1e-2}},
            "search": {"type": "random", "trials": 2},
            "schedule": {"type": "pbt", "every_steps": 40},
            "output": {"dir": tmp_path, "name": "sweep"},
        }
    )
    run = run_config(output={"dir": tmp_path / "runs"})
    directory = SweepDirectory.create(config, config.output, base=run, launch=LaunchConfig())
    for member in ("trial-000", "trial-001"):
        directory.run(member).root.mkdir()
        directory.run(member).update_manifest(sweep={"trial": member, "values": {}})
    said: list[str] = []

    def start(*, donor: str | None) -> None:
        folder = tmp_path / f"checkpoint of {donor}"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"run": str(directory.run(donor or "").root), "step": 40}))
        checkpoint = None if donor is None else tune.Checkpoint.from_directory(folder)
        member = {"train.learning_rate": 0.0025, "sweep": "elsewhere"}
        trial = SimpleNamespace(trial_id="0b524_00001", config=member, checkpoint=checkpoint)
        Notices(directory, said.append).on_trial_start(0, [], trial)

    for donor in (None, "trial-001", "trial-000"):
        start(donor=donor)
    assert said == [
        "trial-001 starts",
        "trial-001 goes on at step 40",
        "trial-001 clones trial-000 at step 40, and goes on with train.learning_rate=0.0025",
    ]


def on_an_empty_cluster(folder: Path, monkeypatch: pytest.MonkeyPatch, *, address: str | None) -> SweepDirectory:
    """A sweep whose cluster has no nodes yet; with an address they come when they are asked for."""
    space = {"train.learning_rate": {"type": "choice", "values": [0.1]}}
    output = {"dir": folder, "name": "sweep"}
    config = SweepConfig.model_validate({"run": ["run.yaml"], "space": space, "output": output})
    groups = (GroupConfig(name="workers", cpus=4, min_nodes=0, max_nodes=3),)
    launch = LaunchConfig(address=address, num_workers=2, cluster=ClusterConfig(groups=groups))
    monkeypatch.setattr(trainable.ray, "cluster_resources", dict)
    monkeypatch.setattr(trainable.ray, "available_resources", dict)
    base = run_config(output={"dir": folder / "runs", "name": "trial-000"})
    return SweepDirectory.create(config, config.output, base=base, launch=launch)


@pytest.mark.parametrize("address", [None, "auto"])
def test_a_trial_without_room_is_refused_at_once_unless_the_cluster_grows(
    address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = on_an_empty_cluster(tmp_path, monkeypatch, address=address)
    started: list[LaunchConfig] = []
    monkeypatch.setattr(trainable, "start_run", lambda _, launch, **__: started.append(launch))
    if address is None:
        with pytest.raises(ResourceError, match="not enough free resources"):
            trainable._train(directory, directory.base(), None, lambda _: None)
        assert started == []
    else:
        trainable._train(directory, directory.base(), None, lambda _: None)
        assert started == [directory.launch()]


def test_a_trial_that_a_growing_cluster_could_never_hold_does_not_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ResourceError("2 x (9 CPU) do not fit")

    directory = on_an_empty_cluster(tmp_path, monkeypatch, address="auto")
    monkeypatch.setattr(trainable, "start_run", refuse)
    monkeypatch.setattr(trainable.time, "sleep", lambda _: pytest.fail("it waited"))
    with pytest.raises(ResourceError, match="do not fit"):
        trainable._train(directory, directory.base(), None, lambda _: None)
