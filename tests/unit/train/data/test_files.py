import importlib.util
import io
import json
import pickle
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import DataError
from train.config import DataConfig, SourceConfig
from train.data.files import BadRecord, Record, Shard, find_files, read_shard, shards
from train.data.files.csv_rows import read_csv
from train.data.files.json_array import read_array
from train.data.files.lines import count_lines, cut_at_line_ends, read_lines

ROWS = [{"instruction": f'say "{n}",\nplease\\', "output": f"né ☃ {n}"} for n in range(7)]
TURNS = [
    {"messages": [{"role": role, "content": f"{role} {n}"} for role in ("system", "user", "assistant")]}
    for n in range(7)
]
LAYOUTS = {
    "compact": json.dumps,
    "tight": lambda rows: json.dumps(rows, separators=(",", ":"), ensure_ascii=False),
    "indented": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
    "unindented": lambda rows: json.dumps(rows, indent=0),
    "line by line": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "from the bracket": lambda rows: "[" + ",\n ".join(map(json.dumps, rows)) + "]",
    "windows": lambda rows: json.dumps(rows, indent=4).replace("\n", "\r\n"),
}


def cut(path: Path | str, *, shard_bytes: int = 1 << 25, max_line_bytes: int = 1 << 20, **source: Any) -> list[Shard]:
    config = SourceConfig.model_validate({"path": path, **source})
    return shards(config, DataConfig(sources=(config,), max_line_bytes=max_line_bytes), shard_bytes=shard_bytes)


def records(path: Path | str, **kwargs: Any) -> list[tuple[int, Record]]:
    return [item for shard in cut(path, **kwargs) for item in read_shard(pickle.loads(pickle.dumps(shard)))]


def array(content: str | bytes, *, max_bytes: int = 1 << 20) -> list[tuple[int, Record]]:
    raw = content.encode() if isinstance(content, str) else content
    return list(read_array(io.BytesIO(raw), max_bytes=max_bytes))


def good(found: list[tuple[int, Record]]) -> list[dict[str, Any]]:
    return [record for _, record in found if not isinstance(record, BadRecord)]


def rules(found: list[tuple[int, Record]]) -> list[tuple[int, str]]:
    return [(line, record.rule) for line, record in found if isinstance(record, BadRecord)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows, indent=2))
        case ".csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        case ".parquet":
            pq.write_table(table, path, row_group_size=3)
        case ".arrow":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
        case ".feather":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.feather"])
