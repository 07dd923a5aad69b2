"""One training run under attack: a real `taskheat run` on a cluster of several nodes, and what can be done to it.

The run is a process of its own, driven through the command line; it is seen through what it writes: its ledger and the
journal of its checkpoints. Every fault is real: processes get SIGKILL or SIGTERM, checkpoints lose bytes on disk, the
storage is moved away or filled up. `recovered` of a fault is true once the run is past it.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from scheduler.errors import LedgerError
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord, IntervalRecord, RestartRecord

PROJECT = Path(__file__).parents[1]

Kind = Literal[
    "kill rank 0",
    "kill another rank",
    "end a rank (SIGTERM)",
    "kill the evaluation",
    "kill the engine",
    "kill a node",
    "kill the driver, resume",
    "truncate the newest checkpoint, kill a rank",
    "flip a bit of the newest checkpoint, kill a rank",
    "storage goes away",
    "storage is full",
]


class NotRecoveredError(Exception):
    """The run did not come back, or ended where it should not have."""


@dataclass
class AttackedRun:
    """A run in the background. `nodes` kills and adds nodes; `storage` is where its checkpoints go."""

    root: Path
    config: Path
    settings: tuple[str, ...]
    storage: Path
    nodes: Any
    patience_s: float
    process: Any = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.root.parent / f"{self.root.name}.log"

    # -- the run ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, or go on with a run that a dead driver left."""
        begun = (self.root / "manifest.json").is_file()
        launch = [setting for setting in self.settings if setting.startswith("launch.")]
        arguments = ["--resume", str(self.root), *launch] if begun else [str(self.config), *self.settings]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cluster", "run", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
                cwd=PROJECT,
                start_new_session=True,
            )

    def finish(self) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(timeout=self.patience_s)
        except subprocess.TimeoutExpired as error:
            raise NotRecoveredError(
                f"still running {self.patience_s:g} s after the last fault\n{self.tail()}"
            ) from error

    def stop(self) -> None:
        """End what is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def tail(self) -> str:
        """The last lines it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    # -- what can be seen of it -------------------------------------------------------------------------------------

    def records(self) -> list[Any]:
        """The ledger so far; nothing before it is there."""
        try:
            return list(read_ledger(self.root))
        except LedgerError:
            return []

    def progress(self) -> tuple[int, int]:
        """Attempt and step of the last boundary of the last attempt; the step is -1 before it reported one."""
        attempt, step = -1, -1
        for record in self.records():
            if isinstance(record, AttemptRecord):
                attempt, step = record.attempt, -1
            elif isinstance(record, IntervalRecord) and record.report.attempt == attempt:
                step = record.report.step
        return attempt, step

    def num_restarts(self, actor: str) -> int:
        """How often this actor came back."""
        return sum(isinstance(record, RestartRecord) and record.actor == actor for record in self.records())

    def durable(self) -> list[dict[str, Any]]:
        """The journal of durable checkpoints."""
        path = self.root / "checkpoints.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def wait_for(self, condition: Callable[[], bool], what: str, *, may_end: bool = False) -> float:
        """Seconds until `condition` holds.

        Raises:
            NotRecoveredError: It does not in time, or the run ended before and `may_end` is not set.
        """
        started = time.monotonic()
        while not condition():
            if self.process.poll() is not None:
                if may_end and self.process.returncode == 0:
                    break
                raise NotRecoveredError(f"the run ended before: {what}\n{self.tail()}")
            if time.monotonic() - started > self.patience_s:
                raise NotRecoveredError(f"waited {self.patience_s:g} s for: {what}\n{self.tail()}")
            time.sleep(0.1)
        return time.monotonic() - started

    # -- faults -----------------------------------------------------------------------------------------------------

    def inflict(self, kind: Kind, chance: random.Random) -> float:
        """Do it; returns the seconds until the run was past it."""
        attempt = self.progress()[0]
        match kind:
            case "kill rank 0" | "kill another rank":
                self._kill_rank(first=kind == "kill rank 0", how=signal.SIGKILL)
                return self._restarted(attempt)
            case "end a rank (SIGTERM)":
                self._kill_rank(first=chance.random() < 0.5, how=signal.SIGTERM)
                return self._restarted(attempt)
            case "kill the evaluation" | "kill the engine":
                name, actor = ("Evaluat", "evaluator") if "eval" in kind else ("HeatEngine", "engine")
                before = self.num_restarts(actor)
                self._one_of(self._processes(name), kind).kill()
                return self.wait_for(lambda: self.num_restarts(actor) > before, f"{actor} back", may_end=True)
            case "kill a node":
                self.nodes.kill_one_of(self.worker_processes())
                seconds = self._restarted(attempt)
                self.nodes.add()
                return seconds
            case "kill the driver, resume":
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                self.start()
                return self._restarted(attempt)
            case "truncate the newest checkpoint, kill a rank" | "flip a bit of the newest checkpoint, kill a rank":
                self._damage(chance, truncate=kind.startswith("truncate"))
                self._kill_rank(first=chance.random() < 0.5, how=signal.SIGKILL)
                return self._restarted(attempt)
            case "storage goes away" | "storage is full":
                return self._without_storage(kind, chance.uniform(1.0, 4.0))

    def worker_processes(self) -> list[int]:
        """Process ids of the training workers."""
        return [process.pid for process in self._processes("RayTrainWorker")]

    def _restarted(self, attempt: int) -> float:
        return self.wait_for(
            lambda: self.progress()[0] > attempt and self.progress()[1] >= 0, "the next attempt's first boundary"
        )

    def _processes(self, name: str) -> list[psutil.Process]:
        """Processes of the nodes by what Ray calls them."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _kill_rank(self, *, first: bool, how: signal.Signals) -> None:
        """Rank 0 is the process that wrote the last line of the journal."""
        self.wait_for(lambda: bool(self._processes("RayTrainWorker")), "a worker to kill")
        workers = self._processes("RayTrainWorker")
        journal = self.durable()
        writer = journal[-1]["pid"] if journal else None
        ranked = sorted(workers, key=lambda process: (process.pid == writer) != first)
        ranked[0].send_signal(how)

    def _one_of(self, processes: list[psutil.Process], kind: str) -> psutil.Process:
        if not processes:
            raise NotRecoveredError(f"no process to be hit by: {kind}")
        return processes[0]

    def _damage(self, chance: random.Random, *, truncate: bool) -> None:
        """Cut off or alter the newest durable checkpoint, at a random byte of a random file."""
        steps = sorted(path for path in self.storage.glob("step-*") if (path / "manifest.json").is_file())
        if not steps:
            return
        path = chance.choice(sorted(steps[-1].iterdir()))
        content = bytearray(path.read_bytes())
        place = chance.randrange(len(content))
        if truncate:
            content = content[:place]
        else:
            content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)

    def _without_storage(self, kind: str, seconds: float) -> float:
        """Take the storage away for a while; past it once a checkpoint is durable again."""
        before = len(self.durable())
        if kind == "storage goes away":
            hidden = self.storage.with_name("moved-away")
            self.storage.rename(hidden)
            self.storage.touch()
        else:
            hidden = self.storage.with_name("filler")
            with hidden.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
        time.sleep(seconds)
        if kind == "storage goes away":
            self.storage.unlink()
            hidden.rename(self.storage)
        else:
            hidden.unlink()
        return self.wait_for(lambda: len(self.durable()) > before, "a durable checkpoint", may_end=True)
