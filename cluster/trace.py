"""`taskheat trace`: when and how often a row was trained, and which trained rows stand behind an output.

    ledger ─► seed, rows per task, plans ─► the sample stream, drawn again ─► (task, row) of every slot of every step
    prepared store ─► the text and lineage of (task, row)

The ledger gives row numbers; the store the run was made from gives them their text. A store is taken for the run's own
only if the tokens counted with it are those the workers reported, to the token. A restart changes nothing here: what it
undid is not part of the surviving history.

What this does not do: measure influence. Nearness says that a row has the output's wording, not that it caused it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cluster.replayed_stream import prepared_candidates, replayed_batches, row_lengths
from evalsvc.report.history import RunHistory
from scheduler.errors import DataError, ReplayMismatchError
from scheduler.ledger import read_ledger
from scheduler.plan import MixturePlan
from scheduler.setup import EngineSetup
from train.config import SPLITS, SplitName
from train.data.arrangement import ARRANGEMENTS, SINGLE
from train.data.nearest import similarities
from train.data.row import Message, Refusal
from train.data.store import TokenStore
from train.stream.batch import Batch

_NUM_SUGGESTED = 5


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as the run knew it: where it came from, which set it was in, what it says.

    `row` is its number within its task and split; `lineage` all else that `lineage.parquet` says of it.
    """

    task: str
    split: SplitName
    row: int
    id: str
    source: str
    line: int
    content_hash: str
    messages: tuple[Message, ...]
    answer: str
    lineage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One time a row was trained.

    Attributes:
        step: The optimiser step, from 0.
        plan_version: The plan in force.
        stage: The plan's stage.
        weight: The plan's weight of the row's task.
        epoch: Which pass over the task's rows (of its difficulty level, in a run with levels), from 1.
        arrangement: How it was put before the model: single, chain or contrast.
    """

    step: int
    plan_version: int
    stage: int
    weight: float
    epoch: int
    arrangement: str


@dataclass(frozen=True, slots=True)
class SampleTrace:
    """A row and every time it was trained, in order; a held-out row never was."""

    sample: StoredRow
    exposures: tuple[Exposure, ...]


@dataclass(frozen=True, slots=True)
class SampleTraces:
    """What an id stands for: rows of the run (several, where ids repeat), and refused rows at that place of a file."""

    samples: tuple[SampleTrace, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A trained row whose answer is near to an output: `similarity` in [0, 1] (see `train.data.nearest`)."""

    similarity: float
    times_trained: int
    sample: StoredRow


@dataclass(frozen=True, slots=True)
class TracedRun:
    """A run's surviving history with the store it was made from.

    `times_trained`: per task, int64 [training rows].
    """

    history: RunHistory
    setup: EngineSetup
    prepared: Path
    store: TokenStore
    times_trained: tuple[np.ndarray, ...]

    @classmethod
    def open(cls, root: Path, *, prepared: Path | None = None) -> "TracedRun":
        """Read a run.

        Args:
            root: The run's directory.
            prepared: The prepared data, if it no longer lies where the run found it.

        Raises:
            LedgerError: No ledger, or a damaged one.
            ReplayMismatchError: The ledger's plans do not give the counts it reports.
            DataError: The prepared data is not there, or is not what the run was trained on.
        """
        history = RunHistory.of(read_ledger(root))
        setup = history.run_setup
        path, store, times = _find_store(root, prepared, history)
        return cls(history=history, setup=setup, prepared=path, store=store, times_trained=times)

    def batches(self) -> Iterator[tuple[Batch, MixturePlan]]:
        """Every batch of the surviving history, with the plan it was drawn under."""
        return replayed_batches(self.history, supervised_lengths=row_lengths(self.store, self.setup))

    def task_numbers(self, task: str | None) -> list[int]:
        """The number of the named task, or of all.

        Raises:
            DataError: The run has no such task.
        """
        names = self.store.task_names
        if task is None:
            return list(range(len(names)))
        if task not in names:
            raise DataError(f"--task: the run has no task {task!r}; it has {', '.join(names)}")
        return [names.index(task)]


def trace_sample(run: TracedRun, wanted: str, *, task: str | None = None) -> SampleTraces:
    """Every row that `wanted` names, and when it was trained.

    Args:
        run: The run.
        wanted: A row's id, or its place: `file name:line`, or `path:line`.
        task: Look in this task only.

    Raises:
        DataError: Nothing has that id (names the nearest ones), or the run has no such task.
    """
    numbers = run.task_numbers(task)
    found = [
        stored
        for number in numbers
        for split in SPLITS
        for stored in _read_rows(run.store, number, split, _named(run.store, number, split, wanted))
    ]
    names = {run.store.task_names[number] for number in numbers}
    refusals = [
        refusal
        for refusal in _read_quarantine(run.prepared / "quarantine.parquet")
        if wanted in _places(refusal.source, refusal.line) and (task is None or refusal.task in names)
    ]
    if not found and not refusals:
        raise DataError(_unknown_id(run, wanted, numbers))
    exposures = _exposures(run, [stored for stored in found if stored.split == "train"])
    return SampleTraces(
        samples=tuple(SampleTrace(stored, exposures.get((stored.task, stored.row), ())) for stored in found),
        refusals=tuple(refusals),
    )


