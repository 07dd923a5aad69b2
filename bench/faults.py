"""A campaign of randomly timed faults over short runs on a cluster of several nodes: does everything survive?

    python -m bench.faults [--quick] [--check] [--faults N] [--seed S] [--work DIR]

One Ray cluster (a head that trains nothing, and three nodes, one more than the workers need) serves all runs; each run
trains a tiny model on two workers and suffers several faults at random moments (`bench.fault_run` has the kinds). A
run passes if it ends with exit code 0 at its last step; if `taskheat replay` recomputes every plan and every sample, so
that none is lost or repeated; and if its weights and its counts of samples are those of a run that nothing happened to,
bit for bit. The table shows how often each kind was inflicted and how long the run took to be past it.

Faults and their moments come from the seed; how processes interleave does not. A campaign that is interrupted goes on
with the run it was at, when it is started again with the same seed, number and `--work`. `--check` exits 1 and names
every run that failed. Recovery times are wall-clock seconds on this machine, and hold its load.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from bench.ending import conclude
from bench.fault_run import AttackedRun, Kind, NotRecoveredError
from bench.local_nodes import LocalNodes
from cluster.audit import audit
from scheduler.errors import TaskheatError
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord, EndRecord

KINDS: tuple[Kind, ...] = get_args(Kind)
FAULTS_PER_RUN = 6
INTERVAL, INTERVALS_PER_FAULT, SPARE_INTERVALS = 5, 20, 60
"""A step takes about 0.03 s: a storage that is away for four seconds is away for some 25 intervals."""
STORAGE_MB = 24


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, after which step, how long after that boundary was reported, and the seconds to be past it."""

    kind: Kind
    after_step: int
    delay_s: float
    recovery_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How one run came out; `problem` is empty if it passed."""

    number: int
    storage: str
    faults: tuple[Fault, ...]
    attempts: int
    wall_s: float
    problem: str


class Storage:
    """Where checkpoints go: a small file system of its own where this process may mount one, else a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={STORAGE_MB}m", "tmpfs", str(folder)]
        mounted = os.path.ismount(folder) or subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self.can_be_full = mounted

    def close(self) -> None:
        """Give the file system back."""
        if self.can_be_full:
            subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


def schedule(num_faults: int, seed: int, kinds: tuple[Kind, ...]) -> list[tuple[Fault, ...]]:
    """The faults of each run: every kind as often as any other, in random order, at random moments."""
    chance = random.Random(seed)
    drawn: list[Kind] = []
    while len(drawn) < num_faults:
        drawn += chance.sample(kinds, len(kinds))
    drawn = drawn[:num_faults]
    runs = [drawn[start : start + FAULTS_PER_RUN] for start in range(0, num_faults, FAULTS_PER_RUN)]
    return [tuple(_moment(kind, place, chance) for place, kind in enumerate(own)) for own in runs]


def _moment(kind: Kind, place: int, chance: random.Random) -> Fault:
    earliest = 2 + place * INTERVALS_PER_FAULT
    boundary = chance.randint(earliest, earliest + INTERVALS_PER_FAULT - 1)
    return Fault(kind=kind, after_step=INTERVAL * boundary, delay_s=round(chance.uniform(0.0, 1.0), 3))


def num_steps(num_faults: int) -> int:
    """Steps of a run with so many faults."""
    return INTERVAL * (2 + num_faults * INTERVALS_PER_FAULT + SPARE_INTERVALS)


class Campaign:
    """All runs of one campaign; what is done is kept in `work`."""

    def __init__(self, work: Path, *, seed: int, patience_s: float) -> None:
        self.work, self.seed, self.patience_s = work, seed, patience_s
        self.config = write_inputs(work)
        self.storage = Storage(work / "storage")
        self.nodes = LocalNodes([{"num_cpus": 1}] * 3)

    def close(self) -> None:
        """End the cluster."""
        self.nodes.close()
        self.storage.close()

    def settings(self, name: str, *, steps: int, storage: str) -> tuple[str, ...]:
        """What is laid over the configuration for one run."""
        return (
            f"output.name={name}",
            f"output.dir={self.work / 'runs'}",
            f"output.storage={storage}",
            f"train.steps={steps}",
            f"launch.address={self.nodes.address}",
            "train.max_undurable_checkpoints=1000",
            "launch.max_failures=50",
            "launch.sigterm_grace_s=30",
            "launch.num_workers=2",
        )

    def reference(self, steps: int) -> Path:
        """The run that nothing happens to; made once."""
        name = f"undisturbed-{steps}"
        root = self.work / "runs" / name
        if not (root / "report.json").is_file():
            run = self._attacked(name, steps, storage=str(self.storage.folder))
            run.start()
            if run.finish() != 0:
                raise SystemExit(f"the undisturbed run failed:\n{run.tail()}")
        return root

    def run(self, number: int, faults: tuple[Fault, ...]) -> RunResult:
        """One run under its faults, and whether it came out as if there had been none."""
        steps, name = num_steps(len(faults)), f"run-{number:02d}"
        reference = self.reference(steps)
        url = f"file://{self.storage.folder}" if number % 2 else str(self.storage.folder)
        run = self._attacked(name, steps, storage=url)
        chance, suffered, problem, started = random.Random(f"{self.seed}/{number}"), [], "", time.monotonic()
        run.start()
        try:
            for fault in faults:
                self._wait_for_moment(run, fault)
                seconds = run.inflict(fault.kind, chance)
                suffered.append(Fault(fault.kind, fault.after_step, fault.delay_s, round(seconds, 2)))
                print(
                    f"  run {number}: {fault.kind} after step {fault.after_step}: past it in {seconds:.1f} s",
                    flush=True,
                )
            code = run.finish()
            problem = f"exit code {code}\n{run.tail()}" if code else difference(run.root, reference, steps=steps)
        except NotRecoveredError as error:
            problem = str(error)
        finally:
            run.stop()
        attempts = sum(isinstance(record, AttemptRecord) for record in run.records())
        return RunResult(
            number=number,
            storage="URL" if number % 2 else "folder",
            faults=tuple(suffered),
            attempts=attempts,
            wall_s=round(time.monotonic() - started, 1),
            problem=problem,
        )

    def _attacked(self, name: str, steps: int, *, storage: str) -> AttackedRun:
        return AttackedRun(
            root=self.work / "runs" / name,
            config=self.config,
            settings=self.settings(name, steps=steps, storage=storage),
            storage=self.storage.folder / name / "checkpoints",
            nodes=self.nodes,
            patience_s=self.patience_s,
        )

    def _wait_for_moment(self, run: AttackedRun, fault: Fault) -> None:
        run.wait_for(lambda: run.progress()[1] >= fault.after_step, f"step {fault.after_step}")
        time.sleep(fault.delay_s)


