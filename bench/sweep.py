"""What a sweep over stage boundaries and policies costs when trials share what they have in common.

    python -m bench.sweep [--quick] [--check] [--schedule pbt|pb2|asha] [--keep FOLDER]

Twelve trials on the demo corpus, four boundaries and three policies of stage 2; with `--quick` four of fewer steps. The
command line is driven as a user would: the sweep is killed (SIGKILL to all of its processes) once a third of its trials
have finished, and gone on with. Then two trials are trained again from scratch. Figures:

    steps      optimiser steps trained, against those of a sweep in which every trial begins at step 0
    resumed    trials that had finished when the sweep was killed, and are byte for byte what they were afterwards
    forked     trials whose weights are bit for bit those of the same configuration from scratch

`--schedule` instead shows what a schedule does to trials: the clones that a population makes (`pbt`, also `--pbt`, with
four members; `pb2` with three), or the trials that `asha` stops early. `--check` exits 1 and names what misses its aim.
Seconds are printed and have no aim: they are the machine's.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from bench.ending import conclude
from cluster.run_directory import RunDirectory
from cluster.sweep.directory import SweepDirectory

ROOT = Path(__file__).parents[1]
MAX_STEPS_RATIO = 0.6
_POLL_S, _GONE_S = 0.5, 8.0
_CORPUS = ROOT / "examples" / "finrisk" / "corpus"
_LAUNCH = "launch.num_workers=1"
ScheduleName = Literal["pbt", "pb2", "asha"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was found; see the module docstring."""

    num_trials: int
    steps_shared: int
    steps_unshared: int
    finished_when_killed: int
    unchanged_after_resume: int
    compared_with_scratch: int
    equal_to_scratch: int
    wall_s: float

    @property
    def ratio(self) -> float:
        """Steps trained over steps without sharing."""
        return self.steps_shared / self.steps_unshared


def write_sweep(folder: Path, *, quick: bool) -> Path:
    """The sweep to be measured; the fork of boundary b is the interval before it."""
    steps, interval, boundaries = (60, 10, (40, 50)) if quick else (240, 20, (140, 160, 180, 200))
    policies = ("heat", "odm") if quick else ("heat", "target_gap", "odm")
    return _written(
        folder / "boundaries.yaml",
        steps=steps,
        interval=interval,
        space={
            "stages.0.until.step": {"values": list(boundaries)},
            "stages.1.policy.type": {"values": list(policies)},
        },
        objective=["macro", "worst"],
    )


def write_scheduled(folder: Path, schedule: ScheduleName, *, quick: bool) -> Path:
    """Trials that clone one another in flight; under `asha` four, of which half learn nothing."""
    steps, every, interval = (120, 60, 20) if quick or schedule != "pbt" else (240, 80, 20)
    every = 40 if schedule == "pb2" else every  # its Gaussian process has something to fit from the second time on
    strength = {"type": "uniform", "low": 0.5, "high": 8.0}
    rate = {"type": "log_uniform", "low": 5e-4, "high": 6e-3}
    searched: dict[str, object] = {"type": "random", "trials": 3 if schedule == "pb2" else 4, "seed": 1}
    settings: dict[str, object] = {"every_steps": every, "quantile": 0.5}
    if schedule == "asha":
        strength, rate = {"type": "choice", "values": [2.0, 6.0]}, {"type": "choice", "values": [3e-3, 1e-7]}
        searched, settings = {"type": "grid"}, {"grace_steps": every, "reduction_factor": 2}
    return _written(
        folder / f"{schedule}.yaml",
        steps=steps,
        interval=interval,
        space={"mixture.policy.strength": strength, "train.learning_rate": rate},
        search=searched,
        schedule={"type": schedule, **settings},
        objective=["macro"],
    )


def _written(file: Path, *, steps: int, interval: int, **asked: object) -> Path:
    overrides = [
        f"train.steps={steps}",
        f"mixture.interval_steps={interval}",
        f"stages.0.until={{type: step, step: {steps // 2}}}",
        "evaluation.sampled_probes=2",
        "evaluation.samples_per_probe=2",
    ]
    body = {"run": str(ROOT / "examples" / "finrisk" / "run.yaml"), "overrides": overrides, **asked}
    file.write_text(json.dumps(body, indent=1), encoding="utf-8")
    return file


def run(*arguments: str) -> None:
    """A command of ours to its end, its output shown."""
    subprocess.run(_command(*arguments), check=True, cwd=ROOT)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cluster", *arguments]


