"""The command line: `taskheat COMMAND`, also `python -m cluster COMMAND`.

Exit codes: 0 success, 2 the user must change something (one message says what), 1 the run failed, 130 interrupted
twice.
"""

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scheduler.errors import TaskheatError

if TYPE_CHECKING:
    from cluster.config import RunConfig


class _Group(click.Group):
    """Prints our own errors as one message, without a traceback, with their exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TaskheatError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="taskheat")
def main() -> None:
    """Fine-tune one language model on many tasks; the mixture is a measured, bounded, explained control loop."""


@main.command()
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

    files, overrides = _files_and_overrides(arguments, required=fork is None)
    ours, theirs = _split_launch(overrides)
    launch_files, origin = [launch] if launch else [], None
    if fork is not None:
        from cluster.fork import resolve_fork

        origin, config, launch_config = resolve_fork(
            fork, files=files, overrides=ours, launch=launch_files, launch_overrides=theirs
        )
    else:
        config = load_config(RunConfig, files=files, overrides=ours)
        launch_config = load_config(LaunchConfig, files=launch_files, overrides=theirs)
    config = _named(config, files)
    if dry_run:
        click.echo(f"# RunConfig\n{dump_config(config)}\n# LaunchConfig\n{dump_config(launch_config)}", nl=False)
        return
    check_files(config)
    check_stages(config, launch_config)

    from cluster.run import start_run

    start_run(config, launch_config, fork=origin)


def _resume(root: Path, arguments: tuple[str, ...], *, with_more: bool) -> None:
    others, launch_overrides = _split_launch(arguments)
    if others or with_more:
        raise click.UsageError(
            "--resume takes the run's own configuration; besides it only settings of the launch may be given, "
            "such as launch.num_workers=3"
        )
    from cluster.run import resume_run

    resume_run(root, launch_overrides=launch_overrides)


def _split_launch(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the run, and those of the launch without their prefix."""
    ours = [override for override in overrides if not override.startswith("launch.")]
    theirs = [override.removeprefix("launch.") for override in overrides if override.startswith("launch.")]
    return ours, theirs


def _files_and_overrides(arguments: tuple[str, ...], *, required: bool = True) -> tuple[list[Path], list[str]]:
    files = [Path(argument) for argument in arguments if "=" not in argument]
    if required and not files:
        raise click.UsageError("give at least one CONFIG.yaml")
    return files, [argument for argument in arguments if "=" in argument]


def _named(config: "RunConfig", files: Sequence[Path]) -> "RunConfig":
    if config.output.name is not None:
        return config
    output = config.output.model_copy(update={"name": _run_name(files[0])})
    return config.model_copy(update={"output": output})


def _run_name(config_file: Path) -> str:
    """Folder of the config and the time, in the characters that `output.name` allows."""
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", config_file.absolute().parent.name).lstrip("-._")
    return f"{folder or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"


@main.command()
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


@main.command()
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
    files, overrides = _files_and_overrides(arguments)
    config = load_config(RunConfig, files=files, overrides=overrides)
    check_files(config)
    if init is not None:
        num_tasks = write_first_cards(config.data, init)
        click.echo(f"{init}: {num_tasks} task cards; correct them, and name the file in data.tasks_file")
        return
    with chosen_executor(workers=workers, address=address) as executor:
        preparation = prepare_run(config, executor=executor)
    click.echo(preparation.to_json() if as_json else str(preparation))


