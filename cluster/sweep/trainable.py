"""One trial inside Ray Tune: a function trainable that holds a whole run's driver.

    Tune trial process ─ driver ─► engine, evaluation, Ray Train workers          (outside the trial's placement group)
          ▲                 │ every record of the ledger
          └── tune.report ◄─┘ at each decision: what its evaluation found

A trial that has a run directory goes on with it; one that has finished only reports. So a trial may be started again
after any crash. Nothing is reported for the last step before the run is concluded, lest the schedule stop a trial that
is only left to be written down.

A member of a population reports checkpoints too: a pointer to ours. Handed the pointer of a donor, or its own after a
pause, it goes on as a fork of that run. (A trial that reports no checkpoint is never exploited, without a word.) All
members have a process at once and take turns: who has no room waits, who waits for the others' step is stopped by Tune.
"""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cluster.config import RunConfig
from cluster.fork import Fork, changes
from cluster.preflight import check_resources, place
from cluster.run import resume_run, start_run
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from cluster.sweep.config import ObjectiveName
from cluster.sweep.directory import SweepDirectory, TrialSpec, trial_name
from cluster.sweep.objective import Score
from cluster.sweep.results import TrialResult, objectives_of, trial_result
from cluster.views.run_view import Listener
from scheduler.errors import ResourceError
from scheduler.records import DecisionRecord, ForkRecord, Record, RunRecord, SignalRecord
from scheduler.setup import EngineSetup
from scheduler.task import TaskSpec
from train.checkpoint_storage import Storage, storage_at

_WAIT_S = 120.0
_POLL_S = 0.5
_POINTER = "run.json"


@dataclass(slots=True)
class Evaluations:
    """Follows a ledger, and says what each evaluation found; a task that it left out keeps its score."""

    names: tuple[ObjectiveName, ...]
    reported_step: int = -1
    _tasks: tuple[TaskSpec, ...] = ()
    _scores: dict[str, Score] = field(default_factory=dict)

    def concluded(self, record: Record) -> tuple[int, dict[str, float]] | None:
        """Step and objectives of the evaluation that this record, a decision, concludes; each step once."""
        match record:
            case RunRecord(setup=setup) | ForkRecord(setup=setup):
                self._tasks = EngineSetup.model_validate(setup).tasks
            case SignalRecord(signal=signal):
                self._scores[signal.task] = Score(signal.score, signal.num_probes)
            case DecisionRecord(plan=plan) if plan.source_step > self.reported_step:
                self.reported_step = plan.source_step
                found = objectives_of(self._scores, self._tasks, self.names)
                return (plan.source_step, {name: one.value for name, one in found.items()}) if found else None
            case _:
                pass
        return None


def run_trial(config: dict[str, Any]) -> None:
    """A trial on its own; `config` names the sweep's directory, trial and objective, and gives values not planned."""
    directory = SweepDirectory(Path(config["sweep"]))
    spec = directory.planned().get(config["trial"]) or TrialSpec(config["trial"], config["values"])
    run, objective = directory.trial_config(spec), tuple(config["objective"])
    root = directory.run(spec.name)
    if not directory.is_done(spec.name):
        evaluations = Evaluations(objective)

        def listen(record: Record) -> None:
            _introduce(root, spec.name, spec.values, record)
            found = evaluations.concluded(record)
            if found is not None and found[0] < run.train.last_step:
                tune.report({"step": found[0], **found[1]})

        origin = None if spec.origin is None else (directory.run(spec.origin[0]), spec.origin[1])
        _train(directory, run, origin, listen, wait_s=_WAIT_S)
    _report_end(trial_result(root, name=spec.name, values=spec.values, names=objective))


