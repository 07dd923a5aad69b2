"""The setup beside the ledger: what an actor that comes back reads."""

from pathlib import Path

import pytest

from scheduler.errors import LedgerError
from scheduler.ledger import read_setup, write_setup
from tests.unit.scheduler.made import setup


def test_an_actor_finds_the_setup_of_its_run_beside_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger" / "ledger.jsonl"
    write_setup(ledger, setup(("a", "b")))
    write_setup(ledger, setup(("a", "b", "c")))
    assert read_setup(ledger) == setup(("a", "b", "c"))
    assert [file.name for file in ledger.parent.iterdir()] == ["setup.json"]


def test_a_setup_that_is_absent_or_damaged_is_named(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    with pytest.raises(LedgerError, match=r"setup\.json: no setup of an engine can be read here"):
        read_setup(ledger)
    write_setup(ledger, setup(("a", "b")))
    place = tmp_path / "setup.json"
    place.write_text(place.read_text()[:-9])
    with pytest.raises(LedgerError, match="start the run again"):
        read_setup(ledger)
