import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import DataError
from tests.unit.train.data.test_prepare import rows_of, run, write_rows
from train.data.summary import SourceSummary, Summary, TaskSummary

SUMMARY = Summary(
    sources=(
        SourceSummary("a.jsonl", "alpaca", 1200, {"duplicate": 3, "too_long": 1}, ("note",)),
        SourceSummary("b.jsonl", "prompt", 5, {}, ()),
    ),
    tasks=(
        TaskSummary("sum", 1100, 32, 0, 32, 20.25, 4.5, num_flagged=7, level_sizes=(600, 500)),
        TaskSummary("copy", 10, 2, 0, 2, 8.0, 2.0, level_sizes=(10,)),
    ),
    prompts={"asked": 5},
    file_hashes={"a.jsonl": "0" * 32},
)


def test_a_summary_reads_back_equal() -> None:
    assert Summary.from_json(SUMMARY.to_json()) == SUMMARY


@given(st.text(), st.dictionaries(st.text(), st.integers(0, 10**12)))
def test_any_name_and_count_reads_back(name: str, refused: dict[str, int]) -> None:
    source = SourceSummary(name, None, 0, refused, (name,))
    summary = dataclasses.replace(SUMMARY, sources=(source,), prompts=refused)
    assert Summary.from_json(summary.to_json()) == summary


def test_the_table_has_figures_of_every_source_and_task_and_no_column_without_any() -> None:
    text = str(SUMMARY)
    for shown in ("1,200", "duplicate 3", "note", "1,100", "20.2", "flagged", "levels"):
        assert shown in text
    assert "chains" not in text
    assert "selection" not in text


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{}", '{"sources": 1}', SUMMARY.to_json()[:-20], SUMMARY.to_json().replace("num_read", "read")],
)
def test_what_is_not_a_summary_is_a_data_error(text: str) -> None:
    with pytest.raises(DataError, match="not a summary of prepared data"):
        Summary.from_json(text)


def test_a_damaged_summary_of_a_prepared_folder_says_which_folder_to_delete(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "sum.jsonl", rows_of("sum", 40))
    prepared = run(tmp_path / "out", [source])
    path = prepared.path / "summary.json"
    for damaged in (path.read_bytes()[:100], b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{path} is damaged: .*; delete the folder {prepared.path} and prepare"):
            run(tmp_path / "out", [source])
