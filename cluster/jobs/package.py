"""What travels with a job: our packages, the resolved configuration, and the files it reads.

PACKAGE/  scheduler/ train/ evalsvc/ cluster/   as they are imported here
          run.yaml  launch.yaml                 every setting, with the paths as they will be on the cluster
          inputs/0/FOLDER/FILE …                one folder for each path that travels
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.config import LaunchConfig, RunConfig
from cluster.jobs.paths import local_paths, with_paths
from cluster.origins import HOME, PACKAGES
from cluster.settings import dump_config
from scheduler.errors import ConfigError

INPUTS = "inputs"
INPUTS_ON_STORAGE = ".inputs"
OWN_CLUSTER = "auto"
"""`launch.address` inside a job: the cluster that it is in. A launch without an address asks no cluster to grow."""
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Travelling:
    """A path that travels: the first setting that names it, its files, and where it lies below `inputs/`."""

    setting: str
    path: Path
    files: tuple[Path, ...]
    place: Path

    @property
    def num_bytes(self) -> int:
        """Size of all its files."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True, slots=True)
class JobPackage:
    """A run made ready to travel.

    `config` and `launch` hold the paths as they will be on the cluster; `inputs_to` is where the job lays what travels,
    named after its content, so that equal inputs are kept once.
    """

    config: RunConfig
    launch: LaunchConfig
    travelling: tuple[Travelling, ...]
    inputs_to: Path

    @property
    def run_directory(self) -> Path:
        """Where the run will be."""
        assert self.config.output.name is not None, "the command line names every run"
        return self.config.output.dir / self.config.output.name

    def write(self, folder: Path) -> None:
        """Write the package into the empty `folder`."""
        write_code(folder)
        (folder / "run.yaml").write_text(dump_config(self.config), encoding="utf-8")
        (folder / "launch.yaml").write_text(dump_config(self.launch), encoding="utf-8")
        for item in self.travelling:
            for file in item.files:
                target = folder / INPUTS / item.place / file.relative_to(item.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def write_code(folder: Path) -> None:
    """Copy our packages, as they are imported here, into `folder`."""
    for name in PACKAGES:
        shutil.copytree(HOME / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def make_package(config: RunConfig, launch: LaunchConfig) -> JobPackage:
    """Sort out which of the run's files travel and which are on the storage already.

    Raises:
        ConfigError: No storage is named, the output or the file of verdicts does not lie on it, or the files that
            travel are too large.
    """
    storage = launch.storage
    if storage is None:
        raise ConfigError(
            "launch.storage: not set; name the folder that every node of the cluster reads and writes under the same "
            "path, such as launch.storage=/mnt/shared (on a cluster of one machine: any folder of it)"
        )
    if not config.output.dir.is_relative_to(storage):
        raise ConfigError(
            f"output.dir: {config.output.dir} is not below launch.storage {storage}, so the cluster's nodes would not "
            f"share it; give output.dir={storage / 'runs'}"
        )
    _check_verdicts(config.evaluation.human_verdicts, storage)
    travelling = tuple(_travelling(config, storage))
    _check_size(travelling, launch)
    inputs_to = config.output.dir / INPUTS_ON_STORAGE / _digest(travelling)
    places = {item.path: inputs_to / item.place for item in travelling}
    return JobPackage(
        config=with_paths(config, lambda _, path: places.get(path, path)),
        launch=launch.model_copy(update={"address": OWN_CLUSTER}),
        travelling=travelling,
        inputs_to=inputs_to,
    )


def _check_verdicts(path: Path | None, storage: Path) -> None:
    """People append to the file while the run goes on; of a copy that travelled it would see none of that."""
    if path is not None and not path.is_relative_to(storage):
        raise ConfigError(
            f"evaluation.human_verdicts: {path} is not below launch.storage {storage}, so the job would read a copy "
            "and never what is appended later; put the file on the storage, such as "
            f"evaluation.human_verdicts={storage / path.name}"
        )


def _travelling(config: RunConfig, storage: Path) -> Iterator[Travelling]:
    seen: set[Path] = set()
    for setting, path in local_paths(config):
        if path.is_relative_to(storage) or path in seen:
            continue
        if not path.exists():
            raise ConfigError(
                f"{setting}: {path} is neither here, to travel with the job, nor below launch.storage {storage}; "
                "correct the path, or put the file on the storage"
            )
        place = Path(str(len(seen)), path.parent.name, path.name)
        seen.add(path)
        yield Travelling(setting, path, tuple(sorted(_files_of(path))), place)


def _files_of(path: Path) -> Iterator[Path]:
    """The file itself, or the files of a folder; hidden ones and links to folders are passed over, as a source does."""
    if path.is_file():
        yield path
        return
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _check_size(travelling: tuple[Travelling, ...], launch: LaunchConfig) -> None:
    total_mb = sum(item.num_bytes for item in travelling) / _MEGABYTE
    if total_mb <= launch.job.max_upload_mb:
        return
    largest = sorted(travelling, key=lambda item: -item.num_bytes)[:5]
    named = ", ".join(f"{item.setting} {item.path} ({item.num_bytes / _MEGABYTE:,.1f} MB)" for item in largest)
    raise ConfigError(
        f"launch.job.max_upload_mb {launch.job.max_upload_mb:g}: {total_mb:,.1f} MB would travel with the job: "
        f"{named}; put the large ones below launch.storage {launch.storage} (or at a URL) and name them there"
    )


def _digest(travelling: tuple[Travelling, ...]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for item in travelling:
        for file in item.files:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "blake2b").hexdigest()
            digest.update(repr((str(item.place), str(file.relative_to(item.path)), content)).encode())
    return digest.hexdigest()
