"""Commands that train: run, sweep, prepare, simulate."""

from pathlib import Path

import click

from cluster.commands.arguments import files_and_overrides, named, split_launch


@click.command()
@click.argument("arguments", nargs=-1, metavar="CONFIG.yaml [MORE.yaml ...] [a.b=value ...]")
@click.option("--launch", type=click.Path(path_type=Path), help="LaunchConfig: where to run (default: this machine).")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a stopped run's directory.")
@click.option("--fork", metavar="RUN@STEP", help="A new run from another's checkpoint and configuration.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and stop.")
def run(
    arguments: tuple[str, ...], *, launch: Path | None, resume: Path | None, fork: str | None, dry_run: bool
) -> None:
    """Train in two stages, measure every task as it goes, re-weight, report."""
    if resume is not None:
        _resume(resume, arguments, with_more=launch is not None or fork is not None or dry_run)
        return
    from cluster.config import LaunchConfig, RunConfig
    from cluster.preflight import check_files, check_stages
    from cluster.settings import dump_config, load_config

    files, overrides = files_and_overrides(arguments, required=fork is None)
    ours, theirs = split_launch(overrides)
    launch_files, origin = [launch] if launch else [], None
    if fork is not None:
        from cluster.fork import resolve_fork

        origin, config, launch_config = resolve_fork(
            fork, files=files, overrides=ours, launch=launch_files, launch_overrides=theirs
        )
    else:
        config = load_config(RunConfig, files=files, overrides=ours)
        launch_config = load_config(LaunchConfig, files=launch_files, overrides=theirs)
    config = named(config, files)
    if dry_run:
        click.echo(f"# RunConfig\n{dump_config(config)}\n# LaunchConfig\n{dump_config(launch_config)}", nl=False)
        return
    check_files(config)
    check_stages(config, launch_config)

    from cluster.run import start_run

    start_run(config, launch_config, fork=origin)


def _resume(root: Path, arguments: tuple[str, ...], *, with_more: bool) -> None:
    others, launch_overrides = split_launch(arguments)
    if others or with_more:
        raise click.UsageError(
            "--resume takes the run's own configuration; besides it only settings of the launch may be given, "
            "such as launch.num_workers=3"
        )
    from cluster.run import resume_run

    resume_run(root, launch_overrides=launch_overrides)


@click.command()
@click.argument("arguments", nargs=-1, metavar="SWEEP.yaml [MORE.yaml ...] [a.b=value ...]")
@click.option("--launch", type=click.Path(path_type=Path), help="LaunchConfig of each trial (default: this machine).")
@click.option("--resume", type=click.Path(path_type=Path), metavar="SWEEP", help="Go on with a sweep's directory.")
@click.option("--sensitivity", is_flag=True, help="Instead: nudge the mixture of a finished run at several steps.")
@click.option("--dry-run", is_flag=True, help="Check every trial, say what would be trained, and stop.")
def sweep(
    arguments: tuple[str, ...], *, launch: Path | None, resume: Path | None, sensitivity: bool, dry_run: bool
) -> None:
    """Search over the settings of a run; what trials have in common is trained once."""
    from cluster.sweep.command import run_sweep_command

    run_sweep_command(arguments, launch=launch, resume=resume, sensitivity=sensitivity, dry_run=dry_run)


@click.command()
@click.argument("arguments", nargs=-1, metavar="CONFIG.yaml [MORE.yaml ...] [a.b=value ...]")
@click.option("--init", type=click.Path(path_type=Path), metavar="TASKS.yaml", help="Write first task cards and stop.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes (default: by size of the data).")
@click.option("--ray", "address", metavar="ADDRESS|local", help="Share the work out on a Ray cluster.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prepare(
    arguments: tuple[str, ...], *, init: Path | None, workers: int | None, address: str | None, as_json: bool
) -> None:
    """Read, verify, tokenise and split the data of a run, and say what was found; a later run finds it ready."""
    from cluster.config import RunConfig
    from cluster.preflight import check_files
    from cluster.prepare import chosen_executor, prepare_run, write_first_cards
    from cluster.settings import load_config

    if init is not None and as_json:
        raise click.UsageError("--init writes a file and prints no JSON; give one of the two")
    if workers is not None and address is not None:
        raise click.UsageError("--workers are processes of this machine, --ray is a cluster; give one of the two")
    files, overrides = files_and_overrides(arguments)
    config = load_config(RunConfig, files=files, overrides=overrides)
    check_files(config)
    if init is not None:
        num_tasks = write_first_cards(config.data, init)
        click.echo(f"{init}: {num_tasks} task cards; correct them, and name the file in data.tasks_file")
        return
    with chosen_executor(workers=workers, address=address) as executor:
        preparation = prepare_run(config, executor=executor)
    click.echo(preparation.to_json() if as_json else str(preparation))


@click.command()
@click.argument("arguments", nargs=-1, metavar="SIM.yaml [MORE.yaml ...] [a.b=value ...]")
@click.option(
    "--fit", "fitted_run", type=click.Path(path_type=Path), metavar="RUN", help="Learn the curves from a run."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: simulations/NAME-OF-SIM.")
def simulate(arguments: tuple[str, ...], fitted_run: Path | None, out: Path | None) -> None:
    """Try mixtures on learner models, without training: a table, simulation.html and simulation.json."""
    from cluster.simulate import run_simulation, simulation_name, simulation_text
    from evalsvc.report.simulation_page import write_simulation

    files, overrides = files_and_overrides(arguments)
    found = run_simulation(files, overrides, fitted_run=fitted_run)
    click.echo(simulation_text(found))
    click.echo(write_simulation(found, out or Path("simulations") / simulation_name(files)))
