"""A sweep's directory: what was asked for, and every trial's run.

sweep.yaml  base.yaml  launch.yaml   as resolved            trials/NAME/   a run directory each, trunks too
trials.json                          trials planned         tune/          Ray Tune's own state
report.html  report.json             what was found         winner.yaml    the best configuration, ready to run

A trial is known by its run: values, status and steps are read from there, so nothing has to agree with a second record.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.config import LaunchConfig, RunConfig
from cluster.data import PREPARED_FOLDER
from cluster.run_directory import RunDirectory
from cluster.settings import dump_config, load_config
from cluster.sweep.config import SweepConfig, SweepOutput
from cluster.sweep.space import label, overrides
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError, RunDirectoryError


def trial_name(number: int) -> str:
    """Names sort as numbers do."""
    return f"trial-{number:03d}"


def next_number(names: Iterable[str]) -> int:
    """The number after the greatest of these trials; those in between may be missing."""
    return 1 + max((int(name.rpartition("-")[2]) for name in names), default=-1)


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """One run of a sweep.

    Attributes:
        name: Of its run directory.
        values: What it sets of the search space.
        settings: More settings, `a.b=value`.
        origin: Name of the run it goes on from, and the step; None: from scratch.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    origin: tuple[str, int] | None = None

    @property
    def is_trunk(self) -> bool:
        """Trained for others to fork from; not a trial itself."""
        return self.name.startswith("trunk-")


@dataclass(frozen=True, slots=True)
class SweepDirectory:
    """Paths of one sweep. Create with `create` or `reopen`."""

    root: Path

    @property
    def trials(self) -> Path:
        """Run directories."""
        return self.root / "trials"

    @property
    def tune(self) -> Path:
        """Ray Tune's storage."""
        return self.root / "tune"

    @property
    def winner(self) -> Path:
        """The best trial's configuration."""
        return self.root / "winner.yaml"

    @classmethod
    def create(
        cls, config: ConfigModel, output: SweepOutput, *, base: RunConfig, launch: LaunchConfig, kind: str = "sweep"
    ) -> "SweepDirectory":
        """Make a fresh directory for what `config` asks, kept as `kind`.yaml.

        Raises:
            RunDirectoryError: There is something already.
        """
        assert output.name is not None, "the command line names every sweep"
        directory = cls((output.dir / output.name).absolute())
        if directory.root.exists() and any(directory.root.iterdir()):
            raise RunDirectoryError(
                f"output.name: {directory.root} exists and is not empty; choose another output.name, or go on with the "
                f"sweep there: taskheat sweep --resume {directory.root}"
            )
        directory.trials.mkdir(parents=True, exist_ok=True)
        directory._share_prepared(base.output.dir)
        for name, model in ((kind, config), ("base", base), ("launch", launch)):
            (directory.root / f"{name}.yaml").write_text(dump_config(model), encoding="utf-8")
        return directory

    def runs(self) -> list[RunDirectory]:
        """Every run there is, of trials and trunks."""
        folders = (path for path in self.trials.iterdir() if path.is_dir() and not path.name.startswith("."))
        return [RunDirectory(path) for path in sorted(folders)]

    def _share_prepared(self, runs: Path) -> None:
        """Let trials find what runs of the same data have prepared, and the other way round."""
        prepared = (runs / PREPARED_FOLDER).absolute()
        prepared.mkdir(parents=True, exist_ok=True)
        (self.trials / PREPARED_FOLDER).symlink_to(prepared, target_is_directory=True)

    @classmethod
    def reopen(cls, root: Path) -> "SweepDirectory":
        """An existing sweep, to go on with. Raises RunDirectoryError if there is none."""
        directory = cls(root.absolute())
        if not (directory.root / "trials.json").is_file():
            raise RunDirectoryError(
                f"{root} is not the directory of a sweep that was planned (no trials.json in it); "
                "give output.dir/output.name of the sweep"
            )
        return directory

    def config(self) -> SweepConfig:
        """What was asked for."""
        return load_config(SweepConfig, files=[self.root / "sweep.yaml"])

    def base(self) -> RunConfig:
        """The run that is searched around."""
        return load_config(RunConfig, files=[self.root / "base.yaml"])

    def launch(self) -> LaunchConfig:
        """Where each trial runs."""
        return load_config(LaunchConfig, files=[self.root / "launch.yaml"])

    def plan(self, specs: Iterable[TrialSpec]) -> None:
        """Remember the trials planned; it is what makes the directory one that can be gone on with."""
        text = json.dumps([asdict(spec) for spec in specs], indent=1, ensure_ascii=False)
        partial = self.root / "trials.json.partial"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self.root / "trials.json")

    def planned(self) -> dict[str, TrialSpec]:
        """The trials planned, by name."""
        entries = json.loads((self.root / "trials.json").read_text(encoding="utf-8"))
        specs = (
            TrialSpec(
                name=entry["name"],
                values=entry["values"],
                settings=tuple(entry["settings"]),
                origin=None if entry["origin"] is None else (entry["origin"][0], entry["origin"][1]),
            )
            for entry in entries
        )
        return {spec.name: spec for spec in specs}

    def run(self, name: str) -> RunDirectory:
        """The run of a trial."""
        return RunDirectory(self.trials / name)

    def is_done(self, name: str) -> bool:
        """The trial has finished, or was stopped for good by the schedule."""
        manifest = self.run(name).read_manifest()
        return manifest.get("status") == "finished" or "stopped_by_schedule" in manifest

    def trial_config(self, spec: TrialSpec) -> RunConfig:
        """The trial's whole configuration.

        Raises:
            ConfigError: Its values make no valid run; names the trial, the key and the value.
        """
        return trial_config(self.root / "base.yaml", spec, folder=self.trials)

    def discard(self) -> None:
        """Remove a directory whose sweep never began, so that the name is free again."""
        if not (self.root / "trials.json").exists():
            shutil.rmtree(self.root, ignore_errors=True)

    def discard_unbegun(self, name: str) -> None:
        """Remove what a start left that died before its ledger was written."""
        run = self.run(name)
        if run.root.exists() and not run.ledger.exists():
            shutil.rmtree(run.root)


def trial_config(base: Path, spec: TrialSpec, *, folder: Path) -> RunConfig:
    """`SweepDirectory.trial_config` over any base file."""
    kept = [f"output.dir={json.dumps(str(folder))}", f"output.name={spec.name}"]
    try:
        return load_config(RunConfig, files=[base], overrides=[*overrides(spec.values), *spec.settings, *kept])
    except ConfigError as error:
        culprit = _culprit(base, spec)
        raise ConfigError(
            f"{spec.name} ({label(spec.values)}) is no valid run{culprit}: {error}\n"
            "change the values in the sweep's space, give the key a `when`, or change the run it is laid over"
        ) from error


def _culprit(base: Path, spec: TrialSpec) -> str:
    """The one value without which the trial would load, if there is one."""
    for key in spec.values:
        others = {name: value for name, value in spec.values.items() if name != key}
        try:
            load_config(RunConfig, files=[base], overrides=[*overrides(others), *spec.settings])
        except ConfigError:
            continue
        return f" because of space.{key} = {spec.values[key]}"
    return ""