def test_every_format_gives_back_what_was_written_from_disk_and_from_a_url(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    url = f"memory://formats/{name}"
    fsspec.filesystem("memory").pipe_file(f"/formats/{name}", path.read_bytes())
    assert good(records(path)) == ROWS
    assert records(url) == records(path)
    assert [line for line, _ in records(path)] == sorted(line for line, _ in records(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("max_rows", [1, 4, 8, 20, 99])
def test_max_rows_bounds_all_shards_and_files_of_a_source_together(tmp_path: Path, name: str, max_rows: int) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = write(tmp_path / folder / name, ROWS)
        if path.suffix == ".jsonl":
            path.write_text("\n\n" + path.read_text().replace("\n", "\n \n"))
    whole = records(tmp_path)
    assert len(whole) == 14
    for shard_bytes in (1, 100, 1 << 20):
        assert records(tmp_path, max_rows=max_rows, shard_bytes=shard_bytes) == whole[:max_rows]


junk = st.one_of(
    st.sampled_from([b"", b" ", b"\r", b'{"a": 1}', b'{"a": "\xff"}', b"[1]", b"{", b"\xef\xbb\xbf"]),
    st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b" ")),
    st.integers(20, 60).map(lambda size: b'"' + b"x" * size),
)


@given(lines=st.lists(junk, max_size=12), shard_bytes=st.integers(1, 200), ends=st.booleans(), marked=st.booleans())
def test_lines_cut_at_any_size_are_the_lines_of_the_whole_file(
    lines: list[bytes], shard_bytes: int, ends: bool, marked: bool
) -> None:
    raw = b"\xef\xbb\xbf" * marked + b"\n".join(lines) + b"\n" * ends
    whole = list(read_lines(io.BytesIO(raw), first_line=1, max_bytes=40))
    assert count_lines(io.BytesIO(raw), first_line=1, max_bytes=40) == len(whole)
    parts = list(cut_at_line_ends(io.BytesIO(raw), shard_bytes=shard_bytes))
    assert [part.start for part in parts] == [0, *(part.end for part in parts)][: len(parts)]
    found: list[tuple[int, Record]] = []
    for part in parts:
        file = io.BytesIO(raw)
        file.seek(part.start)
        found += read_lines(file, first_line=part.first_line, max_bytes=40, num_bytes=part.end - part.start)
    assert found == whole
    assert all(part.end - part.start >= shard_bytes for part in parts[:-1])


def test_line_numbers_are_right_across_blocks_and_shards(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    source = random.Random(0)
    path.write_text("".join(json.dumps({"n": n, "x": "x" * source.randrange(2000)}) + "\n" for n in range(3000)))
    found = records(path, shard_bytes=300_000)
    assert len(cut(path, shard_bytes=300_000)) > 5
    assert [(line, record["n"]) for line, record in found if isinstance(record, dict)] == [
        (n + 1, n) for n in range(3000)
    ]


def test_parquet_is_cut_by_row_groups_and_keeps_its_row_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    assert [shard.part.first_line for shard in cut(path, shard_bytes=1)] == [1, 4, 7]
    assert records(path, shard_bytes=1) == records(path)
    assert [line for line, _ in records(path)] == list(range(1, 8))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [ROWS, TURNS], ids=["flat", "nested"])
@pytest.mark.parametrize(
    ("mark", "broken", "rule"),
    [
        (b"3", b"\xff", "invalid_utf8"),
        (b'3"', b"3", "malformed_json"),
        (b"3", b'3"', "malformed_json"),
        (b"}", b"", "malformed_json"),
        (b":", b"", "malformed_json"),
        (b'"', b"", "malformed_json"),
        (b"3", b"\0", "nul_byte"),
        (b"3", b"3" * 2000, "line_too_long"),
        (b"{", b"[", "malformed_json"),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_broken_element_of_an_array_costs_only_itself(
    layout: str, rows: list[dict[str, Any]], mark: bytes, broken: bytes, rule: str, place: int
) -> None:
    if place == 0 and rows is TURNS and mark in (b'"', b"{"):
        pytest.skip("nothing tells how the elements begin")
    digit = str(place).encode()
    element = LAYOUTS[layout](rows[place : place + 1]).strip().removeprefix("[").removesuffix("]").strip().encode()
    whole = LAYOUTS[layout](rows).encode()
    assert whole.count(element) == 1
    harmed = element.replace(mark.replace(b"3", digit), broken.replace(b"3", digit), 1)
    found = array(whole.replace(element, harmed), max_bytes=1024)
    assert good(found) == [row for row in rows if row is not rows[place]]
    assert rules(found) == [(whole[: whole.index(element)].count(b"\n") + 1, rule)]


@pytest.mark.parametrize(
    ("content", "num_good", "bad"),
    [
        ('[{"a": 1}, {"a": 2}', 2, [(1, "malformed_json")]),
        ('[{"a": 1}, {"a": 2},\n{"a', 2, [(2, "malformed_json")]),
        ('[{"a": 1}\n{"a": 2},, {"a": 3},]', 3, []),
        ('[{"a": 1}]\n[{"a": 2}]', 2, [(1, "malformed_json")]),
        ('[{"a": 1}] and so on', 1, [(1, "malformed_json")]),
        ('[{"a": 1}, 7,\n"x", {"a": 2}]', 2, [(1, "not_an_object"), (2, "not_an_object")]),
        ("[]", 0, []),
        (" \n [ ] \n", 0, []),
        ("\ufeff[]", 0, []),
        ("[" * 100_000, 0, [(1, "malformed_json")]),
    ],
)
def test_what_is_wrong_between_the_elements(content: str, num_good: int, bad: list[tuple[int, str]]) -> None:
    found = array(content)
    assert (len(good(found)), rules(found)) == (num_good, bad)


@given(st.binary(max_size=80), st.integers(1, 40))
def test_no_bytes_stop_the_array_reader(raw: bytes, max_bytes: int) -> None:
    array(b"[" + raw, max_bytes=max_bytes)


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.text(max_size=9)), max_size=30), st.sampled_from([*LAYOUTS]))
def test_any_array_in_any_layout_comes_back_through_small_windows(rows: list[dict[str, str]], layout: str) -> None:
    found = array(LAYOUTS[layout](rows), max_bytes=200)
    assert [record for _, record in found] == rows


class _Endless(io.BytesIO):
    """An array far larger than what may be held."""

    def __init__(self, num_rows: int, *, monster: int) -> None:
        super().__init__()
        self._pieces = self._write(num_rows, monster)
        self._left = b""

    def _write(self, num_rows: int, monster: int) -> Iterator[bytes]:
        yield b"["
        for n in range(num_rows):
            yield b'{"n": %d, "x": "' % n
            for _ in range(monster if n == 5 else 1):
                yield b"x" * 10_000
            yield b'"},\n'
        yield b'{"n": -1}]'

    def read(self, size: int | None = -1) -> bytes:
        parts = [self._left]
        while sum(map(len, parts)) < (size or 0) and (piece := next(self._pieces, b"")):
            parts.append(piece)
        joined = b"".join(parts)
        self._left = joined[size:]
        return joined[:size]


