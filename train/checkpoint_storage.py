"""Where the checkpoints of a run are kept: a folder that every node sees, or a place behind a URL (fsspec).

    <place>/step-000120/trainable.safetensors, optimizer.pt, manifest.json

A checkpoint exists once its manifest does. In a folder it appears by one rename, flushed to disk; behind a URL, where
nothing can be renamed as a whole, the manifest is written last and removed first. So a writer that died, at whatever
byte, leaves the older checkpoints in force.

Not here: what is in a checkpoint and whether it is intact (`train.checkpoint`), retries (`train.checkpoint_upload`),
which one to take (`train.checkpoint_store`). Every method but `make` may raise whatever the file system raises.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from scheduler.errors import ConfigError
from train.checkpoint import MANIFEST

_STEP, _REFUSED, _HIDDEN, _PARTIAL = "step-", "refused-", ".old-", ".partial-"


class Storage(Protocol):
    """What a place for checkpoints can do."""

    def make(self) -> None:
        """Make the place, and prove that it can be written. Raises ConfigError, with the remedy."""
        ...

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, intact or not, in ascending order. Raises if the place is not there."""
        ...

    def publish(self, staged: Path, step: int) -> None:
        """Store the folder `staged` as the checkpoint of `step`, in place of one that may be there."""
        ...

    def fetch(self, step: int, scratch: Path) -> Path:
        """A local folder with the files of the checkpoint; made in `scratch` where it must be fetched."""
        ...

    def set_aside(self, step: int) -> None:
        """Make the checkpoint one that `steps` does not tell, without losing its files."""
        ...

    def remove(self, step: int) -> None:
        """Remove the checkpoint; half removed, it is not told any more."""
        ...


def storage_at(place: str | Path) -> Storage:
    """The storage at a folder or URL."""
    return ObjectStorage(str(place).rstrip("/")) if "://" in str(place) else FolderStorage(Path(place))


def folder_name(step: int) -> str:
    """Name of the folder of a checkpoint."""
    return f"{_STEP}{step:06d}"


@dataclass(frozen=True, slots=True)
class FolderStorage:
    """A folder on a file system with rename."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint at `step`."""
        return self.folder / folder_name(step)

    def make(self) -> None:
        """See `Storage`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f"{_PARTIAL}probe"
            probe.write_bytes(b"taskheat")
            probe.unlink()
        except OSError as error:
            raise _unusable(str(self.folder), error) from error

    def steps(self) -> list[int]:
        """See `Storage`."""
        return _steps_of([entry.name for entry in os.scandir(self.folder)])

    def publish(self, staged: Path, step: int) -> None:
        """See `Storage`."""
        path = self.path(step)
        self._sweep()
        partial = self.folder / f"{_PARTIAL}{path.name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for file in sorted(staged.iterdir()):
            shutil.copyfile(file, partial / file.name)
            _flush_to_disk(partial / file.name)
        _flush_folder(partial)
        self.set_aside(step)
        partial.rename(path)
        _flush_folder(self.folder)

    def fetch(self, step: int, scratch: Path) -> Path:  # noqa: ARG002 - it is here already
        """See `Storage`."""
        return self.path(step)

    def set_aside(self, step: int) -> None:
        """See `Storage`."""
        path = self.path(step)
        if not path.exists():
            return
        place, number = path.with_name(_REFUSED + path.name), 1
        while place.exists():
            number += 1
            place = path.with_name(f"{_REFUSED}{path.name}-{number}")
        path.rename(place)

    def remove(self, step: int) -> None:
        """See `Storage`."""
        with contextlib.suppress(FileNotFoundError):
            self.path(step).rename(self.folder / f"{_HIDDEN}{step}")
        self._sweep()

    def _sweep(self) -> None:
        for leftover in self.folder.glob(f"{_HIDDEN}*"):
            shutil.rmtree(leftover, ignore_errors=True)


class ObjectStorage:
    """A place behind a URL. Credentials come from where the file system of its scheme looks for them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __str__(self) -> str:
        return self.url

    def make(self) -> None:
        """See `Storage`."""
        if self.url.startswith("memory://"):
            raise ConfigError(
                f"output.storage: {self.url} would die with the process that writes it; give a real place"
            )
        try:
            files, root = self._open()
            files.makedirs(root, exist_ok=True)
            files.pipe_file(f"{root}/{_PARTIAL}probe", b"taskheat")
            files.rm_file(f"{root}/{_PARTIAL}probe")
        except (OSError, ValueError, ImportError) as error:
            raise _unusable(self.url, error) from error

    def steps(self) -> list[int]:
        """See `Storage`. fsspec's glob would take a place that cannot be reached for an empty one."""
        files, root = self._open()
        try:
            names = [path.rstrip("/").rsplit("/", 1)[-1] for path in files.ls(root, detail=False)]
        except FileNotFoundError:  # of a store without folders: there is no file below it yet
            if isinstance(files, LocalFileSystem):
                raise
            return []
        return [step for step in _steps_of(names) if self._is_whole(files, f"{root}/{folder_name(step)}")]

    def _is_whole(self, files: Any, folder: str) -> bool:
        try:
            files.info(f"{folder}/{MANIFEST}")
        except FileNotFoundError:
            return False
        return True

    def publish(self, staged: Path, step: int) -> None:
        """See `Storage`."""
        files, root = self._open()
        folder = f"{root}/{folder_name(step)}"
        files.makedirs(folder, exist_ok=True)
        if files.exists(f"{folder}/{MANIFEST}"):
            files.rm_file(f"{folder}/{MANIFEST}")
        names = sorted((path.name for path in staged.iterdir()), key=lambda name: (name == MANIFEST, name))
        for name in names:
            files.put_file(str(staged / name), f"{folder}/{name}")
            stored, expected = files.info(f"{folder}/{name}")["size"], (staged / name).stat().st_size
            if stored != expected:
                raise OSError(f"{folder}/{name} has {stored} bytes after writing, {expected} were sent")

    def fetch(self, step: int, scratch: Path) -> Path:
        """See `Storage`."""
        files, root = self._open()
        place = scratch / folder_name(step)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for path in files.ls(f"{root}/{folder_name(step)}", detail=False):
            files.get_file(path, str(place / path.rsplit("/", 1)[-1]))
        return place

    def set_aside(self, step: int) -> None:
        """See `Storage`."""
        files, root = self._open()
        manifest = f"{root}/{folder_name(step)}/{MANIFEST}"
        if files.exists(manifest):
            files.mv(manifest, f"{root}/{folder_name(step)}/{_REFUSED}{MANIFEST}")

    def remove(self, step: int) -> None:
        """See `Storage`."""
        files, root = self._open()
        folder = f"{root}/{folder_name(step)}"
        if files.exists(f"{folder}/{MANIFEST}"):
            files.rm_file(f"{folder}/{MANIFEST}")
        files.rm(folder, recursive=True)

    def _open(self) -> tuple[Any, str]:
        """The file system, its listings not remembered, and the path in it."""
        files, root = fsspec.url_to_fs(self.url)
        files.invalidate_cache()
        return files, root


def _steps_of(names: list[str]) -> list[int]:
    numbers = [name.removeprefix(_STEP) for name in names if name.startswith(_STEP)]
    return sorted(int(number) for number in numbers if number.isdecimal())


def _unusable(place: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"output.storage: checkpoints cannot be written to {place} ({error}); make it writable, install the fsspec "
        "package of its scheme, or choose another place"
    )


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can; the hashes then find what is missing
        _flush_to_disk(path)
