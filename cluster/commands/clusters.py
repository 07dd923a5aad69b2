"""Commands about clusters: submit, manifest, doctor."""

import sys
from pathlib import Path

import click

from cluster.commands.arguments import files_and_overrides, named, split_launch


@click.command()
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

    ours, theirs = split_launch([argument for argument in arguments if "=" in argument])
    launch_config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    if resume is not None:
        if ours or any("=" not in argument for argument in arguments):
            raise click.UsageError("--resume takes the run's own configuration; besides it only launch. settings")
        from cluster.jobs.submit import submit_resume

        sys.exit(submit_resume(resume, launch_config, theirs, address=address, wait=not no_wait))
    files, _ = files_and_overrides(arguments)
    config = named(load_config(RunConfig, files=files, overrides=ours), files)
    check_files(config)
    check_stages(config, launch_config)

    from cluster.jobs.submit import submit_run

    sys.exit(submit_run(config, launch_config, address=address, wait=not no_wait))


@click.command()
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

    files, overrides = files_and_overrides(arguments, required=kind == "rayjob")
    ours, theirs = split_launch(overrides)
    if kind != "rayjob" and (files or ours):
        raise click.UsageError(f"a {kind} is made from the launch alone; give --launch and launch. settings")
    launch_config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    config = named(load_config(RunConfig, files=files, overrides=ours), files) if kind == "rayjob" else None
    click.echo(described(kind, launch_config, config), nl=False)


@click.command()
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

    others, theirs = split_launch(overrides)
    if others:
        raise click.UsageError("only settings of the launch may be given, such as launch.storage=/mnt/shared")
    config = load_config(LaunchConfig, files=[launch] if launch else [], overrides=theirs)
    config = config.model_copy(update={"address": address or config.address})
    findings = examine(config, storage=storage.absolute() if storage else config.storage)
    click.echo(json_of(findings) if as_json else as_text(findings))
    sys.exit(2 if has_failed(findings) else 0)
