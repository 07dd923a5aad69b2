from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scheduler.errors import DataError
from scheduler.output_spec import ChoicesRule, LengthRule
from scheduler.task import TaskSpec
from tests.unit.train.data.rows_made import make_row
from train.config import DataConfig
from train.data.row import Lineage, Refusal
from train.data.verify import (
    ontology_version,
    require_acceptable,
    require_enough_rows,
    verification_version,
    verify_row,
    write_quarantine,
)


def config(**settings: object) -> DataConfig:
    return DataConfig.model_validate({"sources": ["unused.jsonl"], **settings})


def refusal(rule: str, line: int) -> Refusal:
    return Refusal(task="a", source="a.jsonl", line=line, rule=rule, reason=f"reason {line}")


def test_an_answer_that_breaks_its_tasks_rules_is_refused_under_the_first_of_them() -> None:
    spec = TaskSpec(name="a", output_rules=(ChoicesRule(values=("yes", "no")), LengthRule(max_chars=3)))
    assert verify_row(make_row("a", "p", answer="yes"), spec, config()) == ()
    found = verify_row(make_row("a", "p", answer="maybe", line=2), spec, config())
    assert isinstance(found, Refusal)
    assert (found.rule, found.line) == ("output:choices", 2)
    assert found.reason == "'maybe' is none of 'yes', 'no'; 5 characters, expected 1 to 3"


def test_a_rule_that_only_flags_leaves_its_name_and_input_rules_judge_the_prompt() -> None:
    spec = TaskSpec(
        name="a",
        input_rules=(LengthRule(max_chars=3, on_break="flag"),),
        output_rules=(LengthRule(max_chars=3, on_break="flag"), ChoicesRule(values=("maybe",))),
    )
    assert verify_row(make_row("a", "long", answer="maybe"), spec, config()) == ("input:length", "output:length")
    strict = TaskSpec(name="a", input_rules=(LengthRule(max_chars=3),))
    found = verify_row(make_row("a", "long"), strict, config())
    assert isinstance(found, Refusal)
    assert found.rule == "input:length"


@pytest.mark.parametrize(
    ("status", "reviewer", "fault"),
    [
        ("approved", "Ada", None),
        (None, None, r"review_status is None, not one of approved.*\(reviewer: none\)"),
        ("draft", "Ada", r"review_status is 'draft'.*\(reviewer: Ada\)"),
        ("approved", None, "the row names no reviewer"),
    ],
)
def test_a_row_without_an_accepted_review_is_refused_where_review_is_required(
    status: str | None, reviewer: str | None, fault: str | None
) -> None:
    row = make_row("a", "p", lineage=Lineage(review_status=status, reviewer=reviewer))
    assert verify_row(row, None, config()) == ()
    found = verify_row(row, None, config(require_review=True))
    if fault is None:
        assert found == ()
    else:
        assert isinstance(found, Refusal)
        assert found.rule == "unreviewed"
        with pytest.raises(DataError, match=fault):
            raise DataError(found.reason)


def test_versions_follow_the_rules_and_the_card() -> None:
    bare = TaskSpec(name="a")
    ruled = TaskSpec(name="a", output_rules=(LengthRule(max_chars=3),))
    other = TaskSpec(name="a", business_value=2.0)
    assert verification_version(None) != verification_version(ruled) == verification_version(ruled.model_copy())
    assert verification_version(bare) == verification_version(other)
    assert len({ontology_version(card) for card in (None, bare, ruled, other)}) == 4


def test_one_bad_row_is_too_many_unless_it_is_allowed() -> None:
    require_acceptable({}, [], num_read=3, max_refused_ratio=0.0, quarantine=Path("q"))
    with pytest.raises(DataError, match="1 of 3 rows"):
        require_acceptable(
            {"non_string": 1}, [refusal("non_string", 3)], num_read=3, max_refused_ratio=0.0, quarantine=Path("q")
        )


def test_too_many_refusals_are_counted_by_rule_shown_and_the_remedy_suffices() -> None:
    counts, first = {"too_long": 6, "empty_output": 1}, [refusal("too_long", line) for line in range(1, 6)]
    with pytest.raises(DataError) as raised:
        require_acceptable(counts, first, num_read=1000, max_refused_ratio=0.006, quarantine=Path("runs/q.parquet"))
    message = str(raised.value)
    assert "too_long 6, empty_output 1" in message
    assert "  a.jsonl:5: reason 5\nMend" in message
    assert "raise data.max_length, or set data.max_refused_ratio to 0.007" in message
    assert "runs/q.parquet" in message
    require_acceptable(counts, first, num_read=1000, max_refused_ratio=0.007, quarantine=Path("q"))


def test_a_task_with_no_or_few_rows_is_named_with_its_files() -> None:
    counts = {"a": 4, "b": 3}
    require_enough_rows(counts, {"a": ["a.jsonl"]})
    with pytest.raises(DataError, match=r"task 'b' \(from b\.jsonl\) has 3 distinct rows"):
        require_enough_rows(counts, {"a": ["a.jsonl"], "b": ["b.jsonl"]})
    with pytest.raises(DataError, match=r"empty task 'c' .*task card"):
        require_enough_rows(counts, {"a": ["a.jsonl"], "c": []})


@pytest.mark.parametrize("refusals", [[], [refusal("leak", 3), refusal("empty_output", 9)]])
def test_the_quarantine_reads_back_with_the_parts_before_it(tmp_path: Path, refusals: list[Refusal]) -> None:
    write_quarantine(tmp_path / "part.parquet", [refusal("first", 1)])
    write_quarantine(tmp_path / "new" / "quarantine.parquet", refusals, parts=[tmp_path / "part.parquet"])
    table = pq.read_table(tmp_path / "new" / "quarantine.parquet")
    assert table.column_names == ["task", "source", "line", "rule", "reason"]
    assert [Refusal(**record) for record in table.to_pylist()] == [refusal("first", 1), *refusals]
