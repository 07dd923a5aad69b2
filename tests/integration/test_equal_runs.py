"""Whole runs that must be equal, bit for bit: of one worker and of two, disturbed and undisturbed."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cluster.audit import audit
from cluster.config import RunConfig
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from cluster.setup import gather_inputs
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord, EndRecord, RestartRecord
from tests.integration.tiny_run import command, environment, start, write_config
from tests.unit.train.local_run import LocalRun

pytestmark = [pytest.mark.ray, pytest.mark.timeout(560)]

LONGER = ("train.steps=400", "mixture.interval_steps=20", "train.checkpoint_every_intervals=2")


def ledger_bytes(root: Path) -> bytes:
    return (root / "ledger" / "ledger.jsonl").read_bytes()


def model_bytes(root: Path) -> bytes:
    return (root / "model" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("local_ray")
def test_equal_runs_of_one_worker_and_of_two_write_the_same_ledger_and_the_same_weights(tmp_path: Path) -> None:
    one, two = (start(tmp_path, f"of{workers}", num_workers=workers) for workers in (1, 2))
    assert ledger_bytes(one) == ledger_bytes(two)
    assert model_bytes(one) == model_bytes(two)


def test_killing_every_kind_of_process_then_interrupting_and_resuming_changes_no_weight(tmp_path: Path) -> None:
    with Started(tmp_path, "disturbed") as run:
        run.wait_for('"kind":"checkpoint"')
        run.kill("RayTrainWorker")
        run.wait_for('"kind":"attempt","attempt":1')
        run.wait_for('"kind":"decision"', after='"attempt":1')
        run.kill("EvaluationActor")
        run.wait_for('"actor":"evaluator"')
        run.kill("HeatEngineActor")
        run.wait_for('"actor":"engine"')
        run.process.send_signal(signal.SIGINT)
        assert run.finish() == 0, run.output()
    assert f"taskheat run --resume {run.root}" in run.output()
    stopped = [record for record in read_ledger(run.root) if isinstance(record, EndRecord)]
    assert [end.reason for end in stopped] == ["stopped"]
    assert stopped[0].step < 400

    arguments = command("run", "--resume", str(run.root))
    resumed = subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=280, check=False)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    records = list(read_ledger(run.root))
    assert [record.attempt for record in records if isinstance(record, AttemptRecord)] == [0, 1, 2]
    assert {record.actor for record in records if isinstance(record, RestartRecord)} == {"engine", "evaluator"}
    assert audit(run.root).num_steps == 400
    config = load_config(RunConfig, files=[RunDirectory(run.root).config])
    undisturbed = LocalRun(config=config, inputs=gather_inputs(config), folder=tmp_path / "undisturbed")
    undisturbed.start()
    assert audit(run.root).num_samples == audit(undisturbed.ledger).num_samples
    assert model_bytes(run.root) == undisturbed.weights


class Started:
    """A run in the background that can be watched through its ledger and lose processes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root = folder / "runs" / name
        self.log = folder / f"{name}.log"
        arguments = command("run", str(write_config(folder)), f"output.name={name}", *LONGER)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                arguments, stdout=log, stderr=subprocess.STDOUT, env=environment(), cwd=folder, start_new_session=True
            )

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._descendants(), self.process]:
            process.kill()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def finish(self) -> int:
        return self.process.wait(timeout=280)

    def wait_for(self, part: str, *, after: str = "", timeout_s: float = 200) -> None:
        """Wait until a line of the ledger holds `part`, below the first line that holds `after`."""
        self._until(lambda: part in self._ledger().partition(after or "\n")[2], timeout_s, part)

    def kill(self, name: str) -> None:
        """SIGKILL one process of the run by what Ray calls it."""
        victims = [process for process in self._descendants() if name in " ".join(process.cmdline())]
        assert victims, f"no process of this run is called {name}"
        victims[0].kill()

    def _ledger(self) -> str:
        path = self.root / "ledger" / "ledger.jsonl"
        return path.read_text() if path.exists() else ""

    def _descendants(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children(recursive=True)

    def _until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"the run ended before {what!r}:\n{self.output()}"
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what!r}:\n{self.output()}"
            time.sleep(0.05)
