"""Commands that read what a run left: trace, replay, explain, report."""

from pathlib import Path

import click


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
@click.argument("run_directory", type=click.Path(path_type=Path))
def report(run_directory: Path) -> None:
    """Write report.html and report.json of a run again, from its ledger."""
    from cluster.finish import write_reports
    from cluster.run_directory import RunDirectory

    directory = RunDirectory(run_directory.absolute())
    write_reports(directory)
    click.echo(f"{directory.root / 'report.html'}")
