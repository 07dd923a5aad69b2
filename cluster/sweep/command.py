"""The command line of `taskheat sweep`: files and overrides to a sweep, and what it says while it runs."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from cluster.config import LaunchConfig
from cluster.settings import load_config
from cluster.sweep.config import SweepConfig


def run_sweep_command(
    arguments: Sequence[str], *, launch: Path | None, resume: Path | None, sensitivity: bool, dry_run: bool
) -> None:
    """What `taskheat sweep` does; raises as `start_sweep` and `resume_sweep` do."""
    files = [Path(argument) for argument in arguments if "=" not in argument]
    settings = [argument for argument in arguments if "=" in argument]
    theirs = [one.removeprefix("launch.") for one in settings if one.startswith("launch.")]
    ours = [one for one in settings if not one.startswith("launch.")]
    if resume is not None:
        _resume(resume, with_more=bool(arguments) or launch is not None or sensitivity or dry_run)
        return
    launch_config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    if not files:
        raise click.UsageError("give at least one SWEEP.yaml")
    config = load_config(SweepConfig, files=files, overrides=ours)
    if config.output.name is None:
        output = config.output.model_copy(update={"name": default_name(files[0])})
        config = config.model_copy(update={"output": output})

    from cluster.sweep.execute import start_sweep

    start_sweep(config, launch_config, say=say, dry_run=dry_run)


def _resume(root: Path, *, with_more: bool) -> None:
    if with_more:
        raise click.UsageError("--resume goes on with the sweep as it was planned; give nothing besides it")
    from cluster.sweep.execute import resume_sweep

    resume_sweep(root, say=say)


def default_name(file: Path) -> str:
    """Name of the file and the time, in the characters that `output.name` allows."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.absolute().stem).lstrip("-._")
    return f"{stem or 'sweep'}-{datetime.now():%Y%m%d-%H%M%S}"


def say(text: str) -> None:
    """A line to the user, at once."""
    click.echo(f"{datetime.now():%H:%M:%S} {text}")
