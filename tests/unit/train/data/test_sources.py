import datetime
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import DataError
from train.config import DataConfig, SourceConfig
from train.data.row import Lineage
from train.data.sources import SourceRows, open_source, read_rows, read_source

GOOD = {"instruction": "Add.", "input": "1+1", "output": "2"}


def read(path: Path, content: str | bytes, **settings: object) -> SourceRows:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_source(SourceConfig.model_validate({"path": path, **settings}))


def num_read(source: SourceRows) -> int:
    return len(source.rows) + len(source.refusals)


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_alpaca_prompt_is_instruction_then_input(tmp_path: Path) -> None:
    record = {**GOOD, "system": "Be brief.", "history": [["hi", "hello"]]}
    source = read(tmp_path / "add.jsonl", lines(record, {"instruction": "Say yes.", "output": "yes"}))
    assert source.plan.form == "alpaca"
    assert source.rows[0].messages == (
        ("system", "Be brief."),
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "Add.\n1+1"),
    )
    assert source.rows[1].messages == (("user", "Say yes."),)
    assert [(row.task, row.id, row.line) for row in source.rows] == [("add", "add:1", 1), ("add", "add:2", 2)]


def test_an_empty_instruction_leaves_no_blank_line_before_the_input(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.jsonl", lines({**GOOD, "instruction": ""})).rows
    assert row.messages == (("user", "1+1"),)


def test_messages_and_sharegpt_take_the_last_assistant_turn_as_answer(tmp_path: Path) -> None:
    roles = [("user", "human", "q1"), ("assistant", "gpt", "a1"), ("user", "human", "q2"), ("assistant", "gpt", "a2")]
    ours = read(tmp_path / "m.jsonl", lines({"messages": [{"role": r, "content": c} for r, _, c in roles]}))
    theirs = read(tmp_path / "s.jsonl", lines({"conversations": [{"from": f, "value": c} for _, f, c in roles]}))
    assert (ours.plan.form, theirs.plan.form) == ("messages", "sharegpt")
    assert ours.rows[0].messages == (("user", "q1"), ("assistant", "a1"), ("user", "q2"))
    assert ours.rows[0].answer == "a2"
    assert ours.rows[0].content_hash == theirs.rows[0].content_hash


def test_a_tool_call_and_its_observation_are_context(tmp_path: Path) -> None:
    turns = [
        ("human", "weather?"),
        ("function_call", "get()"),
        ("observation", "sun"),
        ("gpt", "sunny"),
        ("human", "ok"),
    ]
    (row,) = read(tmp_path / "s.jsonl", lines({"conversations": [{"from": f, "value": v} for f, v in turns]})).rows
    assert row.messages == (("user", "weather?"), ("assistant", "get()"), ("tool", "sun"))
    assert row.answer == "sunny"


def test_the_same_rows_read_alike_from_every_kind_of_file(tmp_path: Path) -> None:
    records = [
        {**GOOD, "language": "en"},
        {"instruction": 'Quote "x",\nplease', "input": "", "output": "é", "language": "fr"},
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    header = "instruction,input,output,language\n"
    found = [
        read(tmp_path / "a.jsonl", lines(*records)),
        read(tmp_path / "a.json", json.dumps(records, indent=2)),
        read(tmp_path / "b.json", lines(*records)),
        read(tmp_path / "a.csv", header + 'Add.,1+1,2,en\n"Quote ""x"",\nplease",,é,fr\n'),
        read_source(SourceConfig(path=tmp_path / "a.parquet")),
    ]
    contents = {tuple((row.content_hash, row.lineage.language) for row in source.rows) for source in found}
    assert len(contents) == 1
    assert all(not source.refusals for source in found)


def test_lines_are_where_the_record_begins(tmp_path: Path) -> None:
    array = read(tmp_path / "a.json", json.dumps([GOOD, 7, GOOD], indent=1))
    assert [row.line for row in array.rows] == [2, 8]
    assert [refusal.line for refusal in array.refusals] == [7]
    csv = read(tmp_path / "a.csv", 'instruction,output\n"two\nlines",x\nlast,y\n')
    assert [row.line for row in csv.rows] == [2, 4]
    jsonl = read(tmp_path / "a.jsonl", "\n" + lines(GOOD) + "\n" + lines(GOOD))
    assert [row.line for row in jsonl.rows] == [2, 4]


def test_columns_are_mapped_and_the_unread_ones_named(tmp_path: Path) -> None:
    record = {"question": "2+2?", "answer": "4", "id": 17, "license": "MIT", "colour": "red"}
    source = read(tmp_path / "q.jsonl", lines(record), columns={"instruction": "question", "output": "answer"})
    (row,) = source.rows
    assert (row.answer, row.id, row.lineage.licence) == ("4", "17", "MIT")
    assert source.plan.unread_columns == ("colour",)


def test_a_column_mapped_elsewhere_loses_its_own_name(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "q.jsonl", lines(GOOD), columns={"output": "input"}).rows
    assert (row.messages, row.answer) == ((("user", "Add."),), "1+1")


def test_difficulty_factors_may_be_given_by_name(tmp_path: Path) -> None:
    factors = {"ambiguity": 4, "knowledge_breadth": 1, "constraints": 3, "reasoning_steps": 2}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"instruction": "i", "output": "o", "difficulty_factors": factors}), encoding="utf-8")
    (row,) = read_source(SourceConfig(path=path)).rows
    assert row.lineage.difficulty_factors == (1.0, 2.0, 3.0, 4.0)


