import io
import os
import pty
import subprocess
import sys

from cluster.views.preparation import Lines, amount_text, drawn_progress, rate_text

WORK = """
import time
from cluster.views.preparation import drawn_progress
with drawn_progress() as progress:
    for phase, unit, total in (("read", "bytes", 4 << 20), ("tokenise", "rows", 5000)):
        for part in range(5):
            progress.update(phase, done=part * total // 4, total=total, unit=unit)
            time.sleep(0.15)
print("done")
"""


def test_a_log_has_a_line_every_ten_seconds_with_rate_and_time_left() -> None:
    now_s, stream = [0.0], io.StringIO()
    lines = Lines(stream, clock=lambda: now_s[0])
    for done in range(0, 101, 10):
        lines.update("tokenise", done=done * 1000, total=100_000, unit="rows")
        now_s[0] += 4
    assert stream.getvalue().splitlines() == [
        "prepare: tokenise: 30,000 of 100,000 rows, 2,500 rows/s, 28 s left",
        "prepare: tokenise: 60,000 of 100,000 rows, 2,500 rows/s, 16 s left",
        "prepare: tokenise: 90,000 of 100,000 rows, 2,500 rows/s, 4 s left",
    ]


def test_a_preparation_of_a_few_seconds_logs_nothing() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    for done in (0, 5, 10):
        lines.update("read", done=done, total=10, unit="bytes")
    assert not stream.getvalue()


def test_bytes_are_told_in_mebibytes_and_rows_one_by_one() -> None:
    assert amount_text(3 << 20, 302 << 20, "bytes") == "3 of 302 MiB"
    assert amount_text(4096, 100_000, "rows") == "4,096 of 100,000 rows"
    assert rate_text(9e6, "bytes") == "8.6 MiB/s"
    assert rate_text(11_204.4, "rows") == "11,204 rows/s"


def test_where_stderr_is_no_terminal_no_control_character_is_written(capsys) -> None:
    with drawn_progress() as progress:
        progress.update("read", done=0, total=1, unit="bytes")
        progress.update("read", done=1, total=1, unit="bytes")
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_each_phase_with_amount_and_rate_and_is_left_clean() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", WORK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1 << 16):
                shown += part
        except OSError:  # Linux tells the end of a pseudo-terminal as an error
            pass
        os.close(ours)
        assert process.stdout is not None
        assert process.stdout.read() == b"done\n"
    text = shown.decode()
    for expected in ("read", "4 of 4 MiB", "tokenise", "5,000 of 5,000 rows", "rows/s", "0:00:0"):
        assert expected in text
    assert text.rstrip().endswith("\x1b[2K")  # the last thing done is to erase the bars' lines