@main.command()
@click.argument("arguments", nargs=-1, metavar="CONFIG.yaml [MORE.yaml ...] [a.b=value ...]")
@click.option("--launch", type=click.Path(path_type=Path), help="LaunchConfig: where to run, and the job's settings.")
@click.option("--address", metavar="http://HEAD:8265", help="The cluster's job server (default: launch.job.address).")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run on the storage.")
@click.option("--no-wait", is_flag=True, help="Submit and stop; say how to follow the job.")
def submit(
    arguments: tuple[str, ...], *, launch: Path | None, address: str | None, resume: Path | None, no_wait: bool
) -> None:
    """Run as a job of a Ray cluster: check here, send what is needed, follow its log, end with its exit code."""
    from cluster.config import LaunchConfig, RunConfig
    from cluster.preflight import check_files, check_stages
    from cluster.settings import load_config

    ours, theirs = _split_launch([argument for argument in arguments if "=" in argument])
    launch_config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    if resume is not None:
        if ours or any("=" not in argument for argument in arguments):
            raise click.UsageError("--resume takes the run's own configuration; besides it only launch. settings")
        from cluster.jobs.submit import submit_resume

        sys.exit(submit_resume(resume, launch_config, theirs, address=address, wait=not no_wait))
    files, _ = _files_and_overrides(arguments)
    config = _named(load_config(RunConfig, files=files, overrides=ours), files)
    check_files(config)
    check_stages(config, launch_config)

    from cluster.jobs.submit import submit_run

    sys.exit(submit_run(config, launch_config, address=address, wait=not no_wait))


@main.command()
@click.argument("arguments", nargs=-1, metavar="[CONFIG.yaml ...] [a.b=value ...]")
@click.option(
    "--kind", type=click.Choice(["rayjob", "raycluster", "ray-up", "grafana"]), required=True, help="What to describe."
)
@click.option("--launch", type=click.Path(path_type=Path), help="LaunchConfig with `storage` and `cluster`.")
def manifest(arguments: tuple[str, ...], *, kind: str, launch: Path | None) -> None:
    """Print a cluster's description, made from the launch; only a rayjob takes a CONFIG.yaml, the run it starts."""
    from cluster.config import LaunchConfig, RunConfig
    from cluster.manifests.text import described
    from cluster.settings import load_config

    files, overrides = _files_and_overrides(arguments, required=kind == "rayjob")
    ours, theirs = _split_launch(overrides)
    if kind != "rayjob" and (files or ours):
        raise click.UsageError(f"a {kind} is made from the launch alone; give --launch and launch. settings")
    launch_config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    config = _named(load_config(RunConfig, files=files, overrides=ours), files) if kind == "rayjob" else None
    click.echo(described(kind, launch_config, config), nl=False)


@main.command()
@click.argument("overrides", nargs=-1, metavar="[launch.a.b=value ...]")
@click.option("--launch", type=click.Path(path_type=Path), help="LaunchConfig whose address and storage to examine.")
@click.option("--address", metavar="ADDRESS|auto", help="Examine every node of this cluster (default: launch.address).")
@click.option("--storage", type=click.Path(path_type=Path), help="Folder to write to (default: launch.storage).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(
    overrides: tuple[str, ...], *, launch: Path | None, address: str | None, storage: Path | None, as_json: bool
) -> None:
    """Find what would stop a run here or on a cluster, and say what to do; exits with 2 if something would."""
    from cluster.config import LaunchConfig
    from cluster.doctor.examine import examine
    from cluster.doctor.finding import as_json as json_of
    from cluster.doctor.finding import as_text, has_failed
    from cluster.settings import load_config

    others, theirs = _split_launch(overrides)
    if others:
        raise click.UsageError("only settings of the launch may be given, such as launch.storage=/mnt/shared")
    config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    config = config.model_copy(update={"address": address or config.address})
    findings = examine(config, storage=storage.absolute() if storage else config.storage)
    click.echo(json_of(findings) if as_json else as_text(findings))
    sys.exit(2 if has_failed(findings) else 0)