def test_lineage_and_difficulty_are_kept(tmp_path: Path) -> None:
    lineage = {
        "reviewer": "ann",
        "review_status": "approved",
        "parent_id": "p1",
        "difficulty_factors": [0, 0.5, 1, 0.25],
    }
    (row,) = read(tmp_path / "a.jsonl", lines({**GOOD, **lineage})).rows
    assert (row.lineage.reviewer, row.lineage.review_status, row.parent_id) == ("ann", "approved", "p1")
    assert row.lineage.difficulty_factors == (0.0, 0.5, 1.0, 0.25)


@pytest.mark.parametrize(
    ("raw", "rule", "words"),
    [
        (b'{"instruction": "a", "output": }', "malformed_json", "Expecting value"),
        (b"[" * 100_000, "malformed_json", "recursion"),
        (b"7" * (1 << 20), "malformed_json", "4300"),
        (b'"' + b"7" * (1 << 20), "line_too_long", "1048577 bytes, more than max_line_bytes 1048576"),
        (b'{"instruction": "a", "output": "b\xff"}', "invalid_utf8", "byte 33"),
        (b'{"instruction": "a\x00", "output": "b"}', "nul_byte", "position"),
        (rb'{"instruction": "a\u0000", "output": "b"}', "nul_byte", "NUL"),
        (rb'{"instruction": "a\ud800", "output": "b"}', "invalid_utf8", "UTF-8"),
        (b'["a", "b"]', "not_an_object", "list"),
        (
            b'{"instruction": "a", "answer": "b"}',
            "missing_column",
            "no column 'output'; the row has answer, instruction",
        ),
        (b'{"instruction": "a", "output": "  "}', "empty_output", "empty"),
        (b'{"instruction": "", "input": " ", "output": "b"}', "empty_prompt", "empty"),
        (b'{"instruction": "a", "output": 126}', "non_string", "'output' is 126"),
        (b'{"instruction": "a", "output": null}', "non_string", "None"),
        (b'{"instruction": "a", "output": "b", "history": [["q"]]}', "bad_history", "pair"),
        (b'{"instruction": "a", "output": "b", "difficulty_factors": [1, 2]}', "bad_difficulty", "four"),
        (b'{"instruction": "a", "output": "b", "difficulty_factors": {"ambiguity": 1}}', "bad_difficulty", "ambiguity"),
        (b'{"instruction": "a", "output": "b", "difficulty_factors": [1, 2, 3, NaN]}', "bad_difficulty", "finite"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_costs_only_itself(
    tmp_path: Path, raw: bytes, rule: str, words: str
) -> None:
    good = lines(GOOD).encode()
    source = read(tmp_path / "bad.jsonl", good + raw + b"\n" + good)
    assert [row.line for row in source.rows] == [1, 3]
    (refusal,) = source.refusals
    assert (refusal.rule, refusal.line, refusal.source) == (rule, 2, str(tmp_path / "bad.jsonl"))
    assert words in refusal.reason
    assert num_read(source) == 3


@pytest.mark.parametrize(
    ("turns", "rule"),
    [
        ([], "no_answer"),
        ([{"role": "user", "content": "q"}], "no_answer"),
        ([{"role": "assistant", "content": "a"}], "no_prompt"),
        ([{"role": r, "content": "x"} for r in ("user", "assistant", "assistant")], "turn_order"),
        ([{"role": "oracle", "content": "x"}], "unknown_role"),
        ([{"role": "user", "content": ["parts"]}], "non_string"),
        ([{"role": "user"}], "bad_turn"),
        ("not json", "malformed_json"),
        (7, "non_list"),
    ],
)
def test_a_broken_conversation_is_refused(tmp_path: Path, turns: object, rule: str) -> None:
    (refusal,) = read(tmp_path / "m.jsonl", lines({"messages": turns})).refusals
    assert refusal.rule == rule


def test_bad_csv_rows_are_refused(tmp_path: Path) -> None:
    source = read(tmp_path / "a.csv", b'instruction,output\na,b,c\nd,\xff\ne,f\n"open,g\n')
    assert [row.answer for row in source.rows] == ["f"]
    assert [(r.line, r.rule) for r in source.refusals] == [
        (2, "malformed_csv"),
        (3, "invalid_utf8"),
        (5, "malformed_csv"),
    ]


def test_the_task_comes_from_the_setting_the_column_or_the_file_name(tmp_path: Path) -> None:
    record = lines({**GOOD, "kind": "sum"}, {**GOOD, "kind": ""}, GOOD)
    assert read(tmp_path / "f.jsonl", record, task="x").rows[0].task == "x"
    by_column = read(tmp_path / "f.jsonl", record, task_column="kind")
    assert [row.task for row in by_column.rows] == ["sum"]
    assert [refusal.rule for refusal in by_column.refusals] == ["unknown_task", "missing_column"]


def test_a_task_without_a_card_is_refused_where_cards_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(lines({**GOOD, "kind": "sum"}, {**GOOD, "kind": "sun"}))
    source = read_source(SourceConfig(path=path, task_column="kind"), known_tasks=frozenset({"sum"}))
    assert [(r.rule, r.reason) for r in source.refusals] == [("unknown_task", "task 'sun' has no card; known: sum")]


def test_max_rows_bounds_what_is_read(tmp_path: Path) -> None:
    assert num_read(read(tmp_path / "a.jsonl", lines(*[GOOD] * 500), max_rows=120)) == 120


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [
        ("a.jsonl", "", {}, "holds no rows"),
        ("a.txt", "x", {}, "'.txt'"),
        ("a.jsonl", lines({"q": "1", "a": "2"}), {}, "its columns (a, q) are of no known form"),
        ("a.jsonl", lines(GOOD), {"columns": {"ouput": "output"}}, "'ouput', which is none of ours"),
        ("a.jsonl", lines(GOOD), {"columns": {"output": "target"}}, "'target', which the file does not have"),
        ("a.jsonl", "nonsense\n7\n", {}, "not one record can be read; the first: "),
        ("a.json", "[1, 2, {", {}, "not one record can be read; the first: "),
        ("a.json", '{\n"instruction": "a"\n}', {}, "a .json file an array of objects"),
        ("a.jsonl", lines(GOOD).encode("utf-16"), {}, "is in UTF-16; save it as UTF-8"),
        ("a.csv", "instruction,output\na,b\n".encode("utf-16-le"), {}, "is in UTF-16"),
        ("a.jsonl", lines(GOOD), {"lineage": {"license": "MIT"}}, "lineage states 'license'; it may state sub_task"),
        ("a.jsonl", lines(GOOD), {"lineage": {"difficulty_factors": "[1]"}}, "not four finite numbers"),
        ("a.jsonl", lines({"prompt": "a"}), {"split": "train"}, "rows have no answers (columns prompt)"),
        ("a.jsonl", lines({"prompt": "a", "response": "b"}), {"split": "test"}, "are of no known form"),
        ("a.arrow", "no arrow", {}, "not readable as Arrow"),
        ("a.parquet", "no parquet", {}, "not readable as Parquet"),
        ("a.csv", "instruction,output,output\n", {}, "names a column twice"),
    ],
)
def test_a_source_that_cannot_be_read_stops_with_its_path(
    tmp_path: Path, name: str, content: str | bytes, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError) as raised:
        read(tmp_path / name, content, **settings)
    assert words in str(raised.value)
    assert name in str(raised.value)


def test_a_missing_file_suggests_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "algebra.jsonl").write_text(lines(GOOD))
    with pytest.raises(DataError, match=r"did you mean algebra\.jsonl\?"):
        read_source(SourceConfig(path=tmp_path / "algebr.jsonl"))
    with pytest.raises(DataError, match="nor does the folder"):
        read_source(SourceConfig(path=tmp_path / "nowhere" / "algebra.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a folder without a data file"):
        read_source(SourceConfig(path=tmp_path / "empty"))


@given(st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b" ")), max_size=8))
def test_no_bytes_crash_the_reader_and_every_line_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, raws: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(lines(GOOD).encode() + b"".join(raw + b"\n" for raw in raws))
    source = read_source(SourceConfig(path=path))
    assert num_read(source) == 1 + sum(bool(raw.strip()) for raw in raws)


