"""Each stage on its own pool of nodes, and a node killed in each: does the run come out as if nothing had happened?

    python -m bench.stages [--check] [--seed S] [--work DIR]

A Ray cluster of several nodes on this machine: a head that holds driver and engine, three nodes labelled
`pool=throughput`, two labelled `pool=large` that alone offer the resource `big`, one labelled `pool=evaluation`. A run
trains stage 1 with two workers on the first, stage 2 with one on the second; at a random moment in each stage the
raylet of a worker is killed. Shown are the pools on which workers were seen in each stage, how long the run took to be
past each kill and to move between the pools, and whether `taskheat replay` recomputes every plan and sample and the
weights are, bit for bit, those of an undisturbed run whose one worker stayed where it was.

`--check` exits 1 and names what is not so. Times are wall-clock seconds on this machine, and have no aim.
"""

import argparse
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.ending import conclude
from bench.fault_run import AttackedRun, NotRecoveredError
from bench.faults import INTERVAL, difference, write_inputs
from bench.local_nodes import LocalNodes
from cluster.driver import stage_to_go_on_with
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord

BOUNDARY, STEPS = 60 * INTERVAL, 120 * INTERVAL
POOLS = {1: "throughput", 2: "large"}
_NODES = (
    *[{"num_cpus": 1, "labels": {"pool": "throughput"}}] * 3,
    *[{"num_cpus": 1, "resources": {"big": 1}, "labels": {"pool": "large"}}] * 2,
    {"num_cpus": 1, "labels": {"pool": "evaluation"}},
)
_BY_STAGE = (
    "launch.stages=[{num_workers: 2, worker_labels: {pool: throughput}}, "
    "{num_workers: 1, worker_labels: {pool: large}, resources_per_worker: {big: 1}}]",
    "launch.evaluation_labels={pool: evaluation}",
    "launch.evaluation_cpus=1",
    "launch.engine_labels={pool: stable}",
)
_UNDISTURBED = ("launch.num_workers=1",)


@dataclass
class Figures:
    """What was seen; see the module docstring."""

    pools: dict[int, list[str]] = field(default_factory=lambda: {1: [], 2: []})
    past_kill_s: dict[int, float] = field(default_factory=dict)
    moved_s: float = 0.0
    attempts: list[int] = field(default_factory=list)
    problem: str = ""

    def missed(self) -> list[str]:
        """One sentence for whatever is not as it should be."""
        wrong = [
            f"stage {stage}: workers were seen on {', '.join(seen) or 'no pool'}, not on {POOLS[stage]} alone"
            for stage, seen in self.pools.items()
            if seen != [POOLS[stage]]
        ]
        return [*wrong, *([self.problem] if self.problem else [])]


class Show:
    """The cluster and the two runs."""

    def __init__(self, work: Path, *, seed: int) -> None:
        self.work, self.chance = work, random.Random(seed)
        self.config = write_inputs(work)
        self.nodes = LocalNodes(_NODES, head_labels={"pool": "stable"})

    def run(self) -> Figures:
        """Both runs, the disturbed one first."""
        figures, run = Figures(), self._prepared("by-stage", _BY_STAGE)
        run.start()
        try:
            for stage in POOLS:
                self._disturb(run, stage, figures)
            code = run.finish()
            figures.problem = f"exit code {code}\n{run.tail()}" if code else ""
        except NotRecoveredError as error:
            figures.problem = str(error)
        finally:
            run.stop()
        figures.attempts = [record.step for record in run.records() if isinstance(record, AttemptRecord)]
        if not figures.problem:
            figures.problem = difference(run.root, self._undisturbed(), steps=STEPS)
        return figures

    def _disturb(self, run: AttackedRun, stage: int, figures: Figures) -> None:
        """Wait for the stage, see where it is trained, kill a node, see again."""
        begins = 0 if stage == 1 else BOUNDARY
        reached = time.monotonic()
        run.wait_for(lambda: run.progress()[1] >= begins + INTERVAL and self._stage(run) == stage, f"stage {stage}")
        if stage == 2:
            figures.moved_s = round(time.monotonic() - reached, 1)
        self._look(run, stage, figures)
        moment = begins + INTERVAL * self.chance.randint(3, 30)
        run.wait_for(lambda: run.progress()[1] >= moment, f"step {moment}")
        seconds = run.inflict("kill a node", self.chance)
        figures.past_kill_s[stage] = round(seconds, 1)
        print(f"stage {stage}: a node killed after step {moment}: past it in {seconds:.1f} s", flush=True)
        self._look(run, stage, figures)
        if stage == 1:
            run.wait_for(lambda: run.progress()[1] >= BOUNDARY, "the boundary")

    def _stage(self, run: AttackedRun) -> int:
        return stage_to_go_on_with(run.root) if any(read_ledger(run.root)) else 1

    def _look(self, run: AttackedRun, stage: int, figures: Figures) -> None:
        for labels in self.nodes.labels_of(run.worker_processes()):
            if labels["pool"] not in figures.pools[stage]:
                figures.pools[stage].append(labels["pool"])

    def _undisturbed(self) -> Path:
        run = self._prepared("undisturbed", _UNDISTURBED)
        run.start()
        if run.finish() != 0:
            raise SystemExit(f"the undisturbed run failed:\n{run.tail()}")
        return run.root

    def _prepared(self, name: str, launch: tuple[str, ...]) -> AttackedRun:
        return AttackedRun(
            root=self.work / "runs" / name,
            config=self.config,
            settings=(
                f"output.name={name}",
                f"output.dir={self.work / 'runs'}",
                f"train.steps={STEPS}",
                f"stages.0.until.step={BOUNDARY}",
                f"launch.address={self.nodes.address}",
                "launch.max_failures=5",
                *launch,
            ),
            storage=self.work / "runs" / name / "checkpoints",
            nodes=self.nodes,
            patience_s=300.0,
        )


def main() -> int:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if anything is not as it should be")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="an empty folder to run in")
    given = parser.parse_args()
    work = (given.work or Path(tempfile.mkdtemp(prefix="taskheat-stages-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    show = Show(work, seed=given.seed)
    try:
        figures = show.run()
    finally:
        show.nodes.close()
    for stage, pools in figures.pools.items():
        print(f"stage {stage}: workers on {', '.join(pools)}; past a killed node in {figures.past_kill_s.get(stage)} s")
    print(f"from pool to pool: {figures.moved_s} s; worker groups began at steps {figures.attempts}")
    missed = figures.missed()
    if not missed:
        print("plans and samples replayed; weights bit for bit those of the undisturbed run")
    return conclude("stages", asdict(figures), missed, check=given.check)


if __name__ == "__main__":
    sys.exit(main())
