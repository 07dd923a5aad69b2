"""What the commands have in common: files and settings among their arguments, and the name of a run."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cluster.config import RunConfig


def split_launch(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the run, and those of the launch without their prefix."""
    ours = [override for override in overrides if not override.startswith("launch.")]
    theirs = [override.removeprefix("launch.") for override in overrides if override.startswith("launch.")]
    return ours, theirs


def files_and_overrides(arguments: tuple[str, ...], *, required: bool = True) -> tuple[list[Path], list[str]]:
    """Configuration files, and `a.b=value` settings."""
    files = [Path(argument) for argument in arguments if "=" not in argument]
    if required and not files:
        raise click.UsageError("give at least one CONFIG.yaml")
    return files, [argument for argument in arguments if "=" in argument]


def named(config: "RunConfig", files: Sequence[Path]) -> "RunConfig":
    """The configuration with a name for its run, from the first file's folder and the time where it gives none."""
    if config.output.name is not None:
        return config
    output = config.output.model_copy(update={"name": _run_name(files[0])})
    return config.model_copy(update={"output": output})


def _run_name(config_file: Path) -> str:
    """Folder of the config and the time, in the characters that `output.name` allows."""
    folder = re.sub(r"[^A-Za-z0-9._-]+", "-", config_file.absolute().parent.name).lstrip("-._")
    return f"{folder or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"