LINEAGE: dict[str, Any] = {
    "sub_task": "carry",
    "language": "en",
    "licence": "MIT",
    "annotator": "ann",
    "qualification": "teacher",
    "reviewer": "bob",
    "review_status": "approved",
    "reviewed_at": "2026-01-02",
    "perturbation": "renamed",
    "business_impact": "refund",
    "created_at": "2025-12-31",
}


def test_all_of_lineage_is_read_and_a_row_says_it_over_the_source(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.jsonl", lines({**GOOD, **LINEAGE})).rows
    assert row.lineage == Lineage(**LINEAGE)
    stated = {"licence": "CC0", "annotator": "team A", "difficulty_factors": "[1, 2, 3, 4]"}
    first, second = read(tmp_path / "b.jsonl", lines({**GOOD, "annotator": "ann"}, GOOD), lineage=stated).rows
    assert first.lineage == Lineage(licence="CC0", annotator="ann", difficulty_factors=(1.0, 2.0, 3.0, 4.0))
    assert second.lineage.annotator == "team A"


def test_lineage_that_is_no_text_is_written_as_text(tmp_path: Path) -> None:
    record = {**GOOD, "created_at": datetime.date(2026, 1, 2), "business_impact": 7, "annotator": ["a", "b"]}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    (row,) = read_source(SourceConfig(path=tmp_path / "a.parquet")).rows
    assert row.lineage == Lineage(created_at="2026-01-02", business_impact="7", annotator='["a", "b"]')


def test_a_lineage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (refusal,) = read(tmp_path / "a.jsonl", lines(GOOD) + r'{"instruction":"a","output":"b","id":"\ud800"}').refusals
    assert refusal.rule == "invalid_utf8"


def test_a_folder_is_all_its_files_and_file_or_folder_names_the_task(tmp_path: Path) -> None:
    for name, answer in (
        ("b/two.jsonl", "2"),
        ("a/one.jsonl", "1"),
        ("a/deep/three.csv", "3"),
        ("a/.hidden.jsonl", "4"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"instruction,output\nq,{answer}\n" if name.endswith("csv") else lines({**GOOD, "output": answer})
        path.write_text(text)
    (tmp_path / "a/README.md").write_text("no data")
    by_file = read_source(SourceConfig(path=tmp_path)).rows
    assert [(row.task, row.answer) for row in by_file] == [("three", "3"), ("one", "1"), ("two", "2")]
    by_folder = read_source(SourceConfig(path=tmp_path, task_from="folder")).rows
    assert [row.task for row in by_folder] == ["deep", "a", "b"]
    assert [row.answer for row in read_source(SourceConfig(path=tmp_path, max_rows=2)).rows] == ["3", "1"]


def test_a_plan_travels_and_its_shards_read_apart_give_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines(*({**GOOD, "output": str(n)} for n in range(300)), {"x": 1}))
    config = SourceConfig(path=path)
    plan = open_source(config, DataConfig(sources=(config,)), shard_bytes=2000)
    assert len(plan.shards) > 3
    apart = [item for shard in plan.shards for item in read_rows(*pickle.loads(pickle.dumps((plan, shard))))]
    whole = read_source(config)
    assert apart == [*whole.rows, *whole.refusals]
