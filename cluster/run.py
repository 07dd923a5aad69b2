"""`taskheat run`: from a resolved configuration to a finished run directory."""

import sys
import uuid
from pathlib import Path

from ray.train import TrainingFailedError, WorkerGroupError
from rich.console import Console

from cluster.config import LaunchConfig, RunConfig
from cluster.driver import Driver, Outcome, ray_cluster
from cluster.finish import conclude
from cluster.preflight import check_model, check_packages
from cluster.run_directory import RunDirectory
from cluster.setup import Inputs, gather_inputs
from cluster.views.run_view import RunView
from cluster.views.table import final_table
from evalsvc.report.schema import Report
from scheduler.errors import RunFailedError, TaskheatError

console = Console(width=None if sys.stdout.isatty() else 120)


def start_run(config: RunConfig, launch: LaunchConfig) -> Report | None:
    """Train under a fresh run directory. Returns the report, or None if the run was stopped."""
    directory = RunDirectory.create(config, launch)
    try:
        return _train(config, launch, directory)
    except TaskheatError:
        directory.discard()
        raise


def resume_run(root: Path) -> Report | None:
    """Go on with a stopped or failed run."""
    directory, config, launch = RunDirectory.reopen(root)
    return _train(config, launch, directory)


def _train(config: RunConfig, launch: LaunchConfig, directory: RunDirectory) -> Report | None:
    check_packages()
    check_model(config.model)
    console.print(f"run [bold]{directory.root.name}[/bold] in {directory.root}", soft_wrap=True)
    inputs = gather_inputs(config)
    directory.bind_data(inputs.prepared.path)
    console.print(str(inputs.prepared.summary), markup=False, highlight=False)
    for note in inputs.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    directory.keep_quarantine(inputs.prepared.path)
    namespace = f"taskheat-{directory.root.name}-{uuid.uuid4().hex[:8]}"
    with ray_cluster(launch, namespace):
        driver = Driver(config=config, launch=launch, directory=directory, inputs=inputs, namespace=namespace)
        view = RunView(metrics=directory.metrics, console=console)
        try:
            outcome = driver.run(view)
        except TrainingFailedError as error:
            directory.update_manifest(status="failed", failure=str(error))
            raise RunFailedError(
                f"{_root_causes(error)}\nthe whole story is in {directory.manifest}; once the cause is mended, go on "
                f"from the last checkpoint: taskheat run --resume {directory.root}"
            ) from error
        finally:
            view.close()
    return _conclude(config, directory, inputs, outcome)


def _root_causes(error: TrainingFailedError) -> str:
    """The last line of each distinct failure, by rank."""
    if not isinstance(error, WorkerGroupError):
        return str(error).strip().splitlines()[-1]
    causes: dict[str, list[int]] = {}
    for rank, failure in sorted(error.worker_failures.items()):
        causes.setdefault(str(failure).strip().splitlines()[-1], []).append(rank)
    return "\n".join(f"the training worker(s) {ranks} failed: {cause}" for cause, ranks in causes.items())


def _conclude(config: RunConfig, directory: RunDirectory, inputs: Inputs, outcome: Outcome) -> Report | None:
    if outcome.worker.reason == "stopped":
        directory.update_manifest(status="stopped", step=outcome.worker.step, wall_s=outcome.wall_s)
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
