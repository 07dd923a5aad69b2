"""Reports are made again from ledger and manifest alone, and only of a run that has finished."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.config import RunConfig
from cluster.driver import Outcome
from cluster.finish import conclude, write_reports
from cluster.run_directory import RunDirectory
from evalsvc.report.schema import RunFacts
from scheduler.errors import RunDirectoryError
from scheduler.ledger import LedgerWriter
from tests.unit.evalsvc.report.simulated_run import FACTS, TASKS, TOTAL, simulated_records
from train.config import DataConfig, SourceConfig, TinyModel
from train.worker_job import WorkerResult


def run_directory(root: Path, *, status: str, facts: RunFacts | None = None) -> RunDirectory:
    """A run's directory as the driver leaves it, with the ledger of a simulated run."""
    directory = RunDirectory(root)
    (root / "model").mkdir(parents=True)
    ledger = LedgerWriter(directory.ledger)
    for record in simulated_records():
        ledger.append(record)
    ledger.close()
    fields = {"status": status} | ({} if facts is None else {"facts": asdict(facts)})
    directory.manifest.write_text(json.dumps(fields))
    return directory


def test_a_finished_run_gets_report_card_and_tables_and_gets_them_equal_again(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run", status="finished", facts=FACTS)
    report = write_reports(directory)
    written = [tmp_path / "run" / name for name in ("report.json", "report.html", "model/README.md")]
    first = [path.read_bytes() for path in written]
    found = json.loads(first[0])
    assert (list(found["tasks"]), found["num_steps"]) == (list(TASKS), TOTAL)
    assert list(directory.ledger.parent.glob("*.parquet"))
    for path in written:
        path.unlink()
    assert write_reports(directory) == report
    assert [path.read_bytes() for path in written] == first


def test_the_times_of_a_run_are_those_of_all_its_sessions_and_it_is_counted_which_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = run_directory(tmp_path / "run", status="running")
    directory.begin_session()
    directory.end_session({"actors": 1.5, "training": 60.25})
    directory.begin_session()
    directory.begin_session()
    directory.end_session({"actors": 2.0, "training": 30.5, "final test": 4.0})
    monkeypatch.setattr("cluster.finish._sources", lambda _: ())
    config = RunConfig(model=TinyModel(), data=DataConfig(sources=(SourceConfig(path=tmp_path / "rows.jsonl"),)))
    no_rows = {"train": (), "probe": (), "test": ()}
    inputs: Any = SimpleNamespace(prepared=SimpleNamespace(num_rows=no_rows, task_names=()), notes=())
    worker = WorkerResult(step=TOTAL, reason="finished", num_workers=1, train_s=30.5, plan_wait_s=0.0)
    report = conclude(config, directory, inputs, Outcome(worker=worker, num_workers=1, test=None))
    assert report.wall_seconds == {"actors": 3.5, "training": 90.75, "final test": 4.0}
    assert (report.num_sessions, report.num_untimed_sessions) == (3, 1)
    assert json.loads((directory.root / "report.json").read_text())["wall_seconds"]["training"] == 90.75
    assert "time (2 of 3 sessions): training" in (directory.root / "report.html").read_text()


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_a_run_that_has_not_finished_has_no_report_and_the_error_says_how_it_stands(
    status: str, tmp_path: Path
) -> None:
    directory = run_directory(tmp_path / "run", status=status)
    with pytest.raises(RunDirectoryError, match=rf"not the directory of a finished run \(status: {status}\)"):
        write_reports(directory)
    assert not (tmp_path / "run" / "report.html").exists()
