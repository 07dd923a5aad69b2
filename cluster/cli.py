"""The command line: `taskheat COMMAND`, also `python -m cluster COMMAND`.

Exit codes: 0 success, 2 the user must change something (one message says what), 1 the run failed, 130 interrupted
twice.
"""

import re
import sys
from datetime import datetime
from pathlib import Path

import click

from scheduler.errors import TaskheatError


class _Group(click.Group):
    """Prints our own errors as one message, without a traceback, with exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TaskheatError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="taskheat")
def main() -> None:
    """Fine-tune one language model on many tasks; the mixture is a measured, bounded, explained control loop."""


@main.command()
@click.argument("arguments", nargs=-1, metavar="CONFIG.yaml [MORE.yaml ...] [a.b=value ...]")
@click.option("--launch", type=click.Path(path_type=Path), help="LaunchConfig: where to run (default: this machine).")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a stopped run's directory.")
@click.option("--dry-run", is_flag=True, help="Print the resolved configuration and stop.")
def run(arguments: tuple[str, ...], launch: Path | None, resume: Path | None, dry_run: bool) -> None:
    """Train in two stages, measure every task as it goes, re-weight, report."""
    from cluster.config import LaunchConfig, RunConfig
    from cluster.preflight import check_files
    from cluster.settings import dump_config, load_config

    if resume is not None:
        if arguments or launch:
            raise click.UsageError("--resume takes the run's own configuration; give no files or overrides with it")
        from cluster.run import resume_run

        resume_run(resume)
        return
    files = [Path(argument) for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    if not files:
        raise click.UsageError("give at least one CONFIG.yaml")
    ours = [override for override in overrides if not override.startswith("launch.")]
    theirs = [override.removeprefix("launch.") for override in overrides if override.startswith("launch.")]
    config = load_config(RunConfig, files=files, overrides=ours)
    launch_config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    if config.output.name is None:
        output = config.output.model_copy(update={"name": _run_name(files[0])})
        config = config.model_copy(update={"output": output})
    if dry_run:
        click.echo(f"# RunConfig\n{dump_config(config)}\n# LaunchConfig\n{dump_config(launch_config)}", nl=False)
        return
    check_files(config)

    from cluster.run import start_run

    start_run(config, launch_config)


def _run_name(config_file: Path) -> str:
    """Folder of the config and the time, in the characters that `output.name` allows."""
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", config_file.absolute().parent.name).lstrip("-._")
    return f"{folder or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"


@main.command()
@click.argument("run_directory", type=click.Path(path_type=Path))
def replay(run_directory: Path) -> None:
    """Recompute every plan and every sample of a run from its ledger alone, and compare."""
    from cluster.audit import audit

    click.echo(audit(run_directory))


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
