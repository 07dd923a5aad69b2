"""The command line: `taskheat COMMAND`, also `python -m cluster COMMAND`.

Exit codes: 0 success, 2 the user must change something (one message says what), 1 the run failed, 130 interrupted
twice.
"""

import sys

import click

from cluster.commands import clusters, reading, training
from scheduler.errors import TaskheatError


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


for command in (
    training.run,
    training.sweep,
    training.prepare,
    training.simulate,
    clusters.submit,
    clusters.manifest,
    clusters.doctor,
    reading.trace,
    reading.replay,
    reading.explain,
    reading.report,
):
    main.add_command(command)
