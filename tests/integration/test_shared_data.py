"""`taskheat prepare` on real data sets of many forms, and on copies that were damaged in every way we know.

The data is not part of the project: the tests skip where it is absent (see `REAL_DATA`).
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cluster.cli import main
from tests.real_data import REAL_DATA

pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no real data at {REAL_DATA}")

EQUATIONS = {"type": "consistency", "equations": True}
CARDS: dict[str, Any] = {
    "gsm8k": {"output_rules": [EQUATIONS, {"type": "pattern", "regex": r".*\n#### -?[\d,.]+"}]},
    "toolcall": {},
}


def source(path: str, **more: Any) -> dict[str, Any]:
    return {"path": str(REAL_DATA / path), **more}


GSM8K_COLUMNS = {"instruction": "question", "output": "answer"}
SETS: dict[str, list[dict[str, Any]]] = {
    "bigbench": [source("bigbench", columns={"output": "target"}, lineage={"licence": "Apache-2.0"})],
    "gsm8k": [
        source("gsm8k/train.jsonl", task="gsm8k", columns=GSM8K_COLUMNS),
        source("gsm8k/test.jsonl", task="gsm8k", columns=GSM8K_COLUMNS, split="test"),
    ],
    "ifeval": [source("ifeval/input_data.jsonl", columns={"id": "key"})],
    "self_instruct": [source("self_instruct/seed_tasks.jsonl")],
    "toolcall": [source("toolcall/glaive_toolcall_en_demo.json"), source("toolcall/glaive_toolcall_zh_demo.json")],
    "identity": [source("toolcall/identity.json")],
    "xstest": [source("xstest/xstest_prompts.csv", columns={"sub_task": "type"})],
}
EXPECTED = {
    "bigbench": ("alpaca", 70_485),
    "gsm8k": ("alpaca", 7_473 + 1_319),
    "ifeval": ("prompt", 541),
    "self_instruct": ("instances", 175),
    "toolcall": ("sharegpt", 600),
    "identity": ("alpaca", 91),
    "xstest": ("prompt", 450),
}


def prepare(folder: Path, sources: list[dict[str, Any]], **data: Any) -> dict[str, Any]:
    """Run `taskheat prepare --json` on the sources; gives what it prints."""
    tasks = {name: card for name, card in CARDS.items() if any(item.get("task") == name for item in sources)}
    config = {
        "model": {"type": "tiny", "vocab_size": 1024, "max_position_embeddings": 4096},
        "data": {"sources": sources, "max_length": 4096, "max_refused_ratio": 1.0, **data},
        "tasks": tasks,
        "output": {"dir": str(folder / "runs")},
    }
    (folder / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    done = CliRunner().invoke(main, ["prepare", str(folder / "run.yaml"), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def quarantine(found: dict[str, Any]) -> list[dict[str, Any]]:
    return pq.read_table(found["quarantine"]).to_pylist()


@pytest.mark.parametrize("name", SETS)
def test_every_set_prepares_and_every_record_is_kept_or_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    found = prepare(tmp_path, SETS[name])
    form, num_records = EXPECTED[name]
    summary = found["summary"]
    assert {item["form"] for item in summary["sources"]} == {form}
    assert sum(item["num_read"] for item in summary["sources"]) >= num_records
    num_kept = sum(
        task[key] for task in summary["tasks"] for key in ("num_train", "num_probe", "num_selection", "num_test")
    ) + sum(summary["prompts"].values())
    num_read = sum(item["num_read"] for item in summary["sources"])
    assert num_kept + len(quarantine(found)) == num_read
    assert all(row["reason"] and row["line"] >= 1 for row in quarantine(found))


def damaged_lines(good: list[bytes], leaked: bytes) -> tuple[list[bytes], dict[int, str]]:
    """A few good lines with one of every damage between them, and the rule expected at each damaged line."""
    record = json.loads(good[0])
    question, answer = record["question"], record["answer"]
    wrong = {"question": question + " (variant)", "answer": answer.replace("<<", "<<1+", 1)}
    damages: list[tuple[bytes, str]] = [
        (good[1][: len(good[1]) // 2], "malformed_json"),
        (good[2].replace(b" ", b"\0", 1), "nul_byte"),
        (json.dumps({"question": "Où ?", "answer": "é\n#### 1"}, ensure_ascii=False).encode("latin-1"), "invalid_utf8"),
        (json.dumps({"question": "x" * 10_000_000, "answer": "\n#### 1"}).encode(), "line_too_long"),
        (json.dumps({"question": question}).encode(), "missing_column"),
        (json.dumps({"answer": answer}).encode(), "missing_column"),
        (b"[1, 2, 3]", "not_an_object"),
        (json.dumps({"question": question, "answer": 42}).encode(), "non_string"),
        (json.dumps({"question": question, "answer": "  "}).encode(), "empty_output"),
        (json.dumps(wrong).encode(), "output:consistency"),
        (json.dumps({"question": question + " ?", "answer": "it is four"}).encode(), "output:pattern"),
        (good[3], "duplicate"),
        (leaked, "leak"),
    ]
    lines: list[bytes] = []
    expected: dict[int, str] = {}
    for place, (line, rule) in enumerate(damages):
        lines += [good[10 + place], line]
        expected[len(lines)] = rule
    return [*lines, *good[3:10], *good[40:]], expected


def test_a_damaged_copy_loses_exactly_its_damaged_rows_each_with_its_reason(tmp_path: Path) -> None:
    good = (REAL_DATA / "gsm8k" / "train.jsonl").read_bytes().splitlines()[:300]
    held_out = (REAL_DATA / "gsm8k" / "test.jsonl").read_bytes().splitlines()
    lines, expected = damaged_lines(good, held_out[7])
    copy = tmp_path / "damaged.jsonl"
    copy.write_bytes(b"\n".join(lines) + b"\n")
    sources = [{**SETS["gsm8k"][0], "path": str(copy)}, SETS["gsm8k"][1]]
    found = prepare(tmp_path, sources)
    refused = {row["line"]: row for row in quarantine(found) if row["source"] == str(copy)}
    duplicate = next(line for line, rule in expected.items() if rule == "duplicate")
    expected[lines.index(good[3], duplicate) + 1] = expected.pop(duplicate)  # of two equal rows the first is kept
    real = {
        row["line"]: row
        for row in quarantine(prepare(tmp_path, SETS["gsm8k"]))
        if row["source"].endswith("train.jsonl")
    }
    wrong_sums = {
        good[line - 1] for line, row in real.items() if line <= len(good) and row["rule"] == "output:consistency"
    }
    expected |= {line: "output:consistency" for line, text in enumerate(lines, start=1) if text in wrong_sums}
    assert {line: row["rule"] for line, row in refused.items()} == expected
    (task,) = found["summary"]["tasks"]
    assert task["num_train"] + task["num_probe"] + task["num_selection"] == len(lines) - len(expected)
    assert "test.jsonl" in refused[next(line for line, rule in expected.items() if rule == "leak")]["reason"]


def test_a_damaged_json_array_loses_only_its_damaged_elements(tmp_path: Path) -> None:
    text = (REAL_DATA / "toolcall" / "glaive_toolcall_en_demo.json").read_text(encoding="utf-8")
    records = json.loads(text)[:50]
    parts = [json.dumps(record, ensure_ascii=False, indent=2).encode() for record in records]
    parts[5] = parts[5][: len(parts[5]) // 2]
    parts[11] = parts[11].replace(b"human", b"hum\0an", 1)
    parts[17] = parts[17].replace(b"gpt", "gpté".encode("latin-1"), 1)
    parts[23] = json.dumps({"conversations": "none"}).encode()
    copy = tmp_path / "damaged.json"
    copy.write_bytes(b"[\n" + b",\n".join(parts) + b"\n]\n")
    found = prepare(tmp_path, [{"path": str(copy), "task": "toolcall"}])
    rules = Counter(row["rule"] for row in quarantine(found))
    num_duplicates = rules.pop("duplicate", 0)  # the set has some of its own
    assert rules == {"malformed_json": 2, "nul_byte": 1, "invalid_utf8": 1}
    (task,) = found["summary"]["tasks"]
    kept = task["num_train"] + task["num_probe"] + task["num_selection"] + task["num_test"]
    assert kept == len(records) - 4 - num_duplicates
    assert num_duplicates <= len(records) - len({str(record["conversations"]) for record in records})


def test_an_answer_without_its_source_and_one_with_an_unknown_source_are_refused(tmp_path: Path) -> None:
    card = {"output_rules": [{"type": "citation", "regex": r"FR-\d+", "allowed": ["FR-15", "FR-16"]}]}
    rows = [{"instruction": f"May branch {n} lend?", "output": f"allowed, FR-{15 + n % 2} s.1"} for n in range(60)]
    rows[7]["output"], rows[9]["output"] = "allowed", "allowed, FR-99 s.1"
    file = tmp_path / "compliance.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "model": {"type": "tiny", "vocab_size": 300},
        "data": {"sources": [str(file)], "max_refused_ratio": 0.1},
        "tasks": {"compliance": card},
        "output": {"dir": str(tmp_path / "runs")},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    done = CliRunner().invoke(main, ["prepare", str(tmp_path / "run.yaml"), "--json"])
    assert done.exit_code == 0, done.output
    refused = {row["line"]: row for row in quarantine(json.loads(done.stdout))}
    assert {line: row["rule"] for line, row in refused.items()} == {8: "output:citation", 10: "output:citation"}
    assert "FR-99" in refused[10]["reason"]
