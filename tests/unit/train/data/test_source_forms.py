import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from scheduler.errors import DataError
from tests.unit.train.data.test_sources import GOOD, lines, read
from train.config import SourceConfig
from train.data.sources import read_source


def test_one_record_of_instances_gives_several_rows_and_a_bad_one_costs_only_itself(tmp_path: Path) -> None:
    instances = [{"input": "1+1", "output": "2"}, {"input": "", "output": "?"}, {"input": "x", "output": ""}, 7]
    source = read(tmp_path / "seed.jsonl", lines({"id": "s7", "instruction": "Add.", "instances": instances}))
    assert [(row.id, row.messages[-1][1], row.answer) for row in source.rows] == [
        ("s7#1", "Add.\n1+1", "2"),
        ("s7#2", "Add.", "?"),
    ]
    assert [(r.rule, r.reason) for r in source.refusals] == [
        ("empty_output", "instance 3: the answer is empty"),
        ("not_an_object", "instance 4 is 7, not an object"),
    ]


def test_prompts_without_answers_are_rows_for_evaluation_only(tmp_path: Path) -> None:
    source = read(tmp_path / "p.csv", "id,prompt,label\n1,Why?,safe\n2,,safe\n")
    assert (source.plan.form, source.plan.is_evaluation_only) == ("prompt", True)
    assert [(row.messages, row.answer) for row in source.rows] == [((("user", "Why?"),), "")]
    assert [refusal.rule for refusal in source.refusals] == ["empty_prompt"]
    asked = read(tmp_path / "q.jsonl", lines({"q": "Why?", "answer": "so"}), split="probe", columns={"prompt": "q"})
    assert asked.rows[0].messages == (("user", "Why?"),)


def test_a_first_row_without_its_answer_does_not_make_the_source_one_of_prompts(tmp_path: Path) -> None:
    source = read(tmp_path / "a.jsonl", lines({"instruction": "a"}, GOOD))
    assert (source.plan.form, [refusal.rule for refusal in source.refusals]) == ("alpaca", ["missing_column"])


CALL = {"name": "add", "arguments": {"a": 1, "b": [2]}}
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": json.dumps(CALL["arguments"])}}


def test_tool_calls_of_both_dialects_become_the_same_row(tmp_path: Path) -> None:
    openai = [
        {"role": "user", "content": "1+2?"},
        {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    sharegpt = [
        {"from": "human", "value": "1+2?"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "It is 3."},
    ]
    tools = json.dumps([{"name": "add"}])
    (ours,) = read(tmp_path / "m.jsonl", lines({"messages": openai, "tools": [{"name": "add"}]})).rows
    (theirs,) = read(tmp_path / "s.jsonl", lines({"conversations": sharegpt, "tools": tools})).rows
    assert ours.content_hash == theirs.content_hash
    assert [role for role, _ in ours.messages] == ["system", "user", "assistant", "tool"]
    assert ours.messages[0] == ("system", tools)
    assert json.loads(ours.messages[2][1]) == CALL


def test_a_call_may_be_the_answer_and_several_calls_are_a_list(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "Two.", "tool_calls": [OPENAI_CALL] * 2},
    ]
    (row,) = read(tmp_path / "m.jsonl", lines({"messages": turns})).rows
    said, calls = row.answer.split("\n")
    assert (said, json.loads(calls)) == ("Two.", [CALL, CALL])


def test_a_saved_dataset_dict_names_one_task_and_says_which_files_are_held_out(tmp_path: Path) -> None:
    root = tmp_path / "algebra"
    for split in ("train", "validation"):
        (root / split).mkdir(parents=True)
        table = pa.Table.from_pylist([{**GOOD, "output": f"{split} {n}"} for n in range(3)])
        with pa.ipc.new_stream(root / split / "data-00000-of-00001.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        (root / split / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
        (root / split / "dataset_info.json").write_text("{}")
    (root / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    source = read_source(SourceConfig(path=root))
    assert [shard.split for shard in source.plan.shards] == [None, "selection"]
    assert [(row.task, row.answer, row.line) for row in source.rows][2:4] == [
        ("algebra", "train 2", 3),
        ("algebra", "validation 0", 1),
    ]
    alone = read_source(SourceConfig(path=root / "train"))
    assert {row.task for row in alone.rows} == {"train"}
    assert alone.plan.shards[0].split is None


def test_a_url_is_read_like_a_file(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe(
        {"/rows/a.jsonl": lines(GOOD).encode(), "/rows/b/c.csv": b"prompt,completion\np,c"}
    )
    (row,) = read_source(SourceConfig(path="memory://rows/a.jsonl")).rows
    assert (row.task, row.source, row.answer) == ("a", "memory://rows/a.jsonl", "2")
    folder = read_source(SourceConfig(path="memory://rows", task_from="folder"))
    assert [row.task for row in folder.rows] == ["rows"]
    assert [(r.task, r.rule) for r in folder.refusals] == [("b", "missing_column")]
    (tmp_path / "a.jsonl").write_text(lines(GOOD))
    assert read_source(SourceConfig(path=f"file://{tmp_path}/a.jsonl")).rows[0].answer == "2"
    with pytest.raises(DataError, match="does not exist; correct the URL"):
        read_source(SourceConfig(path="memory://rows/none.jsonl"))
    with pytest.raises(DataError, match="no reader for nonsense://"):
        read_source(SourceConfig(path="nonsense://rows/none.jsonl"))
