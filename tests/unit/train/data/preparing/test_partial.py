import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.data.preparing.partial import partial_folder, remove_abandoned

KEY = "0123456789abcdef01234567"
HOLD = """
import sys, time
from pathlib import Path
from train.data.preparing.partial import partial_folder
with partial_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def age(folder: Path, *, hours: float) -> None:
    then = time.time() - hours * 3600
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def test_a_partial_folder_has_a_spill_and_is_gone_at_the_end_unless_it_was_moved(tmp_path: Path) -> None:
    with partial_folder(tmp_path / KEY) as folder:
        assert (folder / "spill").is_dir()
    with pytest.raises(KeyboardInterrupt), partial_folder(tmp_path / KEY):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with partial_folder(tmp_path / KEY) as folder:
        folder.rename(tmp_path / KEY)
    assert [path.name for path in tmp_path.iterdir()] == [KEY]


def test_the_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / KEY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        try:
            remove_abandoned(tmp_path)
            assert folder.is_dir()
        finally:
            owner.send_signal(signal.SIGKILL)
            owner.wait()
    assert folder.is_dir()
    with partial_folder(tmp_path / ("f" * 24)):
        assert not folder.exists()


def test_the_folder_of_another_machine_goes_only_when_a_day_old_and_nothing_else_goes_at_all(tmp_path: Path) -> None:
    folders = [tmp_path / f".{KEY}-{number:08x}" for number in range(3)]
    for folder in folders:
        (folder / "spill").mkdir(parents=True)
        (folder / "spill" / "owner").write_text("another.machine")
    (folders[2] / "spill" / "owner").unlink()
    kept = [tmp_path / KEY, tmp_path / ".cache", tmp_path / f".{KEY}-x"]
    for path in kept:
        path.mkdir()
        age(path, hours=1000)
    age(folders[0], hours=30)
    age(folders[1], hours=30)
    (folders[1] / "spill" / "rows-00000.arrow").write_text("written just now")
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*folders[1:], *kept])
    age(folders[2], hours=30)
    remove_abandoned(tmp_path)
    assert not folders[2].exists()
