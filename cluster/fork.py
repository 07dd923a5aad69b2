"""`taskheat run --fork RUN@STEP`: a new run that goes on from a checkpoint of another, under changed settings.

    parent   config ─────────── + overrides ──► config of the fork
             ledger[.. step] ── + fork record ─► ledger of the fork
             checkpoint at step ───────────────► first checkpoint of the fork

Model, optimiser, stream, engine and the plan in force are carried over; the parent is only read. The fork's ledger
begins with the parent's lines, so that it alone still explains every plan and every sample the model was trained on.
With nothing changed the fork repeats the parent bit for bit.

What decides which rows exist and how they are drawn must stay as it was; everything else may change.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import LaunchConfig, RunConfig
from cluster.replayed_stream import prepared_candidates
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError, DataError, LedgerError, RunDirectoryError, StateError
from scheduler.keeper import replay
from scheduler.ledger import LedgerWriter, read_ledger
from scheduler.memory import fork_obstacles
from scheduler.records import CheckpointRecord, ForkRecord, Record
from scheduler.setup import EngineSetup

FIXED_IN_A_FORK = ("model", "data", "tasks", "seed", "train.global_batch_size", "mixture.weight_unit")
"""Settings, or the sections of them, that a fork keeps as its parent had them."""

_PATIENCE_S = 60.0
_SPEC = re.compile(r"(?P<run>.+)@(?P<step>\d+)")


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a new run comes from, and what it changes: `a.b: old → new`, one entry a setting.

    `origin` is the folder or URL of the parent's checkpoints; by default they are in its directory.
    """

    parent: RunDirectory
    step: int
    changed: tuple[str, ...]
    origin: str | None = None

    @classmethod
    def of(cls, parent: RunDirectory, step: int, *, before: RunConfig, after: RunConfig) -> "Fork":
        """The fork of `parent`, whose configuration is `before`, that goes on at `step` under `after`."""
        return cls(parent=parent, step=step, changed=changes(before, after), origin=parent.checkpoint_place(before))

    def check_rows(self, prepared: Path) -> None:
        """Require the training rows of the parent, in its order.

        Raises:
            DataError: The rows in `prepared` are others, or the parent's are gone.
        """
        from train.data.store import TokenStore

        candidates = [path for path in prepared_candidates(self.parent.root) if (path / "summary.json").is_file()]
        if not candidates:
            raise DataError(
                f"the prepared data of {self.parent.root} is gone, so a fork cannot be held to the same rows; prepare "
                f"it again (taskheat prepare {self.parent.config})"
            )
        if candidates[0].name == prepared.name:
            return
        before, after = (TokenStore.open(path / "store") for path in (candidates[0], prepared))
        for number, name in enumerate(before.task_names):
            if name not in after.task_names or before.content_hashes(number) != after.content_hashes(number):
                raise DataError(
                    f"--fork: the training rows of {name} are not those of {self.parent.root} any more: a source or a "
                    "card changed; restore it, or start a new run"
                )

    def plant(self, directory: RunDirectory, setup: EngineSetup, *, place: str | None = None) -> None:
        """Give the new run in `directory` its first checkpoint and its ledger; the ledger comes last.

        `place` is where the new run keeps its checkpoints, if not in its directory.

        Raises:
            ConfigError: `setup` is of other tasks or rows, or has its boundaries at other steps.
            LedgerError: The parent's ledger is damaged, or not of the same run as its checkpoint.
            StateError: The parent's checkpoint is damaged.
        """
        from train.checkpoint_store import CheckpointStore

        records = _up_to_checkpoint(self.parent, self.step)
        memory = replay(records)
        obstacles = fork_obstacles(memory.setup, setup, self.step)
        if obstacles:
            raise ConfigError(
                f"this run cannot go on from step {self.step} of {self.parent.root}: {'; '.join(obstacles)}. The files "
                "of the data may have changed since; boundaries must stay where they were: give "
                f"mixture.interval_steps={memory.setup.interval_steps}, and train.steps beyond {self.step}"
            )
        origin = CheckpointStore(
            self.origin or self.parent.checkpoints, keep=1, staging=directory.scratch, patience_s=_PATIENCE_S
        )
        saved = origin.read(self.step)
        if memory.checkpoint_at(self.step) != saved.manifest.engine:
            raise LedgerError(f"{self.parent.root}: the checkpoint at step {self.step} is not one of its ledger's run")
        fork = ForkRecord(step=self.step, setup=setup.model_dump(mode="json"), changed=self.changed)
        memory.fold(fork)
        engine = memory.checkpoint_at(self.step)
        assert engine is not None
        manifest = dataclasses.replace(saved.manifest, engine=engine)
        store = CheckpointStore(place or directory.checkpoints, keep=1, staging=directory.scratch)
        store.storage.make()
        store.write(manifest, weights=saved.weights, optimizer=saved.optimizer)
        if not store.drain(_PATIENCE_S):
            raise StateError(
                f"{store.storage} did not take the first checkpoint in {_PATIENCE_S:g} s; mend the storage"
            )
        store.close()
        writer = LedgerWriter(directory.ledger)
        for record in (*records, fork):
            writer.append(record)
        writer.close()


