"""Reports are made again from ledger and manifest alone, and only of a run that has finished."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster.finish import write_reports
from cluster.run_directory import RunDirectory
from evalsvc.report.schema import RunFacts
from scheduler.errors import RunDirectoryError
from scheduler.ledger import LedgerWriter
from tests.unit.evalsvc.report.simulated_run import FACTS, TASKS, TOTAL, simulated_records


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


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_a_run_that_has_not_finished_has_no_report_and_the_error_says_how_it_stands(
    status: str, tmp_path: Path
) -> None:
    directory = run_directory(tmp_path / "run", status=status)
    with pytest.raises(RunDirectoryError, match=rf"not the directory of a finished run \(status: {status}\)"):
        write_reports(directory)
    assert not (tmp_path / "run" / "report.html").exists()
