"""Runs as jobs of a real local cluster with token authentication, submitted from another directory.

    python -m bench.jobs [--quick] [--check] [--part NAME ...]

Starts a head with a token of its own and, first on its PYTHONPATH, another distribution's package `scheduler`. Then:

    unreachable, no token, wrong token    `taskheat submit` ends with 2 and says what to do
    taskheat submit                       the demo, its data travelling; status, log and exit code come back
    taskheat submit --no-wait, job stop   its metrics are served; the run ends with a checkpoint; --resume goes on
    ray job submit --working-dir          the demo as the README shows it, and the doctor on the cluster

It shows that these work and what a submission adds in seconds; it is no benchmark of Ray. `--quick` leaves out the
second and third job.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench.ending import conclude
from bench.local_cluster import LocalCluster, local_cluster
from cluster.metrics.names import METRICS

PROJECT = Path(__file__).parents[1]
DEMO = PROJECT / "examples" / "finrisk"
SMALL = (
    "train.steps=20",
    "mixture.interval_steps=10",
    "stages.0.until={type: step, step: 10}",
    "train.checkpoint_every_intervals=1",
    "data.probes_per_task=8",
    "data.test_per_task=8",
    "evaluation.sampled_probes=2",
    "evaluation.max_new_tokens=4",
)
_TIMEOUT_S = 900


@dataclass(slots=True)
class Findings:
    """What was tried, whether it went as it must, and how long it took."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def note(self, what: str, passed: bool, seconds: float, shown: str) -> None:
        """Keep and print one finding."""
        self.rows.append({"what": what, "passed": passed, "seconds": round(seconds, 1), "shown": shown})
        click.echo(f"{'ok  ' if passed else 'FAIL'} {seconds:6.1f} s  {what}: {shown}")


