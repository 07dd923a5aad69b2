"""The sample stream of a run, drawn again from its ledger: seed, pool sizes and plans give every slot of every step.

Where weights are shares of tokens, the lengths of the rows decide what is drawn next; they stand in the prepared data
the run was made from, not in the ledger.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cluster.run_directory import RunDirectory
from evalsvc.report.history import RunHistory
from scheduler.errors import DataError, ReplayMismatchError
from scheduler.plan import MixturePlan
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport
from train.data.store import TokenStore
from train.stream.batch import Batch, add_hashes, sequence_hash
from train.stream.opening import open_stream


def replayed_batches(
    history: RunHistory, *, supervised_lengths: Sequence[np.ndarray] | None = None
) -> Iterator[tuple[Batch, MixturePlan]]:
    """Every batch up to the last surviving boundary, with the plan it was drawn under.

    Args:
        history: The surviving history.
        supervised_lengths: Those of the run's training rows, per task; needed where weights are shares of tokens.

    Raises:
        ReplayMismatchError: Counts or hash of the samples are not those that a boundary reports.
    """
    setup = history.run_setup
    stream = open_stream(setup, supervised_lengths=supervised_lengths)
    plan, running = history.plans[0], 0
    for boundary in history.boundaries:
        while stream.step < boundary.report.step:
            batch = stream.next_batch()
            running = add_hashes(running, sequence_hash(batch))
            yield batch, plan
        _compare(setup, boundary.report, tuple(stream.num_samples.tolist()), running)
        plan = boundary.plan
        stream.follow(plan)


def _compare(setup: EngineSetup, report: IntervalReport, num_samples: tuple[int, ...], running: int) -> None:
    if num_samples == report.num_samples and running == report.sequence_hash:
        return
    served = {
        task.name: f"{ours} by the plans, {theirs} reported"
        for task, ours, theirs in zip(setup.tasks, num_samples, report.num_samples, strict=True)
        if ours != theirs
    }
    raise ReplayMismatchError(
        f"step {report.step}: the samples trained are not those that seed and plans give "
        f"({served or 'equal counts, but other rows'})"
    )


def prepared_candidates(root: Path, prepared: Path | None = None) -> list[Path]:
    """Where the prepared data of a run may lie: where it is said to, where the run found it, beside the run."""
    recorded = RunDirectory(root).read_manifest().get("prepared")
    beside = root.absolute().parent / ".prepared"
    if prepared is not None:
        return [prepared]
    if recorded is not None:
        return [Path(recorded), beside / Path(recorded).name]
    return sorted(beside.iterdir()) if beside.is_dir() else []


def row_lengths(store: TokenStore, setup: EngineSetup) -> list[np.ndarray] | None:
    """Supervised lengths of the training rows per task, where the run's stream needs them, else None."""
    if setup.mixture.weight_unit == "samples":
        return None
    return [store.supervised_lengths(task) for task in range(len(setup.tasks))]


def lengths_for_replay(root: Path, setup: EngineSetup) -> list[np.ndarray] | None:
    """`row_lengths` from the prepared data of the run in `root`.

    Raises:
        DataError: They are needed, and the prepared data is not there.
    """
    if setup.mixture.weight_unit == "samples":
        return None
    for path in prepared_candidates(root):
        if (path / "summary.json").is_file():
            store = TokenStore.open(path / "store")
            if tuple(store.num_rows(task) for task in range(len(store.task_names))) == setup.num_rows:
                return row_lengths(store, setup)
    raise DataError(
        f"{root}: weights are shares of supervised tokens, so the samples cannot be recomputed without the prepared "
        f"data of the run; prepare it again (taskheat prepare {root / 'config.yaml'})"
    )
