"""After the last trial: the winner's configuration, and what the sweep's report shows."""

from collections.abc import Callable

from cluster.config import RunConfig
from cluster.settings import dump_config, load_config
from cluster.sweep.config import SweepConfig
from cluster.sweep.directory import SweepDirectory
from cluster.sweep.results import SweepResults, TrialResult, gather_results
from cluster.sweep.space import label
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
    say(f"winner   {winner.name}: {label(winner.values)}\n         {directory.winner}")
    return results


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