@dataclass(frozen=True, slots=True)
class Bench:
    """The cluster, a folder that is its shared storage, and a folder elsewhere to submit from."""

    cluster: LocalCluster
    storage: Path
    elsewhere: Path

    def taskheat(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run our command line from elsewhere."""
        return self._run([sys.executable, "-m", "cluster", *arguments], environment or self.cluster.environment())

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Ray's command line from elsewhere."""
        return self._run([str(Path(sys.executable).with_name("ray")), *arguments], self.cluster.environment())

    def _run(self, command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.elsewhere,
            env={**environment, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def submit_demo(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`taskheat submit` of the small demo."""
        where = (f"launch.storage={self.storage}", f"output.dir={self.storage / 'runs'}", f"output.name={name}")
        address = ("--address", self.cluster.address)
        return self.taskheat("submit", str(DEMO / "run.yaml"), *SMALL, *where, *address, *arguments)


def foreign_scheduler(folder: Path) -> Path:
    """A folder for PYTHONPATH that holds another distribution with a package `scheduler`."""
    site = folder / "foreign-site"
    (site / "scheduler").mkdir(parents=True)
    (site / "scheduler" / "__init__.py").write_text("FOREIGN = True\n", encoding="utf-8")
    metadata = site / "scheduler-9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: scheduler\nVersion: 9.9\n", encoding="utf-8")
    return site


def refusals(bench: Bench, findings: Findings) -> None:
    """Addresses and tokens that cannot work."""
    where = (f"launch.storage={bench.storage}", f"output.dir={bench.storage / 'runs'}")
    demo = ("submit", str(DEMO / "run.yaml"), *where, "--address")
    nobody = {**bench.cluster.environment(), "HOME": str(bench.elsewhere)}
    nobody.pop("RAY_AUTH_TOKEN_PATH")
    cases = {
        "unreachable address": ("http://127.0.0.1:9", bench.cluster.environment(), "no Ray job server answers"),
        "no token": (bench.cluster.address, nobody, "there is none here"),
        "wrong token": (
            bench.cluster.address,
            {**bench.cluster.environment(), "RAY_AUTH_TOKEN": "0" * 64},
            "refused the token in RAY_AUTH_TOKEN",
        ),
    }
    for what, (address, environment, expected) in cases.items():
        started = time.monotonic()
        done = bench.taskheat(*demo, address, environment=environment)
        passed = done.returncode == 2 and expected in done.stdout and "Traceback" not in done.stdout
        findings.note(what, passed, time.monotonic() - started, _last_line(done.stdout))


def submitted(bench: Bench, findings: Findings) -> None:
    """The demo through `taskheat submit`, with a variable by name whose value must not come to light."""
    started = time.monotonic()
    secret = f"secret-{os.urandom(8).hex()}"
    os.environ["BENCH_SECRET"] = secret
    done = bench.submit_demo("submitted", "launch.job.env=[BENCH_SECRET]")
    run = bench.storage / "runs" / "submitted"
    passed = done.returncode == 0 and (run / "report.json").is_file() and "report" in done.stdout
    findings.note("taskheat submit", passed, time.monotonic() - started, _last_line(done.stdout))
    if not passed:
        click.echo(done.stdout)
        return
    replay = bench.taskheat("replay", str(run))
    findings.note("its ledger replays", replay.returncode == 0, 0.0, _last_line(replay.stdout))
    ours = [path for path in run.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    logs = [path.name for path in bench.cluster.sessions.rglob("*.log") if secret.encode() in path.read_bytes()]
    shown = f"in no file of the run and not in the output; in Ray's own logs: {sorted(set(logs)) or 'none'}"
    findings.note("a variable's value", not ours and secret not in done.stdout, 0.0, shown)


def stopped_and_resumed(bench: Bench, findings: Findings) -> None:
    """Submitted without waiting, stopped by Ray's own command once it trains, resumed by a second job."""
    started = time.monotonic()
    done = bench.submit_demo("stopped", "--no-wait", "train.steps=2000")
    job = re.search(r"^job +(\S+)", done.stdout, re.MULTILINE)
    if done.returncode or job is None:
        findings.note("submit --no-wait", False, time.monotonic() - started, done.stdout)
        return
    run = bench.storage / "runs" / "stopped"
    while not list(run.glob("checkpoints/step-*")) and time.monotonic() - started < _TIMEOUT_S:
        time.sleep(0.5)
    served, missing = _served_metrics(bench, run="stopped")
    findings.note("metrics of the run", not missing, 0.0, f"{len(served)} served, missing: {missing or 'none'}")
    bench.ray("job", "stop", "--address", bench.cluster.address, job[1])
    status = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["status"]
    findings.note("ray job stop", status == "stopped", time.monotonic() - started, f"the run's status is {status}")
    started = time.monotonic()
    where = (f"launch.storage={bench.storage}", "--address", bench.cluster.address)
    done = bench.taskheat("submit", "--resume", str(run), *where, "--no-wait")
    job = re.search(r"^job +(\S+)", done.stdout, re.MULTILINE)
    before = len((run / "ledger" / "ledger.jsonl").read_text(encoding="utf-8").splitlines())
    after = before
    while after < before + 3 and job is not None and time.monotonic() - started < _TIMEOUT_S:
        time.sleep(0.5)
        after = len((run / "ledger" / "ledger.jsonl").read_text(encoding="utf-8").splitlines())
    if job is not None:
        bench.ray("job", "stop", "--address", bench.cluster.address, job[1])
    findings.note("submit --resume", after >= before + 3, time.monotonic() - started, f"{after - before} new records")


def _served_metrics(bench: Bench, *, run: str) -> tuple[set[str], list[str]]:
    """Which of our metrics the head serves for the run, and which gauges it does not (waiting a minute at most)."""
    deadline = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(bench.cluster.metrics, timeout=10) as answer:
            text = answer.read().decode()
        served = set(re.findall(rf'^(ray_taskheat_\w+){{.*run="{run}"', text, re.MULTILINE))
        missing = [
            metric.served_name for metric in METRICS if not metric.is_counter and metric.served_name not in served
        ]
        if not missing or time.monotonic() > deadline:
            return served, missing
        time.sleep(2)


def plain(bench: Bench, findings: Findings) -> None:
    """`ray job submit`, as the README shows it: a run, a run whose output would be lost, and the doctor."""
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"  # the demo's corpus is generated, and ignored by git
    run = ("run", "examples/finrisk/run.yaml", *SMALL, "output.name=plain")
    cases = {
        "ray job submit … doctor": (("doctor", "--address", "auto", "--storage", str(bench.storage)), True, "evalsvc"),
        "ray job submit … run, no output.dir": (run, False, "lies in this job's copy of the working directory"),
        "ray job submit … run": ((*run, f"output.dir={bench.storage}/runs"), True, "succeeded"),
    }
    for what, (arguments, succeeds, expected) in cases.items():
        started = time.monotonic()
        submit = ("job", "submit", "--address", bench.cluster.address, "--working-dir", str(PROJECT), "--")
        done = bench.ray(*submit, "python", "-m", "cluster", *arguments)
        lines = [line for line in done.stdout.splitlines() if expected in line]
        passed = (done.returncode == 0) == succeeds and bool(lines)
        findings.note(what, passed, time.monotonic() - started, lines[0].strip() if lines else done.stdout)
    report = bench.storage / "runs" / "plain" / "report.json"
    findings.note("its report", report.is_file(), 0.0, str(report))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "(nothing)"


PARTS = {"refusals": refusals, "submitted": submitted, "stopped": stopped_and_resumed, "plain": plain}


@click.command()
@click.option("--quick", is_flag=True, help="Refusals and one job.")
@click.option("--part", type=click.Choice(list(PARTS)), multiple=True, help="Only these (default: all).")
@click.option("--check", is_flag=True, help="Exit 1 when something did not go as it must.")
def main(quick: bool, part: tuple[str, ...], check: bool) -> None:
    """Submit the demo to a real local cluster in every way the README shows."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster is stopped
    findings = Findings()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench_folders = {part: folder / part for part in ("storage", "elsewhere")}
        for path in bench_folders.values():
            path.mkdir()
        started = time.monotonic()
        with local_cluster(folder, environment={"PYTHONPATH": str(foreign_scheduler(folder))}) as cluster:
            findings.note("cluster", True, time.monotonic() - started, f"up at {cluster.address}")
            bench = Bench(cluster=cluster, **bench_folders)
            for name in part or (("refusals", "submitted") if quick else PARTS):
                PARTS[name](bench, findings)
    failed = [str(row["what"]) for row in findings.rows if not row["passed"]]
    sys.exit(conclude("jobs", {"rows": findings.rows}, failed, check=check))


if __name__ == "__main__":
    main()
