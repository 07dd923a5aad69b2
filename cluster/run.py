"""`taskheat run`: from a resolved configuration to a finished run directory."""

import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from ray.train import TrainingFailedError, WorkerGroupError
from rich.console import Console

from cluster.config import LaunchConfig, RunConfig
from cluster.driver import Driver, Outcome, ray_cluster
from cluster.finish import conclude
from cluster.fork import Fork
from cluster.preflight import check_model, check_packages, check_stages
from cluster.run_directory import RunDirectory
from cluster.setup import Inputs, gather_inputs
from cluster.views.run_view import Listener, RunView
from cluster.views.table import final_table
from cluster.views.trackers import check_trackers
from evalsvc.report.schema import Report
from scheduler.errors import RunFailedError, TaskheatError

console = Console(width=None if sys.stdout.isatty() else 120)


def start_run(
    config: RunConfig, launch: LaunchConfig, *, fork: Fork | None = None, listener: Listener | None = None
) -> Report | None:
    """Train under a fresh run directory, from step 0 or from the checkpoint of another run.

    Returns the report, or None if the run was stopped. `listener` hears every record of the ledger as it is written.
    """
    directory = RunDirectory.create(config, launch)
    try:
        with directory.held():
            return _train(config, launch, directory, fork, listener)
    except TaskheatError:
        directory.discard()
        raise


def resume_run(root: Path, *, launch_overrides: Sequence[str] = (), listener: Listener | None = None) -> Report | None:
    """Go on with a stopped or failed run, elsewhere if `launch_overrides` (`num_workers=3`) say so."""
    directory, config, launch = RunDirectory.reopen(root, launch_overrides=launch_overrides)
    with directory.held():
        directory.keep_launch(launch)
        return _train(config, launch, directory, None, listener)


def _train(
    config: RunConfig, launch: LaunchConfig, directory: RunDirectory, fork: Fork | None, listener: Listener | None
) -> Report | None:
    check_packages()
    check_stages(config, launch)
    check_trackers(launch.trackers)
    check_model(config.model)
    console.print(f"run [bold]{directory.root.name}[/bold] in {directory.root}", soft_wrap=True)
    inputs = gather_inputs(config)
    directory.bind_data(inputs.prepared.path)
    console.print(str(inputs.prepared.summary), markup=False, highlight=False)
    for note in inputs.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    directory.keep_quarantine(inputs.prepared.path)
    if fork is not None:
        _plant(fork, directory, inputs, place=directory.checkpoint_place(config))
    namespace = f"taskheat-{directory.root.name}-{uuid.uuid4().hex[:8]}"
    with ray_cluster(launch, namespace):
        driver = Driver(config=config, launch=launch, directory=directory, inputs=inputs, namespace=namespace)
        view = RunView(
            run=directory.root.name,
            metrics=directory.metrics,
            console=console,
            trackers=launch.trackers,
            listener=listener,
        )
        directory.begin_session()
        try:
            outcome = driver.run(view)
        except (TrainingFailedError, RunFailedError) as error:
            directory.update_manifest(status="failed", failure=str(error))
            raise RunFailedError(
                f"{_root_causes(error)}\nthe whole story is in {directory.manifest}; once the cause is mended, go on "
                f"from the last checkpoint: taskheat run --resume {directory.root}"
            ) from error
        finally:
            view.close()
    return _conclude(config, directory, inputs, outcome)


def _plant(fork: Fork, directory: RunDirectory, inputs: Inputs, *, place: str) -> None:
    fork.check_rows(inputs.prepared.path)
    fork.plant(directory, inputs.engine, place=place)
    directory.update_manifest(forked_from={"run": str(fork.parent.root), "step": fork.step})
    console.print(f"forked from {fork.parent.root} at step {fork.step}; changed:", soft_wrap=True, highlight=False)
    for change in fork.changed or ("nothing",):
        console.print(f"  {change}", markup=False, highlight=False)


def _root_causes(error: TrainingFailedError | RunFailedError) -> str:
    """The last line of each distinct failure, by rank."""
    if not isinstance(error, WorkerGroupError):
        return str(error).strip().splitlines()[-1]
    causes: dict[str, list[int]] = {}
    for rank, failure in sorted(error.worker_failures.items()):
        causes.setdefault(str(failure).strip().splitlines()[-1], []).append(rank)
    return "\n".join(f"the training worker(s) {ranks} failed: {cause}" for cause, ranks in causes.items())


def _tell_storage_problem(config: RunConfig, directory: RunDirectory, outcome: Outcome) -> None:
    """Warn of checkpoints that never became durable; stop with the remedy where that ended the run.

    Raises:
        RunFailedError: The run went without a durable checkpoint for as long as it may.
    """
    problem, place = outcome.worker.storage_problem, directory.checkpoint_place(config)
    if outcome.worker.reason != "storage_lost":
        if problem:
            console.print(f"warning: the newest checkpoint is not in {place}: {problem}", soft_wrap=True, markup=False)
        return
    directory.update_manifest(status="failed", step=outcome.worker.step, failure=f"storage: {problem}")
    raise RunFailedError(
        f"stopped at step {outcome.worker.step}: none of the last {config.train.max_undurable_checkpoints} checkpoints "
        f"(train.max_undurable_checkpoints) could be stored in {place}: {problem}; mend the storage, then go on: "
        f"taskheat run --resume {directory.root}"
    )


def _conclude(config: RunConfig, directory: RunDirectory, inputs: Inputs, outcome: Outcome) -> Report | None:
    directory.end_session(outcome.wall_s)
    _tell_storage_problem(config, directory, outcome)
    if outcome.worker.reason == "stopped":
        directory.update_manifest(status="stopped", step=outcome.worker.step)
        console.print(
            f"stopped at step {outcome.worker.step}{' with a checkpoint' if outcome.worker.step else ''}; "
            f"to go on: taskheat run --resume {directory.root}",
            soft_wrap=True,
        )
        return None
    report = conclude(config, directory, inputs, outcome)
    console.print(final_table(report))
    console.print(
        f"report   {directory.root / 'report.html'}\nresult   {directory.result(config)}",
        highlight=False,
        soft_wrap=True,
    )
    return report
