"""The job's entry point on the cluster: lay the inputs on the storage, then run a command of ours.

    python -m cluster.jobs.start --inputs-to /mnt/shared/runs/.inputs/4f… -- run run.yaml --launch launch.yaml

It is started in the unpacked package. Ray deletes that folder some time after the job, and no other node has it under
the same path for sure; what the run names must be found from anywhere, and later.
"""

import os
import shutil
from pathlib import Path

import click

from cluster.cli import main as taskheat
from cluster.jobs.package import INPUTS
from scheduler.errors import RunDirectoryError


def lay_inputs(source: Path, target: Path) -> None:
    """Copy the folder `source` to `target`, as a whole or not at all; what is there already is of the same content.

    Raises:
        RunDirectoryError: The storage cannot be written.
    """
    if target.exists() or not source.is_dir():
        return
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        shutil.copytree(source, partial)
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():  # else another job laid the same inputs in the meantime
                raise
            shutil.rmtree(partial)
    except OSError as error:
        raise RunDirectoryError(
            f"output.dir: {target.parent} cannot be written on the cluster ({error.strerror or error}); "
            "make it writable for the job's user, or choose another"
        ) from error


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--inputs-to", type=click.Path(path_type=Path))
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(inputs_to: Path | None, command: tuple[str, ...]) -> None:
    """Run a taskheat command inside a job."""
    if inputs_to is not None:
        try:
            lay_inputs(Path(INPUTS), inputs_to)
        except RunDirectoryError as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(error.exit_code) from error
    taskheat(list(command), prog_name="taskheat")


if __name__ == "__main__":
    main()