def resolve_fork(
    spec: str,
    *,
    files: Sequence[Path],
    overrides: Sequence[str],
    launch: Sequence[Path],
    launch_overrides: Sequence[str],
) -> tuple[Fork, RunConfig, LaunchConfig]:
    """The fork that `RUN@STEP` and the settings over the parent's ask for.

    Raises:
        RunDirectoryError: RUN is no run, or has no checkpoint at STEP; names the steps it has.
        ConfigError: A setting is wrong, or one that must stay as it is.
    """
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise ConfigError(
            f"--fork {spec}: give RUN@STEP, the directory of a run and the step of one of its checkpoints"
        )
    parent, step = RunDirectory(Path(found["run"]).absolute()), int(found["step"])
    if not parent.manifest.is_file() or not parent.config.is_file():
        raise RunDirectoryError(f"--fork {spec}: {parent.root} is not the directory of a run")
    before = load_config(RunConfig, files=[parent.config])
    _check_step(parent, before, step)
    config = load_config(RunConfig, files=[parent.config, *files], overrides=overrides)
    if config.output.name == before.output.name:
        name = f"{before.output.name}-fork-{step}"
        config = config.model_copy(update={"output": config.output.model_copy(update={"name": name})})
    fork = Fork.of(parent, step, before=before, after=config)
    names = tuple(f"{name}{end}" for name in FIXED_IN_A_FORK for end in ".:")
    fixed = [change for change in fork.changed if change.startswith(names)]
    if fixed:
        raise ConfigError(
            f"--fork: a fork goes on with the data, model and seed of its run; these differ: {'; '.join(fixed)}. Leave "
            "them as they were, or start a new run"
        )
    launch_config = load_config(LaunchConfig, files=[parent.launch, *launch], overrides=launch_overrides)
    return fork, config, launch_config


def changes(before: ConfigModel, after: ConfigModel, *, include: set[str] | None = None) -> tuple[str, ...]:
    """What differs between two models of one type but for where the run is kept (`output`), as `a.b: old → new`.

    With `include` only these of their fields count.
    """
    old, new = (model.model_dump(mode="json", include=include, exclude={"output"}) for model in (before, after))
    return tuple(_changes(old, new))


def _check_step(parent: RunDirectory, config: RunConfig, step: int) -> None:
    from train.checkpoint_storage import storage_at

    steps = storage_at(parent.checkpoint_place(config)).steps()
    if step not in steps:
        kept = ", ".join(map(str, steps)) or "none"
        raise RunDirectoryError(
            f"{parent.root} has no checkpoint at step {step}; its checkpoints are at: {kept} (how many stay is "
            "train.keep_checkpoints)"
        )


def _up_to_checkpoint(parent: RunDirectory, step: int) -> list[Record]:
    """The parent's ledger up to the last time its checkpoint at `step` was taken."""
    records = list(read_ledger(parent.ledger))
    taken = [
        place for place, record in enumerate(records) if isinstance(record, CheckpointRecord) and record.step == step
    ]
    if not taken:
        raise LedgerError(f"{parent.ledger} knows of no checkpoint at step {step}")
    return records[: taken[-1] + 1]


def _changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    below_old, below_new = _items(old), _items(new)
    if below_old is None or below_new is None or below_old.get("type") != below_new.get("type"):
        if old != new:
            yield f"{path}: {_shown(old)} → {_shown(new)}"
        return
    for key in below_old | below_new:
        yield from _changes(below_old.get(key), below_new.get(key), f"{path}.{key}" if path else key)


def _items(value: Any) -> dict[str, Any] | None:
    if isinstance(value, list):
        return {str(place): item for place, item in enumerate(value)}
    return value if isinstance(value, dict) else None


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "type" in value:
        return str(value["type"])
    return "unset" if value is None else str(value)
