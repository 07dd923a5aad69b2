"""`taskheat run`: from a resolved configuration to a finished run directory."""

import sys
import uuid
from pathlib import Path

from ray.train import TrainingFailedError
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
from scheduler.errors import TaskheatError

console = Console(width=None if sys.stdout.isatty() else 120)


def start_run(config: RunConfig, launch: LaunchConfig) -> Report | None:
    """Train under a fresh run directory. Returns the report, or None if the run was stopped."""
    check_packages()
    check_model(config.model)
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
    console.print(f"run [bold]{directory.root.name}[/bold] in {directory.root}")
    inputs = gather_inputs(config)
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
            console.print(
                f"[red]failed[/red]; to go on from the last checkpoint: taskheat run --resume {directory.root}"
            )
            raise
        finally:
            view.close()
    return _conclude(config, directory, inputs, outcome)


def _conclude(config: RunConfig, directory: RunDirectory, inputs: Inputs, outcome: Outcome) -> Report | None:
    if outcome.worker.reason == "stopped":
        directory.update_manifest(status="stopped", step=outcome.worker.step, wall_s=outcome.wall_s)
        console.print(
            f"stopped at step {outcome.worker.step} with a checkpoint; to go on: taskheat run --resume {directory.root}"
        )
        return None
    report = conclude(config, directory, inputs, outcome)
    console.print(final_table(report))
    console.print(f"report   {directory.root / 'report.html'}\nresult   {directory.result(config)}", highlight=False)
    return report