def run_member(config: dict[str, Any]) -> None:
    """A member of a population: `config` holds the sweep's directory and the values under their dotted keys."""
    directory = SweepDirectory(Path(config["sweep"]))
    asked, member = directory.config(), member_name(tune.get_context().get_trial_id())
    values = {key: config[key] for key in asked.space}
    pointer = _read_pointer(tune.get_checkpoint())
    name = _free_name(directory, member, pointer)
    settings = (f"train.checkpoint_at={config['checkpoint_at']}", f"output.name={name}")
    run = directory.trial_config(TrialSpec(name, values, settings))
    origin = None if pointer is None else (RunDirectory(Path(pointer["run"])), int(pointer["step"]))
    checkpoints = storage_at(directory.run(name).checkpoint_place(run))
    evaluations = Evaluations(asked.objective, reported_step=0 if origin is None else origin[1])

    def listen(record: Record) -> None:
        _introduce(directory.run(name), member, values, record)
        found = evaluations.concluded(record)
        if found is not None and found[0] in config["checkpoint_at"]:
            step, objectives = found
            _wait_for(checkpoints, step)
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / _POINTER).write_text(json.dumps({"run": str(directory.run(name).root), "step": step}))
                tune.report({"step": step, **objectives}, checkpoint=tune.Checkpoint.from_directory(folder))

    _train(directory, run, origin, listen, wait_s=math.inf)
    _report_end(trial_result(directory.run(name), name=member, values=values, names=asked.objective))


def member_name(trial_id: str) -> str:
    """The member that Tune's trial is, by its number. Its config cannot say: an exploit copies the donor's whole."""
    return trial_name(int(trial_id.rpartition("_")[2]))


def _introduce(run: RunDirectory, trial: str, values: Mapping[str, Any], record: Record) -> None:
    """Write into the run's manifest which trial it is, at the first record of its ledger."""
    if isinstance(record, RunRecord):
        run.update_manifest(sweep={"trial": trial, "values": dict(values)})


def _fork(origin: tuple[RunDirectory, int] | None, run: RunConfig) -> Fork | None:
    if origin is None:
        return None
    parent, step = origin
    before = load_config(RunConfig, files=[parent.config])
    return Fork(parent=parent, step=step, changed=changes(before, run))


def _report_end(result: TrialResult) -> None:
    objectives = {name: estimate.value for name, estimate in result.objectives.items()}
    tune.report({"step": result.step, **objectives})


def _train(
    directory: SweepDirectory,
    config: RunConfig,
    origin: tuple[RunDirectory, int] | None,
    listen: Listener,
    *,
    wait_s: float,
) -> None:
    """Begin the run, or go on with it, once there is room: the workers of the trial before take a while to go.

    Raises:
        ResourceError: There was none for `wait_s` seconds. Members of a population take turns, and wait for ever.
    """
    assert config.output.name is not None
    launch, root = directory.launch(), directory.run(config.output.name)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            cluster = ray.cluster_resources()
            check_resources(place(launch, cluster), available=ray.available_resources(), cluster=cluster)
            directory.discard_unbegun(root.root.name)
            if root.ledger.exists():
                resume_run(root.root, listener=listen)
            else:
                start_run(config, launch, fork=_fork(origin, config), listener=listen)
        except ResourceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _free_name(directory: SweepDirectory, trial: str, pointer: Mapping[str, Any] | None) -> str:
    """Name of a member's next run: its trial and the step it begins at; a number where one died there before."""
    name = trial if pointer is None else f"{trial}-from-{pointer['step']:06d}"
    if directory.run(name).root.exists() and pointer is None:
        shutil.rmtree(directory.run(name).root)
    number = 1
    free = name
    while directory.run(free).root.exists():
        number += 1
        free = f"{name}-{number}"
    return free


def _read_pointer(checkpoint: Any) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return json.loads((Path(folder) / _POINTER).read_text(encoding="utf-8"))


def _wait_for(checkpoints: Storage, step: int) -> None:
    """The ledger names a checkpoint before it is stored; the evaluation may be faster than the upload."""
    deadline = time.monotonic() + _WAIT_S
    while step not in checkpoints.steps():
        if time.monotonic() > deadline:
            raise ResourceError(f"{checkpoints}: no checkpoint at step {step} after {_WAIT_S:g} s")
        time.sleep(0.05)