def test_an_array_is_read_in_bounded_memory_and_a_monster_in_it_is_not_held() -> None:
    tracemalloc.start()
    found = [
        (line, record["n"] if isinstance(record, dict) else record.rule)
        for line, record in read_array(_Endless(1000, monster=3000), max_bytes=1 << 18)
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(n + 1, "line_too_long" if n == 5 else n) for n in range(1000)] + [(1001, -1)]
    assert peak < 12 << 20


def test_a_line_that_is_too_long_is_not_held_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n"' + b"x" * (40 << 20) + b'"\n{"a": 2}\n')
    tracemalloc.start()
    found = records(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [line for line, _ in found] == [1, 2, 3]
    assert rules(found) == [(2, "line_too_long")]
    assert peak < 8 << 20


@pytest.mark.parametrize("encoding", ["latin-1", "gbk"])
def test_another_encoding_costs_the_lines_that_use_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": 1}\n{"a": "é à"}\n{"a": 2}\n'.encode(encoding))
    assert rules(records(path)) == [(2, "invalid_utf8")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_wide_encoding_is_named_once(tmp_path: Path, encoding: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes('["instruction", "x"]'.encode(encoding))
    with pytest.raises(DataError, match=f"is in {encoding[:6].upper()}; save it as UTF-8"):
        cut(path)


def csv_rows(content: bytes, *, max_bytes: int = 1 << 20) -> list[tuple[int, Record]]:
    return list(read_csv(io.BytesIO(content), path="a.csv", max_bytes=max_bytes))


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    plain = b"".join(b"q%d,a%d\n" % (n, n) for n in range(50))
    found = csv_rows(b'i,o\nx,y\n"open,z\n' + plain + b'"two\nlines",y\n')
    assert rules(found) == [(3, "malformed_csv")]
    assert len(good(found)) == 52
    assert found[-1][0] == 54
    swallowed = csv_rows(b'i,o\n"open,z\n' + plain, max_bytes=100)
    assert rules(swallowed) == [(2, "line_too_long")]
    assert len(good(swallowed)) == 50


def test_the_rest_of_a_broken_record_is_not_taken_for_a_row() -> None:
    found = csv_rows(b'i,o\n"two\nlines"x,y\na,b\n')
    assert rules(found) == [(2, "malformed_csv"), (3, "malformed_csv")]
    assert good(found) == [{"i": "a", "o": "b"}]


def test_csv_rows_with_nul_or_too_long_cost_only_themselves() -> None:
    found = csv_rows(b"i,o\n\0,y\n" + b"x" * 300 + b",y\na,b\n", max_bytes=200)
    assert rules(found) == [(2, "nul_byte"), (3, "line_too_long")]
    assert good(found) == [{"i": "a", "o": "b"}]


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=12))
def test_csv_as_it_is_commonly_written_comes_back(rows: list[Any]) -> None:
    rows = [(a.replace("\r", "").replace("\0", ""), b.replace("\r", "") + "!") for a, b in rows]
    text = pd.DataFrame(rows, columns=["i", "o"]).to_csv(index=False, quoting=1)
    assert [(r["i"], r["o"]) for r in good(csv_rows(text.encode("utf-8", "replace")))] == [
        (a.encode("utf-8", "replace").decode(), b.encode("utf-8", "replace").decode()) for a, b in rows if "\0" not in b
    ]


def test_a_text_of_a_column_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"ok", b"\xff", b"fine"], pa.binary())
    table = pa.table({"a": pa.Array.from_buffers(pa.string(), 3, raw.buffers())})
    pq.write_table(table, tmp_path / "a.parquet")
    found = records(tmp_path / "a.parquet")
    assert (rules(found), good(found)) == ([(2, "invalid_utf8")], [{"a": "ok"}, {"a": "fine"}])


def test_a_record_of_a_columnar_file_may_be_too_long_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"t": [{"c": "x" * 2000}]}, {"t": [{"c": "x"}]}])
    assert rules(records(path, max_line_bytes=1024)) == [(1, "line_too_long")]


def test_a_columnar_file_that_breaks_off_is_named_with_its_last_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", ROWS)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"a\.arrow: not readable as Arrow after row \d"):
        records(path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not readable as Parquet"):
        cut(tmp_path / "a.parquet")


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_missing_package_for_a_protocol_is_named() -> None:
    with pytest.raises(DataError, match=r"reading s3:// needs a package: pip install s3fs"):
        find_files("s3://bucket/rows.jsonl")


def test_a_shard_is_small_whatever_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS * 500)
    assert len(pickle.dumps(cut(path)[0])) < 500
