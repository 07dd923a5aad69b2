"""After the last trial: the winner's configuration, and what the sweep's report shows."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cluster.config import RunConfig
from cluster.settings import dump_config, load_config
from cluster.sweep.config import SweepConfig
from cluster.sweep.directory import SweepDirectory
from cluster.sweep.results import SweepResults, TrialResult, gather_results
from cluster.sweep.space import label, shown
from evalsvc.report.sweep import SCHEMA_VERSION, Figured, SharedPart, SweepReport, SweptTrial
from evalsvc.report.sweep_page import write_sweep
from scheduler.errors import RunFailedError


def conclude_sweep(directory: SweepDirectory, config: SweepConfig, say: Callable[[str], None]) -> SweepResults:
    """Write everything a sweep leaves behind.

    Raises:
        RunFailedError: No trial has finished.
    """
    results = gather_results(directory, config)
    winner = results.winner
    if winner is None:
        raise RunFailedError(
            f"no trial has finished, so there is nothing to choose from; their runs are in {directory.trials}, and the "
            f"sweep goes on with: taskheat sweep --resume {directory.root}"
        )
    directory.winner.write_text(winner_text(winner, directory.base(), config), encoding="utf-8")
    report = sweep_report(directory, config, results)
    page = write_sweep(report, directory.root)
    say(
        f"{report.steps_trained} optimiser steps trained, {report.steps_unshared} without sharing "
        f"({report.steps_trained / report.steps_unshared:.2f})\n"
        f"best     {winner.name}: {label(winner.values)}\nwinner   {directory.winner}\nreport   {page}"
    )
    return results


def sweep_report(directory: SweepDirectory, config: SweepConfig, results: SweepResults) -> SweepReport:
    """What the page shows."""
    base_steps = directory.base().train.last_step
    forks = Counter(one.origin.partition("@")[0] for one in (*results.trials, *results.trunks) if one.origin)
    finished = [trial for trial in results.trials if trial.objectives]
    return SweepReport(
        schema_version=SCHEMA_VERSION,
        title=directory.root.name,
        search=config.search.type,
        schedule=config.schedule.type,
        objectives=config.objective,
        measured_on="selection" if finished and all(t.measured_on == "selection" for t in finished) else "probe",
        keys=tuple(config.space),
        boundary_key=next((key for key in config.space if _is_boundary(key, results.trials)), None),
        trials=tuple(map(_swept, results.trials)),
        best=results.best,
        shared=tuple(
            SharedPart(one.name, one.step - one.num_steps, one.step, forks[one.name]) for one in results.trunks
        ),
        clones=results.clones,
        steps_trained=sum(one.num_steps for one in (*results.trials, *results.trunks)),
        steps_unshared=sum(trial.step if trial.step else base_steps for trial in results.trials),
    )


def _swept(trial: TrialResult) -> SweptTrial:
    return SweptTrial(
        name=trial.name,
        status=trial.status,
        label=label(trial.values),
        values={key: value if _is_number(value) else shown(value) for key, value in trial.values.items()},
        step=trial.step,
        num_steps=trial.num_steps,
        origin=trial.origin,
        scores={task: score.value for task, score in trial.scores.items()},
        objectives={name: Figured(*estimate) for name, estimate in trial.objectives.items()},
    )


def _is_boundary(key: str, trials: Sequence[TrialResult]) -> bool:
    values = [trial.values[key] for trial in trials if key in trial.values]
    return ".until." in key and all(map(_is_number, values)) and len(set(values)) > 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def winner_text(winner: TrialResult, base: RunConfig, config: SweepConfig) -> str:
    """The winner's RunConfig, to be trained as a run of its own where the base keeps its runs."""
    run = load_config(RunConfig, files=[winner.root / "config.yaml"])
    output = base.output.model_copy(update={"name": None})
    train = run.train.model_copy(update={"checkpoint_at": base.train.checkpoint_at, "stop_after": None})
    head = "".join(f"# {line}\n" for line in _about(winner, config))
    return head + dump_config(run.model_copy(update={"output": output, "train": train}))


def _about(winner: TrialResult, config: SweepConfig) -> list[str]:
    found = [
        f"{name} {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
        for name, estimate in winner.objectives.items()
    ]
    lines = [f"{winner.name}: {label(winner.values)}", f"{', '.join(found)} on {winner.measured_on} rows"]
    if config.is_population:
        lines.append("These are the values it ended with; it was trained under others before (see the report).")
    return lines