def trace_output(run: TracedRun, output: str, *, top: int, task: str | None = None) -> list[Neighbour]:
    """The trained rows whose answers are nearest to `output`, nearest first; of equally near ones, the most trained.

    Only answers are compared: the loss is on nothing else. Rows that share no wording, and rows whose turn never came,
    are left out.
    """
    numbers = run.task_numbers(task)
    answers = [answer for number in numbers for answer in run.store.column(number, "answer")]
    places = [(number, row) for number in numbers for row in range(run.store.num_rows(number, "train"))]
    times = np.concatenate([run.times_trained[number] for number in numbers])
    nearness = np.where(times > 0, similarities(answers, output), 0.0)
    neighbours = []
    for place in np.lexsort((-times, -nearness))[:top].tolist():
        if nearness[place] > 0:
            number, row = places[place]
            (stored,) = _read_rows(run.store, number, "train", [row])
            neighbours.append(Neighbour(round(float(nearness[place]), 4), int(times[place]), stored))
    return neighbours


def _exposures(run: TracedRun, rows: Sequence[StoredRow]) -> dict[tuple[str, int], tuple[Exposure, ...]]:
    """Every time each of some training rows was trained, by (task, row)."""
    names = run.store.task_names
    keys = {(names.index(stored.task), stored.row): (stored.task, stored.row) for stored in rows}
    found: dict[tuple[str, int], list[Exposure]] = {key: [] for key in keys.values()}
    for batch, plan in run.batches() if keys else ():
        for (task, row), key in keys.items():
            for slot in np.flatnonzero((batch.tasks == task) & (batch.rows == row)).tolist():
                epoch = len(found[key]) + 1  # an epoch holds every row once
                arrangement = _arrangement(run.store, task, row, int(batch.arrangements[slot]))
                exposure = Exposure(batch.step, plan.version, plan.stage, plan.weights[task], epoch, arrangement)
                found[key].append(exposure)
    return {key: tuple(exposures) for key, exposures in found.items()}


def _arrangement(store: TokenStore, task: int, row: int, offered: int) -> str:
    """What a row was trained in: it stands alone where it does not exist in the arrangement it was offered."""
    return ARRANGEMENTS[offered if store.is_arranged(task, row, offered) else SINGLE]


def _find_store(
    root: Path, prepared: Path | None, history: RunHistory
) -> tuple[Path, TokenStore, tuple[np.ndarray, ...]]:
    """The store whose tasks, rows and tokens are the run's, and how often each of its training rows was trained."""
    candidates = prepared_candidates(root, prepared)
    there = [path for path in dict.fromkeys(candidates) if (path / "summary.json").is_file()]
    for path in there:
        store = TokenStore.open(path / "store")
        times = _times_trained(store, history)
        if times is not None:
            return path, store, times
    looked = ", ".join(str(path) for path in candidates) or str(root.absolute().parent / ".prepared")
    problem = "is not the data this run was trained on" if there else "holds no prepared data"
    raise DataError(
        f"{root}: {looked} {problem} (tasks, rows and supervised tokens must be the ledger's); prepare the data of the "
        f"run again (taskheat prepare {root / 'config.yaml'}), or say where it lies with --prepared FOLDER"
    )


def _times_trained(store: TokenStore, history: RunHistory) -> tuple[np.ndarray, ...] | None:
    """Per task, int64 [training rows]; None if the run was not trained on this store."""
    setup = history.run_setup
    if store.task_names != tuple(task.name for task in setup.tasks):
        return None
    if tuple(store.num_rows(task) for task in range(len(setup.tasks))) != setup.num_rows:
        return None
    times = tuple(np.zeros(num_rows, dtype=np.int64) for num_rows in setup.num_rows)
    lengths = row_lengths(store, setup)
    try:
        for batch, _ in replayed_batches(history, supervised_lengths=lengths):
            for task in np.unique(batch.tasks).tolist():
                np.add.at(times[task], batch.rows[batch.tasks == task], 1)
    except ReplayMismatchError:
        if lengths is not None:
            return None  # other lengths draw other rows
        raise
    if not history.boundaries:
        return times
    num_tokens = tuple(int(counts @ store.supervised_lengths(task)) for task, counts in enumerate(times))
    return times if num_tokens == history.boundaries[-1].report.num_tokens else None


def _read_rows(store: TokenStore, task: int, split: SplitName, rows: Sequence[int]) -> list[StoredRow]:
    """Rows of one task and split by number."""
    found = []
    for row, text, lineage in zip(rows, store.texts(task, rows, split), store.lineage(task, split, rows), strict=True):
        rest = {name: value for name, value in lineage.items() if name not in (*text, "task", "split", "row")}
        found.append(StoredRow(task=store.task_names[task], split=split, row=row, lineage=rest, **text))
    return found


def _named(store: TokenStore, task: int, split: SplitName, wanted: str) -> list[int]:
    columns = (store.column(task, name, split) for name in ("id", "source", "line"))
    return [
        row
        for row, (row_id, source, line) in enumerate(zip(*columns, strict=True))
        if wanted == row_id or (wanted.endswith(f":{line}") and wanted in _places(source, line))
    ]


def _places(source: str, line: int) -> tuple[str, ...]:
    """The ways to name a line of a file; the first is the id of a row that has none of its own."""
    path = Path(source)
    return f"{path.stem}:{line}", f"{path.name}:{line}", f"{source}:{line}"


def _read_quarantine(path: Path) -> list[Refusal]:
    return [Refusal(**record) for record in pq.read_table(path).to_pylist()] if path.is_file() else []


def _unknown_id(run: TracedRun, wanted: str, tasks: Sequence[int]) -> str:
    every_id = (name for task in tasks for split in SPLITS for name in run.store.column(task, "id", split))
    ids = list(dict.fromkeys(every_id))
    nearness = similarities(ids, wanted)
    nearest = [ids[place] for place in np.argsort(-nearness, kind="stable")[:_NUM_SUGGESTED] if nearness[place] > 0]
    listed = f"the nearest of its {len(ids):,} ids: {', '.join(nearest)}" if nearest else f"its ids are like {ids[0]}"
    return f"--sample: no row of this run has the id {wanted!r}; {listed} (a row is also found by FILE:LINE)"
