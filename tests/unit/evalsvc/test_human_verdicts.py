import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsvc.human_verdicts import VerdictTail, check_verdicts
from scheduler.errors import DataError

ACCEPTED = b'{"task": "a", "verdict": "accepted"}\n'
REJECTED = b'{"task": "b", "verdict": "rejected", "sample_id": "7", "reviewer": "mei", "note": "\xe6\x96\x87"}\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "verdicts.jsonl"


def append(path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_a_missing_file_counts_as_empty_until_it_comes(path):
    tail = VerdictTail(path, ["a", "b"])
    assert tail.poll() == {"a": (0, 0), "b": (0, 0)}
    append(path, ACCEPTED + REJECTED)
    assert tail.poll() == {"a": (0, 1), "b": (1, 1)}
    assert tail.poll() == {"a": (0, 1), "b": (1, 1)}
    assert check_verdicts(path.with_name("absent"), ["a"]) == {"a": (0, 0)}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=8), st.data())
def test_counts_are_cumulative_wherever_the_writer_pauses(tmp_path_factory, verdicts, data):
    path = tmp_path_factory.mktemp("verdicts") / "v.jsonl"
    lines = [{"task": task, "verdict": "rejected" if rejected else "accepted"} for task, rejected in verdicts]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    tail = VerdictTail(path, ["a", "b"])
    for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        append(path, content[start:end])
        counts = tail.poll()
    expected = {name: (verdicts.count((name, True)), sum(task == name for task, _ in verdicts)) for name in "ab"}
    assert counts == expected
    assert tail.refused == []


def test_a_whole_last_line_without_a_line_end_is_counted_once(path):
    append(path, ACCEPTED.rstrip(b"\n"))
    tail = VerdictTail(path, ["a"])
    assert tail.poll() == {"a": (0, 1)}
    append(path, b"\n" + ACCEPTED)
    assert tail.poll() == {"a": (0, 2)}


def test_bad_lines_are_refused_with_their_number_and_the_rest_is_counted(path):
    bad = [
        b"not json\n",
        b'{"task": "a", "verdict": "maybe"}\n',
        b'{"task": "c", "verdict": "accepted"}\n',
        b'{"task": "a", "verdict": "accepted", "mood": 1}\n',
        b"\xff\xfe\n",
        b"[]\n",
    ]
    append(path, ACCEPTED + b"".join(bad) + b"\r\n" + ACCEPTED)
    tail = VerdictTail(path, ["a", "b"])
    assert tail.poll()["a"] == (0, 2)
    assert [line.line_number for line in tail.refused] == [2, 3, 4, 5, 6, 7]
    assert "'c' is not a task of this run; expected one of a, b" in tail.refused[2].reason
    append(path, b"{\n")
    tail.poll()
    assert tail.refused[-1].line_number == 10


def test_a_replaced_file_is_counted_from_its_beginning(path):
    append(path, ACCEPTED * 3)
    tail = VerdictTail(path, ["a", "b"])
    tail.poll()
    path.write_bytes(REJECTED)
    assert tail.poll() == {"a": (0, 0), "b": (1, 1)}
    assert "became shorter" in tail.refused[0].reason


def test_an_unreadable_file_never_stops_a_run_and_is_reported_once(tmp_path):
    tail = VerdictTail(tmp_path, ["a"])
    assert tail.poll() == tail.poll() == {"a": (0, 0)}
    assert len(tail.refused) == 1


def test_the_check_before_a_run_names_the_line_and_the_remedy(path):
    append(path, ACCEPTED + b'{"task": "a"}\n' + b"{}\n")
    with pytest.raises(
        DataError, match=r"verdicts\.jsonl, line 2: verdict: Field required \(1 more .*write one object"
    ):
        check_verdicts(path, ["a"])