def difference(root: Path, reference: Path, *, steps: int) -> str:
    """What tells the run from the undisturbed one; nothing if it is the same run."""
    try:
        ours, theirs = audit(root), audit(reference)
    except TaskheatError as error:
        return f"replay: {error}"
    end = [record for record in read_ledger(root) if isinstance(record, EndRecord)][-1:]
    if end != [EndRecord(step=steps, reason="finished")] or ours.num_steps != steps:
        return f"ended with {end}, {ours.num_steps} of {steps} steps"
    if ours.num_samples != theirs.num_samples:
        return f"samples {ours.num_samples}, undisturbed {theirs.num_samples}"
    if (root / "model/model.safetensors").read_bytes() != (reference / "model/model.safetensors").read_bytes():
        return "the weights are not those of the undisturbed run"
    return ""


def write_inputs(work: Path) -> Path:
    """Three tasks of a hundred rows, and the configuration of every run."""
    chance, data = random.Random(0), work / "data"
    data.mkdir(parents=True, exist_ok=True)
    makers = {"copy": " ".join, "last": lambda word: word[-1], "first": lambda word: word[0]}
    for name, answer in makers.items():
        words = sorted({"".join(chance.choices("abcdef", k=4)) for _ in range(120)})
        rows = [{"instruction": name, "input": " ".join(word), "output": answer(word)} for word in words]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = work / "run.yaml"
    config.write_text(
        "model: {type: tiny, hidden_size: 32, num_layers: 1, num_heads: 2, vocab_size: 300}\n"
        f"data: {{sources: [{', '.join(str(path) for path in sorted(data.glob('*.jsonl')))}], "
        "probes_per_task: 8, test_per_task: 8}\n"
        "train: {global_batch_size: 8, micro_batch_size: 4, learning_rate: 3e-3, checkpoint_every_intervals: 2}\n"
        f"mixture: {{interval_steps: {INTERVAL}, plan_timeout_s: 600}}\n"
        "evaluation: {max_new_tokens: 4, sampled_probes: 2, samples_per_probe: 2}\n"
        "stages: [{name: one, until: {type: step, step: 40}}, {name: two}]\n"
    )
    return config


def table(results: list[RunResult]) -> str:
    """Recovery times by kind."""
    times: dict[str, list[float]] = {}
    for fault in (fault for result in results for fault in result.faults):
        times.setdefault(fault.kind, []).append(fault.recovery_s or 0.0)
    lines = [f"{'fault':50} {'times':>6} {'median s':>9} {'max s':>8}"]
    for kind in KINDS:
        own = times.get(kind, [])
        shown = f"{statistics.median(own):9.1f} {max(own):8.1f}" if own else f"{'absent':>9} {'-':>8}"
        lines.append(f"{kind:50} {len(own):6d} {shown}")
    num_faults = sum(map(len, times.values()))
    passed = sum(not result.problem for result in results)
    lines.append(f"{passed} of {len(results)} runs passed; {num_faults} faults")
    return "\n".join(lines)


def read_results(path: Path) -> list[RunResult]:
    """The runs of an interrupted campaign."""
    if not path.is_file():
        return []
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    return [RunResult(**{**one, "faults": tuple(Fault(**fault) for fault in one["faults"])}) for one in kept]


def main() -> int:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="eight faults")
    parser.add_argument("--check", action="store_true", help="exit 1 if a run failed")
    parser.add_argument("--faults", type=int, default=None, help="how many (55; quick: 8)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="where the campaign is kept")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds a run may take to be past a fault")
    given = parser.parse_args()
    num_faults = given.faults or (8 if given.quick else 55)
    default = Path(tempfile.gettempdir()) / f"taskheat-faults-{given.seed}-{num_faults}"
    work = (given.work or default).absolute()
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "results.jsonl"
    results = read_results(kept)
    campaign = Campaign(work, seed=given.seed, patience_s=given.patience)
    kinds = KINDS if campaign.storage.can_be_full else KINDS[:-1]
    try:
        for number, faults in enumerate(schedule(num_faults, given.seed, kinds)):
            if number < len(results):
                continue
            results.append(campaign.run(number, faults))
            with kept.open("a") as file:
                file.write(json.dumps(asdict(results[-1])) + "\n")
            print(f"run {number}: {results[-1].problem or 'passed'} ({results[-1].wall_s:.0f} s)", flush=True)
    finally:
        campaign.close()
    print(table(results))
    failed = [f"run {result.number}: {result.problem}" for result in results if result.problem]
    figures = {"seed": given.seed, "runs": [asdict(result) for result in results]}
    return conclude("faults", figures, failed, check=given.check)


if __name__ == "__main__":
    sys.exit(main())
