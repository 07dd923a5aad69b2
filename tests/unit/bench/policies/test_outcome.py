"""Results on disk."""

from pathlib import Path

from bench.policies.outcome import ResultsFile
from tests.unit.bench.policies.made import outcome


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "new" / "s.jsonl")
    file.add({"a": outcome("heat", 0, test={"x": 0.5}), "b": outcome("heat", 1, test={"x": 1 / 3})})
    assert ResultsFile(file.path).outcomes == file.outcomes
    assert file.outcomes["b"].worst == 0.333333


def test_a_line_cut_off_by_an_interruption_is_dropped_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "s.jsonl")
    file.add({"a": outcome("heat", 0, test={"x": 0.5}), "b": outcome("heat", 1, test={"x": 0.5})})
    file.path.write_bytes(file.path.read_bytes()[:-20])
    again = ResultsFile(file.path)
    assert again.outcomes.keys() == {"a"}
    again.add({"c": outcome("heat", 2, test={"x": 0.5})})
    assert ResultsFile(file.path).outcomes.keys() == {"a", "c"}


def test_the_time_to_a_target_is_that_of_the_first_boundary_at_it() -> None:
    one = outcome("heat", 0, test={"x": 0.5}, curve=[(0.0, 0.1), (10.0, 0.6), (20.0, 0.4), (30.0, 0.7)])
    assert one.units_to(0.5) == 10.0
    assert one.units_to(0.8) is None