def killed_half_way(sweep: Path, folder: Path) -> SweepDirectory:
    """Start the sweep, and kill it and all it started once a third of its trials have finished."""
    directory = SweepDirectory(folder / "sweeps" / "bench")
    arguments = ("sweep", str(sweep), _LAUNCH, f"output.dir={directory.root.parent}", "output.name=bench")
    process = subprocess.Popen(_command(*arguments), cwd=ROOT, start_new_session=True)
    try:
        while process.poll() is None:
            if (directory.root / "trials.json").is_file():
                done = finished(directory)
                if len(done) >= max(1, len(trials(directory)) // 3):
                    break
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode > 0:
        raise SystemExit(f"the sweep failed with exit code {process.returncode}")
    time.sleep(_GONE_S)
    return directory


def trials(directory: SweepDirectory) -> list[str]:
    """Names of the trials planned, without trunks."""
    return [name for name, spec in directory.planned().items() if not spec.is_trunk]


def finished(directory: SweepDirectory) -> list[str]:
    """Names of the trials that have finished."""
    return [name for name in trials(directory) if directory.is_done(name)]


def weights(root: Path) -> bytes:
    """The trained model of a run."""
    return (root / "model" / "model.safetensors").read_bytes()


def equal_to_scratch(directory: SweepDirectory, names: list[str]) -> int:
    """How many of these trials have the weights of the same configuration trained from step 0."""
    equal = 0
    for name in names:
        trial = RunDirectory(directory.trials / name)
        scratch = directory.root.parent / f"scratch-{name}"
        run("run", str(trial.config), _LAUNCH, f"output.dir={scratch.parent}", f"output.name={scratch.name}")
        equal += weights(scratch) == weights(trial.root)
    return equal


def measure(folder: Path, *, quick: bool) -> Figures:
    """Kill, resume, compare."""
    started = time.perf_counter()
    directory = killed_half_way(write_sweep(folder, quick=quick), folder)
    done = finished(directory)
    before = {name: (weights(directory.trials / name), directory.run(name).ledger.read_bytes()) for name in done}
    print(f"killed with {len(done)} of {len(trials(directory))} trials finished", flush=True)
    run("sweep", "--resume", str(directory.root))
    after = {name: (weights(directory.trials / name), directory.run(name).ledger.read_bytes()) for name in done}
    report = json.loads((directory.root / "report.json").read_text(encoding="utf-8"))
    names = trials(directory)
    compared = [names[0], names[-1]]
    return Figures(
        num_trials=len(report["trials"]),
        steps_shared=report["steps_trained"],
        steps_unshared=report["steps_unshared"],
        finished_when_killed=len(done),
        unchanged_after_resume=sum(before[name] == after[name] for name in done),
        compared_with_scratch=len(compared),
        equal_to_scratch=equal_to_scratch(directory, compared),
        wall_s=round(time.perf_counter() - started, 1),
    )


def misses(figures: Figures) -> list[str]:
    """Every aim that is missed, in words."""
    found = []
    if figures.ratio > MAX_STEPS_RATIO and figures.num_trials >= 12:
        found.append(f"steps ratio {figures.ratio:.2f} is over {MAX_STEPS_RATIO}")
    if figures.unchanged_after_resume < figures.finished_when_killed or not figures.finished_when_killed:
        found.append(f"{figures.unchanged_after_resume} of {figures.finished_when_killed} finished trials stayed")
    if figures.equal_to_scratch < figures.compared_with_scratch:
        found.append(f"{figures.equal_to_scratch} of {figures.compared_with_scratch} trials equal those from scratch")
    return found


def show_schedule(folder: Path, schedule: ScheduleName, *, quick: bool) -> tuple[list[str], list[str]]:
    """What the schedule did to the trials, a line each, as the report has it; and every aim that is missed."""
    root = folder / "sweeps" / schedule
    sweep = write_scheduled(folder, schedule, quick=quick)
    run("sweep", str(sweep), _LAUNCH, f"output.dir={root.parent}", f"output.name={root.name}")
    report = json.loads((root / "report.json").read_text(encoding="utf-8"))
    if schedule == "asha":
        stopped = [trial for trial in report["trials"] if trial["status"] == "stopped"]
        found = [f"{trial['name']} was stopped at step {trial['step']}: {trial['label']}" for trial in stopped]
    else:
        clones = report["clones"]
        found = [f"at step {one['step']} {one['trial']} cloned {one['donor']}: {one['changed']}" for one in clones]
    trained, asked = report["steps_trained"], report["steps_unshared"]
    missed = [] if found else [f"{schedule} changed no trial"]
    if schedule != "asha" and not any(key in line for line in found for key in report["keys"]):
        missed.append(f"{schedule} changed no value of a clone")
    missed += [f"{trained} steps trained for {asked}"] if trained > asked else []
    return [*found, f"{trained} optimiser steps trained"], missed


@contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """A folder for runs: `kept`, or one that goes at the end."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-sweep-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="four trials of sixty steps")
    parser.add_argument("--check", action="store_true", help="exit 1 when an aim is missed")
    parser.add_argument("--schedule", choices=get_args(ScheduleName), help="show a schedule instead")
    parser.add_argument("--pbt", dest="schedule", action="store_const", const="pbt", help="the same as --schedule pbt")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs there")
    arguments = parser.parse_args()
    if not _CORPUS.is_dir():
        subprocess.run([sys.executable, "-m", "examples.finrisk.generate", "--out", str(_CORPUS)], check=True, cwd=ROOT)
    with working_folder(arguments.keep) as folder:
        if arguments.schedule:
            found, missed = show_schedule(folder, arguments.schedule, quick=arguments.quick)
            print("\n".join(found))
            return conclude(arguments.schedule, {"found": found}, missed, check=arguments.check)
        figures = measure(folder, quick=arguments.quick)
    print(
        f"trials     {figures.num_trials}\n"
        f"steps      {figures.steps_shared} shared, {figures.steps_unshared} unshared: {figures.ratio:.2f}\n"
        f"resumed    {figures.unchanged_after_resume} of {figures.finished_when_killed} finished trials unchanged\n"
        f"forked     {figures.equal_to_scratch} of {figures.compared_with_scratch} bit for bit as from scratch\n"
        f"wall       {figures.wall_s:.0f} s"
    )
    return conclude("sweep", asdict(figures), misses(figures), check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
