from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scheduler.errors import DataError
from scheduler.output_spec import ChoicesRule, LengthRule
from scheduler.task import TaskSpec
from train.data.row import Refusal, Row, hash_content
from train.data.verify import require_acceptable, require_enough_rows, verify, write_quarantine


def row(task: str, prompt: str, answer: str, *, line: int = 1) -> Row:
    messages = (("user", prompt),)
    lineage = (None, None, None, None, None, None)
    return Row(
        f"{task}:{line}", task, messages, answer, f"{task}.jsonl", line, *lineage, hash_content(messages, answer)
    )


def refusal(rule: str, line: int) -> Refusal:
    return Refusal(task="a", source="a.jsonl", line=line, rule=rule, reason=f"reason {line}")


def test_an_answer_that_breaks_its_tasks_rules_is_refused_under_the_first_of_them() -> None:
    spec = TaskSpec(name="a", output_rules=(ChoicesRule(values=("yes", "no")), LengthRule(max_chars=3)))
    kept, refusals = verify([row("a", "p", "yes"), row("a", "p", "maybe", line=2), row("b", "p", "maybe")], {"a": spec})
    assert [(item.task, item.answer) for item in kept] == [("a", "yes"), ("b", "maybe")]
    assert [(item.rule, item.line) for item in refusals] == [("output:choices", 2)]
    assert refusals[0].reason == "'maybe' is none of 'yes', 'no'; 5 characters, expected 1 to 3"


def test_equal_content_is_kept_once_per_task_and_points_to_the_first() -> None:
    kept, refusals = verify([row("a", "p", "x", line=n) for n in (1, 2, 3)] + [row("b", "p", "x")], {})
    assert [(item.task, item.line) for item in kept] == [("a", 1), ("b", 1)]
    assert [(item.rule, item.reason) for item in refusals] == [("duplicate", "same content as a.jsonl:1")] * 2


def test_duplicates_and_leaks_do_not_count_but_one_bad_row_does() -> None:
    free = [refusal("duplicate", 1), refusal("leak", 2)]
    require_acceptable(free, num_read=3, max_refused_ratio=0.0, quarantine=Path("q"))
    with pytest.raises(DataError, match="1 of 3 rows"):
        require_acceptable([*free, refusal("non_string", 3)], num_read=3, max_refused_ratio=0.0, quarantine=Path("q"))


def test_too_many_refusals_are_counted_by_rule_shown_and_the_remedy_suffices() -> None:
    refusals = [refusal("too_long", line) for line in range(1, 7)] + [refusal("empty_output", 7)]
    with pytest.raises(DataError) as raised:
        require_acceptable(refusals, num_read=1000, max_refused_ratio=0.006, quarantine=Path("runs/q.parquet"))
    message = str(raised.value)
    assert "too_long 6, empty_output 1" in message
    assert "  a.jsonl:5: reason 5\nMend" in message
    assert "raise data.max_length, or set data.max_refused_ratio to 0.007" in message
    assert "runs/q.parquet" in message
    require_acceptable(refusals, num_read=1000, max_refused_ratio=0.007, quarantine=Path("q"))


def test_a_task_with_no_or_few_rows_is_named_with_its_files() -> None:
    rows = [row("a", str(n), "x") for n in range(4)] + [row("b", str(n), "x") for n in range(3)]
    require_enough_rows(rows, {"a": ["a.jsonl"]})
    with pytest.raises(DataError, match=r"task 'b' \(from b\.jsonl\) has 3 distinct rows"):
        require_enough_rows(rows, {"a": ["a.jsonl"], "b": ["b.jsonl"]})
    with pytest.raises(DataError, match=r"empty task 'c' .*task card"):
        require_enough_rows(rows, {"a": ["a.jsonl"], "c": []})


@pytest.mark.parametrize("refusals", [[], [refusal("leak", 3), refusal("empty_output", 9)]])
def test_the_quarantine_reads_back(tmp_path: Path, refusals: list[Refusal]) -> None:
    write_quarantine(tmp_path / "new" / "quarantine.parquet", refusals)
    table = pq.read_table(tmp_path / "new" / "quarantine.parquet")
    assert table.column_names == ["task", "source", "line", "rule", "reason"]
    assert [Refusal(**record) for record in table.to_pylist()] == refusals
