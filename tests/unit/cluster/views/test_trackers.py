import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from cluster.views.scalars import ScalarStream
from cluster.views.trackers import Trackers, check_trackers, without_user_info
from scheduler.errors import ConfigError
from tests.unit.evalsvc.report.simulated_run import simulated_records

RECORDS = simulated_records()


def told() -> dict[tuple[str, int], float]:
    """What every tracker must hold at the end: the last telling of each tag and step."""
    stream = ScalarStream()
    scalars = [found for record in RECORDS if (found := stream.observe(record)) is not None]
    return {(tag, found.step): value for found in scalars for tag, value in found.values.items()}


def tell(trackers: Trackers) -> None:
    for record in RECORDS:
        trackers.observe(record)
    trackers.close()


def test_mlflow_holds_every_value_goes_on_with_a_run_and_is_given_up_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test: MLflow takes seconds to make a database."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell(Trackers(["mlflow"], run="demo", folder=tmp_path / "metrics"))
    again = Trackers(["mlflow"], run="demo", folder=tmp_path / "metrics")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/metrics/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("taskheat").experiment_id])
    expected = told()
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")
    assert run.data.metrics.keys() == {tag for tag, _ in expected}
    for tag in ("score/lcr", "heat/lcr", "weights/lcr", "stage"):
        history = {(tag, metric.step): metric.value for metric in client.get_metric_history(run.info.run_id, tag)}
        assert history == {place: value for place, value in expected.items() if place[0] == tag}
    client.delete_run(run.info.run_id)  # MLflow takes nothing for a deleted run
    tell(again)
    assert capsys.readouterr().err.count("note: mlflow is given up for this run: ") == 1


def test_an_mlflow_that_is_not_there_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/no/such/folder.db")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_MAX_RETRIES", "0")
    (tmp_path / "no").touch()
    with pytest.raises(ConfigError, match=r"mlflow cannot be opened at sqlite:.*; correct MLFLOW_TRACKING_URI"):
        Trackers(["mlflow"], run="demo", folder=tmp_path)


class FakeMlflowError(Exception):
    """As MLflow's own: no OSError."""


def stand_in_mlflow(monkeypatch: pytest.MonkeyPatch, client: type) -> None:
    """A package `mlflow` with this client, for what goes wrong only with a server."""
    parts = {"mlflow": {"MlflowClient": client}, "mlflow.entities": {"Metric": lambda *values: values}}
    for name, members in {**parts, "mlflow.exceptions": {"MlflowException": FakeMlflowError}}.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)


class FailingClient:
    """Opens a run, and fails in what `fails` names."""

    fails: tuple[str, ...] = ()

    def __init__(self, tracking_uri: str) -> None:
        self.address = tracking_uri

    def _answer(self, method: str, answer: object = None) -> object:
        if method in self.fails:
            raise FakeMlflowError(f"API request to {self.address} failed")
        return answer

    def get_experiment_by_name(self, _: str) -> object:
        return self._answer("get_experiment_by_name", SimpleNamespace(experiment_id="1"))

    def search_runs(self, *_: object, **__: object) -> object:
        return [SimpleNamespace(info=SimpleNamespace(run_id="1"))]

    def log_batch(self, *_: object, **__: object) -> object:
        return self._answer("log_batch")

    def set_terminated(self, _: str) -> object:
        return self._answer("set_terminated")


@pytest.mark.parametrize("fails", ["log_batch", "set_terminated"])
def test_a_tracker_that_fails_at_any_time_is_given_up_once_and_costs_no_run(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in_mlflow(monkeypatch, type("Client", (FailingClient,), {"fails": (fails,)}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://somebody:s3cret@mlflow.example/api")
    tell(Trackers(["mlflow"], run="demo", folder=tmp_path))
    said = "note: mlflow is given up for this run: API request to https://mlflow.example/api failed\n"
    assert capsys.readouterr().err == said


def test_an_address_is_told_without_its_user_and_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_mlflow(monkeypatch, type("Client", (FailingClient,), {"fails": ("get_experiment_by_name",)}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://somebody:s3cret@db:5432/mlflow")
    with pytest.raises(ConfigError) as caught:
        Trackers(["mlflow"], run="demo", folder=tmp_path)
    assert str(caught.value) == (
        "launch.trackers: mlflow cannot be opened at postgresql://db:5432/mlflow (API request to "
        "postgresql://db:5432/mlflow failed); correct MLFLOW_TRACKING_URI"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://u:p@ss/w@db/x", "postgresql+psycopg2://db/x"),
        ("no token@https://host and https://token@host", "no token@https://host and https://host"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_user_info_is_removed_from_urls_and_from_nothing_else(text: str, shown: str) -> None:
    assert without_user_info(text) == shown


TELL = """
import sys
from pathlib import Path
from tests.unit.cluster.views.test_trackers import tell
from cluster.views.trackers import Trackers
tell(Trackers([sys.argv[1]], run="demo", folder=Path(sys.argv[2])))
"""


def tell_elsewhere(tracker: str, folder: Path, **environment: str) -> None:
    """In a process of its own: these trackers read their environment when they are imported, and start threads."""
    subprocess.run(
        [sys.executable, "-c", TELL, tracker, str(folder)],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "HF_HUB_OFFLINE": "1", **environment},
        check=True,
        timeout=120,
        capture_output=True,
    )


def test_trackio_holds_every_value_in_its_own_store(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    tell_elsewhere("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    read = """
import sys
from trackio.sqlite_storage import SQLiteStorage
for row in SQLiteStorage.get_logs("taskheat", "demo"):
    print(row["step"], row.get("score/lcr", "-"), sep=",")
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", read], env=environment, check=True, timeout=60, capture_output=True, text=True
    )
    rows = [line.split(",") for line in done.stdout.splitlines() if not line.endswith("-")]
    found = {("score/lcr", int(step)): float(value) for step, value in rows}
    assert found == {place: value for place, value in told().items() if place[0] == "score/lcr"}


def test_wandb_writes_every_value_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    tell_elsewhere("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    [written] = tmp_path.glob("wandb/offline-run-*-demo/run-demo.wandb")
    content = written.read_bytes()
    assert all(tag.encode() in content for tag, _ in told())


def test_a_tracker_that_is_not_installed_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigError, match=r"wandb is not installed; pip install 'taskheat\[wandb\]'"):
        check_trackers(["wandb"])
