"""A run's directory: where everything about it lies, and the check that it is the right run's.

config.yaml  launch.yaml   as resolved                    ledger/       every signal, decision and reason
manifest.json              versions, status, timings      metrics/      TensorBoard
quarantine.parquet         refused rows with reasons      checkpoints/  to go on from
report.html  report.json   what happened                  adapter/ or model/  the result, Hugging Face layout
"""

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.config import LaunchConfig, RunConfig
from cluster.settings import dump_config, load_config
from scheduler.errors import RunDirectoryError
from scheduler.ledger import LEDGER_FILE
from train.config import PretrainedModel

logger = logging.getLogger(__name__)

_VERSIONED = ("taskheat", "torch", "transformers", "peft", "accelerate", "ray", "numpy")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run. Create with `create` or `reopen`."""

    root: Path

    @property
    def config(self) -> Path:
        """Resolved RunConfig."""
        return self.root / "config.yaml"

    @property
    def launch(self) -> Path:
        """Resolved LaunchConfig."""
        return self.root / "launch.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, status and timings."""
        return self.root / "manifest.json"

    @property
    def ledger(self) -> Path:
        """The ledger's lines."""
        return self.root / LEDGER_FILE

    @property
    def checkpoints(self) -> Path:
        """Where `train.checkpoint_store` keeps the checkpoints, unless the configuration names a storage."""
        return self.root / "checkpoints"

    def checkpoint_place(self, config: RunConfig) -> str:
        """Folder or URL of the run's checkpoints."""
        if config.output.storage is None:
            return str(self.checkpoints)
        return f"{str(config.output.storage).rstrip('/')}/{self.root.name}/checkpoints"

    @property
    def journal(self) -> Path:
        """When each checkpoint was durable, a line of JSON each."""
        return self.root / "checkpoints.jsonl"

    @property
    def ray_folder(self) -> Path:
        """Ray Train's own bookkeeping."""
        return self.root / ".ray-train"

    @property
    def scratch(self) -> Path:
        """Passing files of the driver."""
        return self.root / ".scratch"

    @property
    def identity(self) -> str:
        """A name that no other run has had, were it in the same place."""
        return self.read_manifest()["id"]

    @property
    def metrics(self) -> Path:
        """TensorBoard files."""
        return self.root / "metrics"

    def result(self, config: RunConfig) -> Path:
        """Folder of the trained adapter or model."""
        has_adapter = isinstance(config.model, PretrainedModel) and config.model.lora is not None
        return self.root / ("adapter" if has_adapter else "model")

    @classmethod
    def create(cls, config: RunConfig, launch: LaunchConfig) -> "RunDirectory":
        """Make a fresh directory for a named run.

        Raises:
            RunDirectoryError: There is one already, or the place cannot be written.
        """
        assert config.output.name is not None, "the command line names every run"
        root = config.output.dir / config.output.name
        if root.is_file() or (root.is_dir() and any(root.iterdir())):
            raise RunDirectoryError(_already_there(root))
        directory = cls(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            directory.config.write_text(dump_config(config), encoding="utf-8")
            directory.launch.write_text(dump_config(launch), encoding="utf-8")
        except OSError as error:
            raise RunDirectoryError(
                f"output.dir: {root} cannot be written ({error.strerror}); make it writable, or choose another"
            ) from error
        directory.update_manifest(
            name=config.output.name,
            id=f"{config.output.name}-{uuid.uuid4().hex[:12]}",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            status="starting",
            python=platform.python_version(),
            versions={name: _version(name) for name in _VERSIONED},
        )
        return directory

    @classmethod
    def reopen(
        cls, root: Path, *, launch_overrides: Sequence[str] = ()
    ) -> tuple["RunDirectory", RunConfig, LaunchConfig]:
        """An existing run, to go on with. `launch_overrides` (`a.b=value`) are laid over the launch it had last.

        Raises:
            RunDirectoryError: Not a run's directory, or the run has already finished.
            ConfigError: An override names no setting of the launch, or gives it a wrong value.
        """
        directory = cls(root.absolute())
        if not directory.manifest.is_file() or not directory.config.is_file():
            raise RunDirectoryError(
                f"{root} is not the directory of a run (no manifest.json and config.yaml in it); "
                "give output.dir/output.name of the run to go on with"
            )
        if directory.read_manifest().get("status") == "finished":
            raise RunDirectoryError(
                f"{root}: this run has finished, so there is nothing to resume; its result is described in report.html"
            )
        config = load_config(RunConfig, files=[directory.config])
        launch = load_config(LaunchConfig, files=[directory.launch], overrides=launch_overrides)
        return directory, config, launch

    def read_manifest(self) -> dict[str, Any]:
        """What the manifest says so far; nothing if there is none.

        Raises:
            RunDirectoryError: The manifest is damaged.
        """
        try:
            return json.loads(self.manifest.read_text(encoding="utf-8")) if self.manifest.is_file() else {}
        except ValueError as error:
            raise RunDirectoryError(
                f"{self.manifest} is not JSON ({error}); mend it, or choose another output.name"
            ) from error

    def update_manifest(self, **fields: Any) -> None:
        """Add or replace fields; the file is replaced as a whole."""
        partial = self.manifest.with_suffix(".partial")
        partial.write_text(json.dumps(self.read_manifest() | fields, indent=2, ensure_ascii=False), encoding="utf-8")
        partial.replace(self.manifest)

    def begin_session(self) -> None:
        """Count one more start of the driver, whose times are not known before it ends."""
        self.update_manifest(sessions=[*self.sessions, None])

    def end_session(self, wall_s: Mapping[str, float]) -> None:
        """Keep the seconds that this session's parts took."""
        self.update_manifest(sessions=[*self.sessions[:-1], dict(wall_s)])

    @property
    def sessions(self) -> list[dict[str, float] | None]:
        """The seconds that the parts of each session took, by part; None where it failed or was killed.

        A session lasts from the start of the run, or from where it is gone on with, to the driver's end.
        """
        return self.read_manifest().get("sessions", [])

    def bind_data(self, prepared: Path) -> None:
        """Remember which prepared data the run trains on.

        Raises:
            RunDirectoryError: It was started on other data.
        """
        before = self.read_manifest().get("prepared", str(prepared))
        if before != str(prepared):
            raise RunDirectoryError(
                f"{self.root} was started on other data (prepared in {before}, now {prepared}): a source, a card or "
                "the tokenizer changed; restore it to go on, or start a new run"
            )
        self.update_manifest(prepared=str(prepared))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other driver out for as long as this one trains: two would write one ledger.

        The lock is the operating system's and ends with the process. A file system without locks goes without, with a
        warning.

        Raises:
            RunDirectoryError: Another process holds it.
        """
        with (self.root / ".lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RunDirectoryError(
                    f"{self.root} is being trained already, by {file.read() or 'another process'}; wait for its end, "
                    "or stop it there (Ctrl-C, SIGTERM, ray job stop), then go on with it"
                ) from error
            except OSError as error:
                logger.warning("%s cannot be locked (%s): let no second driver work in it", self.root, error)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            yield

    def keep_quarantine(self, prepared: Path) -> None:
        """Copy the refused rows of the prepared data into the run."""
        shutil.copyfile(prepared / "quarantine.parquet", self.root / "quarantine.parquet")

    def keep_launch(self, launch: LaunchConfig) -> None:
        """Where the run goes on, and where it will unless told otherwise."""
        partial = self.launch.with_suffix(".partial")
        partial.write_text(dump_config(launch), encoding="utf-8")
        partial.replace(self.launch)

    def forget_ray(self) -> None:
        """Remove Ray Train's own bookkeeping: a run of equal name would go on from it, past what the workers choose."""
        shutil.rmtree(self.ray_folder, ignore_errors=True)

    def discard(self) -> None:
        """Remove a directory whose run never began, so that the name is free again; one with a ledger stays."""
        if not self.ledger.exists():
            shutil.rmtree(self.root, ignore_errors=True)


def _already_there(root: Path) -> str:
    manifest = RunDirectory(root).read_manifest()
    if not manifest:
        return f"output.name: {root} exists and is not the directory of a run; choose another output.name"
    status = manifest.get("status", "unknown")
    remedy = "choose another output.name"
    if status != "finished":
        remedy += f", or go on with it: taskheat run --resume {root}"
    return f"output.name: {root} already holds another run (status: {status}); {remedy}"


def _version(distribution: str) -> str:
    """Its installed version; the project itself need not be installed where a cluster was handed its source."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
