"""One trial inside Ray Tune: a function trainable that holds a whole run's driver.

    Tune trial process ─ driver ─► engine, evaluation, Ray Train workers          (outside the trial's placement group)
          ▲                 │ every record of the ledger
          └── tune.report ◄─┘ at each decision: what its evaluation found

A trial that has a run directory goes on with it; one that has finished only reports. So a trial may be started again
after any crash. Nothing is reported for the last step before the run is concluded, lest the schedule stop a trial that
is only left to be written down.

A trial that the schedule stops learns of it at its next report, and stops its run with a checkpoint. It must not be
killed: what the workers of a killed run hold is freed by a watchman of Ray Train, which needs Ray's dashboard and fails
where several Rays run on one machine.

A member of a population trains one leg of its way at a time: a run up to the step at which all are compared, where Tune
pauses it. It reports a checkpoint, a pointer to ours; the next leg is a fork of the run that it is handed, its own or a
donor's. (A trial that reports no checkpoint is never exploited, without a word.) All members have a process at once,
and wait for room in it.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from cluster.config import RunConfig
from cluster.fork import Fork
from cluster.placement import STAGES, check_resources, place
from cluster.run import resume_run, start_run
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from cluster.sweep.config import ObjectiveName
from cluster.sweep.directory import SweepDirectory, TrialSpec, trial_name
from cluster.sweep.objective import Score
from cluster.sweep.results import TrialResult, objectives_of, trial_result
from cluster.sweep.room import concurrency, room
from cluster.views.run_view import Listener
from cluster.watch import StopRequestedError
from scheduler.errors import ResourceError
from scheduler.records import DecisionRecord, ForkRecord, Record, RunRecord, SignalRecord
from scheduler.setup import EngineSetup
from scheduler.task import TaskSpec

_WAIT_S = 3600.0
_POLL_S = 0.5
_POINTER = "run.json"


@dataclass(slots=True)
class Evaluations:
    """Follows a ledger, and says what each evaluation found; a task that it left out keeps its score."""

    names: tuple[ObjectiveName, ...]
    _told_step: int = -1
    _tasks: tuple[TaskSpec, ...] = ()
    _scores: dict[str, Score] = field(default_factory=dict)

    def concluded(self, record: Record) -> tuple[int, dict[str, float]] | None:
        """Step and objectives of the evaluation that this record, a decision, concludes; each step once."""
        match record:
            case RunRecord(setup=setup) | ForkRecord(setup=setup):
                self._tasks = EngineSetup.model_validate(setup).tasks
            case SignalRecord(signal=signal):
                self._scores[signal.task] = Score(signal.score, signal.num_probes)
            case DecisionRecord(plan=plan) if plan.source_step > self._told_step:
                self._told_step = plan.source_step
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
                _report_or_stop({"step": found[0], **found[1]})

        origin = None if spec.origin is None else (directory.run(spec.origin[0]), spec.origin[1])
        if not _train(directory, run, origin, listen):
            return
    _report_end(trial_result(root, name=spec.name, values=spec.values, names=objective))


def run_member(config: dict[str, Any]) -> None:
    """One leg of a member of a population: `config` holds the sweep's directory, the values under their dotted keys,
    and the steps at which members are compared.
    """
    directory = SweepDirectory(Path(config["sweep"]))
    asked, member = directory.config(), member_name(tune.get_context().get_trial_id())
    values = {key: config[key] for key in asked.space}
    pointer = read_pointer(tune.get_checkpoint())
    begin = 0 if pointer is None else int(pointer["step"])
    end = next((step for step in config["compared_at"] if step > begin), None)
    name = leg_name(directory, member, values, pointer)
    cut = () if end is None else (f"train.stop_after={end}",)
    if not directory.is_done(name):
        run = directory.trial_config(TrialSpec(name, values, (*cut, "train.checkpoint_at=[]")))
        origin = None if pointer is None else (RunDirectory(Path(pointer["run"])), begin)
        launch = directory.launch()
        with room(directory.tune / "places", lambda: concurrency(launch, ray.cluster_resources())):
            _train(directory, run, origin, lambda record: _introduce(directory.run(name), member, values, record))
    result = trial_result(directory.run(name), name=member, values=values, names=asked.objective)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _POINTER).write_text(json.dumps({"run": str(result.root), "step": result.step}))
        _report_end(result, None if end is None else tune.Checkpoint.from_directory(folder))


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
    return Fork.of(parent, step, before=before, after=run)


def _report_or_stop(metrics: dict[str, Any]) -> None:
    try:
        tune.report(metrics)
    except SystemExit as stopped:  # Tune's way to say that the schedule has stopped this trial
        raise StopRequestedError from stopped


def _report_end(result: TrialResult, checkpoint: Any = None) -> None:
    objectives = {name: estimate.value for name, estimate in result.objectives.items()}
    tune.report({"step": result.step, **objectives}, checkpoint=checkpoint)


def _train(
    directory: SweepDirectory, config: RunConfig, origin: tuple[RunDirectory, int] | None, listen: Listener
) -> bool:
    """Begin the run, or go on with it, once there is room; returns whether it came to its end.

    On a cluster that grows by itself room comes when it is asked for, so the run is started at once.

    Raises:
        ResourceError: The whole cluster is too small for the run, or there was no room for an hour.
    """
    assert config.output.name is not None
    launch, root = directory.launch(), directory.run(config.output.name)
    deadline = time.monotonic() + _WAIT_S
    while True:
        cluster = ray.cluster_resources()
        placements = [] if launch.grows else [place(launch.for_stage(stage), cluster) for stage in STAGES]
        for placement in placements:
            check_resources(placement, available=cluster, cluster=cluster)
        try:
            for placement in placements[:1]:
                check_resources(placement, available=ray.available_resources(), cluster=cluster)
            directory.discard_unbegun(root.root.name)
            if root.ledger.exists():
                return resume_run(root.root, listener=listen) is not None
            return start_run(config, launch, fork=_fork(origin, config), listener=listen) is not None
        except ResourceError:
            if launch.grows or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def leg_name(
    directory: SweepDirectory, member: str, values: Mapping[str, Any], pointer: Mapping[str, Any] | None
) -> str:
    """Name of the leg's run: its member and the step it begins at.

    A leg of the same beginning and values that is there already is gone on with; one of others is left, and a number
    added.
    """
    name = member if pointer is None else f"{member}-from-{pointer['step']:06d}"
    origin = None if pointer is None else {"run": pointer["run"], "step": pointer["step"]}
    number, free = 1, name
    while directory.run(free).ledger.exists():
        manifest = directory.run(free).read_manifest()
        if manifest.get("forked_from") == origin and manifest.get("sweep", {}).get("values") == dict(values):
            return free
        number += 1
        free = f"{name}-{number}"
    return free


def read_pointer(checkpoint: Any) -> dict[str, Any] | None:
    """Run and step that a member's checkpoint stands for; None of none."""
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return json.loads((Path(folder) / _POINTER).read_text(encoding="utf-8"))
