"""The way of a checkpoint from this node's disk to the storage of the run, while training goes on.

    training   stage ── submit ──► goes on                 stage ── submit (takes the place of one that waits) ──►
    thread              publish ✗ ─ wait 0.5 s ─ publish ✗ ─ wait 1 s ─ publish ✓ ─ remove old ones

One thread, one upload at a time, at most one that waits: a storage that is slow or down costs neither memory nor
training time, only checkpoints. A staged checkpoint stays on the node until it is durable, so a worker that restarts
there finishes the upload its predecessor had begun.

What the thread does is told through `news`, at the caller's time; the thread talks to no one. `journal` gets a line
when a checkpoint is durable: wall-clock times belong there and not into the ledger, which is equal for equal runs.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from train.checkpoint_storage import Storage

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Staged:
    """A checkpoint that lies whole in a folder of this node."""

    step: int
    folder: Path


@dataclass(frozen=True, slots=True)
class StorageNews:
    """What happened to the upload of the checkpoint at `step`, in words."""

    step: int
    text: str


class Uploader:
    """One background thread that publishes staged checkpoints. `after_each` runs in it once one is durable."""

    def __init__(self, storage: Storage, *, journal: Path | None = None, after_each: Callable[[], None]) -> None:
        self._storage, self._journal, self._after_each = storage, journal, after_each
        self._changed = threading.Condition()
        self._waiting: Staged | None = None
        self._working: Staged | None = None
        self._closed = False
        self._news: list[StorageNews] = []
        self._num_behind = 0
        self._thread: threading.Thread | None = None

    @property
    def num_behind(self) -> int:
        """Checkpoints submitted since the last one that became durable."""
        return self._num_behind

    def submit(self, staged: Staged) -> None:
        """Upload it when the thread is free; one that still waits is dropped for it."""
        with self._changed:
            if self._waiting is not None:
                self._drop(self._waiting)
            self._waiting = staged
            self._num_behind += 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checkpoint upload", daemon=True)
            self._thread.start()

    def failed(self, step: int, error: Exception) -> None:
        """A checkpoint could not even be staged."""
        with self._changed:
            self._num_behind += 1
            self._news.append(StorageNews(step, f"the checkpoint could not be staged: {_in_words(error)}"))

    def news(self) -> list[StorageNews]:
        """What happened since the last call; nothing while storage works."""
        with self._changed:
            told, self._news = self._news, []
        return told

    def drain(self, timeout_s: float) -> bool:
        """Wait until every checkpoint taken is durable; False if one is not in time, or could not even be staged."""
        with self._changed:
            idle = self._changed.wait_for(lambda: self._waiting is None and self._working is None, timeout=timeout_s)
            return idle and self._num_behind == 0

    def close(self) -> None:
        """End the thread after the try it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                self._working, self._waiting = self._waiting, None
            self._upload(self._working)
            with self._changed:
                self._working = None
                self._changed.notify_all()

    def _upload(self, staged: Staged) -> None:
        """Try until it is durable, a newer one waits, or nobody does any more."""
        started, wait_s, tries = time.monotonic(), _FIRST_WAIT_S, 0
        while True:
            tries += 1
            try:
                self._storage.publish(staged.folder, staged.step)
                break
            except Exception as error:  # noqa: BLE001 - every file system raises its own kinds; each is a failed try
                self._note_failure(staged.step, tries, error)
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting is not None, timeout=wait_s)
                if self._closed:
                    return
                if self._waiting is not None:
                    self._drop(staged)
                    return
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        self._became_durable(staged, tries=tries, seconds=time.monotonic() - started)

    def _became_durable(self, staged: Staged, *, tries: int, seconds: float) -> None:
        num_bytes = sum(file.stat().st_size for file in staged.folder.iterdir())
        shutil.rmtree(staged.folder, ignore_errors=True)
        with self._changed:
            self._num_behind = 0 if self._waiting is None else 1
            if tries > 1:
                self._news.append(StorageNews(staged.step, f"the checkpoint was stored at try {tries}"))
        try:
            self._after_each()
        except Exception as error:  # noqa: BLE001 - as above; what could not be removed goes with the next one
            self._note_failure(staged.step, 1, error)
        if self._journal is not None:
            durable = datetime.now(UTC).isoformat(timespec="milliseconds")
            who = {"host": socket.gethostname(), "pid": os.getpid()}
            line = {"step": staged.step, "durable": durable, "bytes": num_bytes, "s": round(seconds, 3), "tries": tries}
            with contextlib.suppress(OSError), self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | who) + "\n")

    def _note_failure(self, step: int, tries: int, error: Exception) -> None:
        if tries == 1:
            with self._changed:
                self._news.append(StorageNews(step, f"storage failed for the checkpoint, retrying: {_in_words(error)}"))

    def _drop(self, staged: Staged) -> None:
        """Called with the lock held."""
        self._news.append(StorageNews(staged.step, "the checkpoint was given up for a newer one"))
        shutil.rmtree(staged.folder, ignore_errors=True)


def _in_words(error: Exception) -> str:
    """One line without paths of this machine where the error can be told without them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
