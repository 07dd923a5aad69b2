"""Ledgers that are not this run's, not this version's, forged, damaged or not there at all."""

import dataclasses
from pathlib import Path

import pytest

from scheduler.errors import LedgerError, ReplayMismatchError, StateError
from scheduler.keeper import HeatKeeper, replay
from scheduler.ledger import LedgerWriter, read_ledger
from scheduler.records import RestartRecord, RunRecord, SignalRecord, SkippedRecord
from tests.unit.scheduler.made import setup, signal
from tests.unit.scheduler.test_keeper import opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_another_configuration_is_refused_and_the_ledger_left_alone(path: Path) -> None:
    opened(path)
    path.write_bytes(path.read_bytes() + b'{"kind":"torn')
    content = path.read_bytes()
    with pytest.raises(StateError, match="written under another configuration; give the run another name"):
        HeatKeeper.open(path, setup(total_steps=999))
    assert path.read_bytes() == content


def test_a_ledger_of_another_schema_or_with_a_broken_setup_is_refused(path: Path) -> None:
    opened(path)
    first = next(read_ledger(path))
    assert isinstance(first, RunRecord)
    with pytest.raises(LedgerError, match="schema version 99"):
        replay([dataclasses.replace(first, schema_version=99)])
    with pytest.raises(LedgerError, match="setup in the ledger's first record is not valid"):
        replay([dataclasses.replace(first, setup={**first.setup, "more": 1})])
    with pytest.raises(LedgerError, match="does not begin with a run record"):
        replay([SkippedRecord(step=1)])
    with pytest.raises(LedgerError, match="empty"):
        replay([])


def test_a_forged_initial_plan_is_not_replayed(path: Path) -> None:
    opened(path)
    first = next(read_ledger(path))
    assert isinstance(first, RunRecord)
    forged = dataclasses.replace(first, plan=dataclasses.replace(first.plan, weights=(0.5, 0.25, 0.25)))
    with pytest.raises(ReplayMismatchError):
        replay([forged])


def test_a_recorded_signal_that_the_engine_refuses_is_not_replayed(path: Path) -> None:
    keeper = opened(path)
    told = list(read_ledger(path))
    with pytest.raises(ReplayMismatchError, match=r"was accepted, but the engine refuses it: score is 2\.0"):
        replay([*told, SignalRecord(signal("a", score=2.0))])
    assert keeper.memory.attempt == 0


def test_a_damaged_line_is_named_by_file_and_number(path: Path) -> None:
    opened(path)
    content = path.read_bytes()
    for damage in (
        b'{"kind":"skipped","step":"x"}\n',
        b"\xff\xfe\n",
        b'{"kind":"skipped"}\n',
        b'{"kind":"skipped","step":true}\n',
        b"[]\n",
        b'{"kind":"??"}\n',
    ):
        path.write_bytes(content + damage)
        with pytest.raises(LedgerError, match=r"ledger\.jsonl:3: "):
            list(read_ledger(path))


def test_no_ledger_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger here; give the directory of a run"):
        list(read_ledger(tmp_path))


def test_text_that_utf_8_cannot_hold_is_written_and_read_back(path: Path) -> None:
    writer = LedgerWriter(path)
    record = RestartRecord(actor="engine", detail="half \ud800 a pair \\ and ü")
    writer.append(record)
    assert list(read_ledger(path)) == [record]