@main.command()
@click.argument("run_directory", type=click.Path(path_type=Path))
@click.option("--sample", metavar="ID", help="When this row was trained: its id, or FILE:LINE.")
@click.option("--output", metavar="TEXT", help="The trained rows whose answers are nearest to this output.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many rows for --output.")
@click.option("--task", metavar="NAME", help="Look in this task only.")
@click.option("--prepared", type=click.Path(path_type=Path), help="The prepared data, where it was moved.")
@click.option("--openlineage", type=click.Path(path_type=Path), metavar="FILE", help="Write OpenLineage events.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def trace(
    run_directory: Path,
    *,
    sample: str | None,
    output: str | None,
    top: int,
    task: str | None,
    prepared: Path | None,
    openlineage: Path | None,
    as_json: bool,
) -> None:
    """Say when and how often a row was trained, or which trained rows are nearest to an output."""
    if sum(wanted is not None for wanted in (sample, output, openlineage)) != 1:
        raise click.UsageError("give --sample ID, --output TEXT or --openlineage FILE, one of them")
    if openlineage is not None:
        from cluster.openlineage_export import write_events

        click.echo(f"{write_events(run_directory, openlineage)} events written to {openlineage}")
        return
    from cluster.trace import TracedRun, trace_output, trace_sample
    from cluster.views.trace_text import as_json_text, neighbours_text, traces_text

    run = TracedRun.open(run_directory, prepared=prepared)
    if sample is not None:
        found = trace_sample(run, sample, task=task)
        click.echo(as_json_text(found) if as_json else traces_text(found))
    elif output is not None:
        neighbours = trace_output(run, output, top=top, task=task)
        click.echo(as_json_text(neighbours) if as_json else neighbours_text(neighbours))


@main.command()
@click.argument("run_directory", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[a.b=value ...]")
@click.option(
    "--policy",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="OTHER.yaml",
    help="Compare with what this mixture would have decided on the same signals.",
)
@click.option("--json", "as_json", is_flag=True, help="With --policy or settings: print JSON.")
def replay(run_directory: Path, *, overrides: tuple[str, ...], files: tuple[Path, ...], as_json: bool) -> None:
    """Recompute every plan and every sample of a run from its ledger alone, and compare.

    With --policy, or settings such as mixture.policy.type=odm: what another mixture would have decided instead.
    """
    if files or overrides:
        from cluster.views.what_if_text import what_if_json, what_if_text
        from cluster.what_if import what_if

        found = what_if(run_directory, files, overrides)
        click.echo(what_if_json(found) if as_json else what_if_text(found))
        return
    if as_json:
        raise click.UsageError("--json belongs to --policy OTHER.yaml")
    from cluster.audit import audit

    click.echo(audit(run_directory))


@main.command()
@click.argument("run_directory", type=click.Path(path_type=Path))
@click.option("--step", type=int, required=True, metavar="S", help="An optimiser step, from 0.")
@click.option("--task", metavar="NAME", help="Tell of this task only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(run_directory: Path, *, step: int, task: str | None, as_json: bool) -> None:
    """Say in words what moved and what held in the decision in force at a step, from the ledger alone."""
    from cluster.explain import explain_step
    from cluster.views.explain_text import explanation_json, explanation_text

    found = explain_step(run_directory, step, task=task)
    click.echo(explanation_json(found) if as_json else explanation_text(found))


@main.command()
@click.argument("arguments", nargs=-1, metavar="SIM.yaml [MORE.yaml ...] [a.b=value ...]")
@click.option(
    "--fit", "fitted_run", type=click.Path(path_type=Path), metavar="RUN", help="Learn the curves from a run."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: simulations/NAME-OF-SIM.")
def simulate(arguments: tuple[str, ...], fitted_run: Path | None, out: Path | None) -> None:
    """Try mixtures on learner models, without training: a table, simulation.html and simulation.json."""
    from cluster.simulate import run_simulation, simulation_name, simulation_text
    from evalsvc.report.simulation_page import write_simulation

    files, overrides = _files_and_overrides(arguments)
    found = run_simulation(files, overrides, fitted_run=fitted_run)
    click.echo(simulation_text(found))
    click.echo(write_simulation(found, out or Path("simulations") / simulation_name(files)))


@main.command()
@click.argument("run_directory", type=click.Path(path_type=Path))
def report(run_directory: Path) -> None:
    """Write report.html and report.json of a run again, from its ledger."""
    from cluster.finish import write_reports
    from cluster.run_directory import RunDirectory

    directory = RunDirectory(run_directory.absolute())
    write_reports(directory)
    click.echo(f"{directory.root / 'report.html'}")


if __name__ == "__main__":
    main()
