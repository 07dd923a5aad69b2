"""The command line of `taskheat sweep`: files and overrides to a sweep, and what it says while it runs."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cluster.config import LaunchConfig
from cluster.settings import load_config
from cluster.sweep.config import SweepConfig

if TYPE_CHECKING:
    from cluster.sweep.sensitivity import SensitivityConfig

_T = TypeVar("_T", "SweepConfig", "SensitivityConfig")


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
    if sensitivity:
        _sensitivity(files, ours, launch_config, dry_run=dry_run)
        return
    if not files:
        raise click.UsageError("give at least one SWEEP.yaml")
    config = _named(load_config(SweepConfig, files=files, overrides=ours), files[0].absolute().stem)

    from cluster.sweep.execute import start_sweep

    start_sweep(config, launch_config, say=say, dry_run=dry_run)


def _sensitivity(files: Sequence[Path], overrides: Sequence[str], launch: LaunchConfig, *, dry_run: bool) -> None:
    if dry_run:
        raise click.UsageError("--dry-run is not for --sensitivity, which checks all of its forks before the first")
    from cluster.sweep.sensitivity import SensitivityConfig, measure_sensitivity

    config = _named(load_config(SensitivityConfig, files=files, overrides=overrides), "sensitivity")
    say(f"report   {measure_sensitivity(config, launch, say=say)}")


def _named(config: _T, stem: str) -> _T:
    if config.output.name is not None:
        return config
    output = config.output.model_copy(update={"name": default_name(stem)})
    return config.model_copy(update={"output": output})


def _resume(root: Path, *, with_more: bool) -> None:
    if with_more:
        raise click.UsageError("--resume goes on with the sweep as it was planned; give nothing besides it")
    from cluster.sweep.execute import resume_sweep
    from cluster.sweep.sensitivity import is_sensitivity, resume_sensitivity

    if is_sensitivity(root):
        say(f"report   {resume_sensitivity(root, say=say)}")
    else:
        resume_sweep(root, say=say)


def default_name(stem: str) -> str:
    """A name and the time, in the characters that `output.name` allows."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("-._")
    return f"{stem or 'sweep'}-{datetime.now():%Y%m%d-%H%M%S}"


def say(text: str) -> None:
    """A line to the user, at once."""
    click.echo(f"{datetime.now():%H:%M:%S} {text}")
