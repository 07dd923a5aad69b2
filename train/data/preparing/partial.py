"""The folder that a preparation is written in, and what becomes of those that killed preparations left behind.

The owner of a folder holds a lock on its file `spill/owner` while it lives, which names its machine; the kernel lets go
of the lock when the owner dies, however it dies. So a folder of this machine whose lock can be had is abandoned. Locks
of other machines may not be seen through a shared file system: their folders count as abandoned when nothing in them
has changed for a day.
"""

import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: no locks, so that only age tells
    fcntl = None

_NAME = re.compile(r"\.[0-9a-f]{24}-[0-9a-f]{8}")
_ABANDONED_S = 24 * 3600


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A new hidden folder beside `path`, with a folder `spill` in it; gone at the end unless it was moved away.

    Abandoned folders beside it are removed first.
    """
    remove_abandoned(path.parent)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    spill = partial / "spill"
    spill.mkdir(parents=True)
    try:
        with _owner(spill).open("w", encoding="utf-8") as owner:
            if _locked(owner):
                owner.write(socket.gethostname())
                owner.flush()
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_abandoned(out_dir: Path) -> None:
    """Remove the folders of preparations that were killed."""
    for folder in out_dir.iterdir() if out_dir.is_dir() else ():
        if _NAME.fullmatch(folder.name) and folder.is_dir() and _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        with _owner(folder / "spill").open("r+", encoding="utf-8") as owner:
            if owner.read() == socket.gethostname() and _locked(owner):
                return True
    except OSError:
        pass  # it has no owner yet, is being moved to its place, or may not be written
    return _last_change_s(folder) < time.time() - _ABANDONED_S


def _owner(spill: Path) -> Path:
    return spill / "owner"


def _locked(file: IO[str]) -> bool:
    """Lock the file until it is closed, if no other process has and the file system can."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _last_change_s(folder: Path) -> float:
    """When something in the folder changed last; now, where it is just going away."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:
        return time.time()
