"""Which files a source's path means, and how they are opened: local paths, or URLs through fsspec.

A folder means every data file below it, in the order of their paths; hidden files and links to folders are passed over.
A folder that Hugging Face `save_to_disk` wrote counts as one data file of that name; of a `DatasetDict`, the files of
`validation` and `test` say which set they are meant for. Those of `train` do not: the sets that the dictionary lacks,
the probes always among them, are held out of it.
"""

import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import fsspec

from scheduler.errors import DataError
from train.config import SplitName

EXTENSIONS = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".feather")
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "hf": "huggingface_hub",
    "oss": "ossfs",
    "sftp": "paramiko",
}
_HELD_OUT_SET_OF_SPLIT: dict[str, SplitName] = {
    "validation": "selection",
    "valid": "selection",
    "val": "selection",
    "dev": "selection",
    "test": "test",
}
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file to read.

    Attributes:
        path: Local path or URL.
        name: What `task_from: file` calls its task: its stem, or the name of the saved dataset it belongs to.
        folder: What `task_from: folder` calls its task: the folder that it, or its saved dataset, lies in.
        split: The held-out set its split of a saved `DatasetDict` is meant for; None where the path names none.
    """

    path: str
    name: str
    folder: str
    split: SplitName | None = None

    @property
    def stem(self) -> str:
        """Its own name without the extension."""
        return PurePosixPath(self.path).stem

    @property
    def extension(self) -> str:
        """In lower case, with its dot."""
        return PurePosixPath(self.path).suffix.lower()


class _Entry(NamedTuple):
    path: str
    is_folder: bool

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


def is_url(path: Path | str) -> bool:
    """Whether the path names its protocol."""
    return isinstance(path, str) and "://" in path


def open_binary(path: Path | str) -> BinaryIO:
    """Open a file for reading, buffered.

    Raises:
        DataError: The file cannot be opened, or the package that reads its protocol is missing.
    """
    try:
        if not is_url(path):
            return open(path, "rb", buffering=_BUFFER_BYTES)
        system, inner = _file_system(str(path))
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, system.open(inner, "rb")), _BUFFER_BYTES))
    except OSError as error:
        raise DataError(
            f"data source {path}: cannot be opened ({error.strerror or error}); correct the path"
        ) from error


def find_files(path: Path | str) -> list[DataFile]:
    """The data files that the path means, in order.

    Raises:
        DataError: There is nothing at the path, no data file in the folder, or the file's extension is unknown.
    """
    if _is_folder(path):
        files = list(_below(str(path).rstrip("/")))
        if not files:
            raise DataError(
                f"data source {path} is a folder without a data file ({', '.join(EXTENSIONS)}); correct the path"
            )
        return files
    _require_file(path)
    file = _data_file(str(path))
    if file.extension not in EXTENSIONS:
        raise DataError(
            f"data source {path}: cannot read extension {file.extension!r}; "
            f"convert it to one of {', '.join(EXTENSIONS)}"
        )
    return [file]


def _data_file(path: str) -> DataFile:
    pure = PurePosixPath(path)
    return DataFile(path, name=pure.stem, folder=pure.parent.name or pure.stem)


def _file_system(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol, f"the fsspec package for {protocol}")
        raise DataError(f"data source {url}: reading {protocol}:// needs a package: pip install {package}") from error
    except ValueError as error:
        raise DataError(f"data source {url}: no reader for {protocol}:// ({error}); correct the URL") from error


def _is_folder(path: Path | str) -> bool:
    if not is_url(path):
        return Path(path).is_dir()
    system, inner = _file_system(str(path))
    return bool(system.isdir(inner))


def _entries(folder: str) -> list[_Entry]:
    """What lies in the folder, by name."""
    if not is_url(folder):
        inside = sorted(Path(folder).iterdir())
        return [_Entry(str(item), item.is_dir()) for item in inside if not (item.is_symlink() and item.is_dir())]
    system, inner = _file_system(folder)
    listed = [_Entry(system.unstrip_protocol(item["name"]), item["type"] == "directory") for item in system.ls(inner)]
    return sorted(entry for entry in listed if entry.path.rstrip("/") != folder)


def _below(folder: str) -> Iterator[DataFile]:
    entries = _entries(folder)
    names = {entry.name for entry in entries}
    if "dataset_dict.json" in names:
        yield from _saved_splits(folder)
    elif "state.json" in names and any(name.endswith(".arrow") for name in names):
        yield from _saved_dataset(folder)
    else:
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            if entry.is_folder:
                yield from _below(entry.path)
            elif (file := _data_file(entry.path)).extension in EXTENSIONS:
                yield file


def _saved_splits(folder: str) -> Iterator[DataFile]:
    splits = _description(f"{folder}/dataset_dict.json").get("splits")
    for split in splits if isinstance(splits, list) else ():
        for file in _saved_dataset(f"{folder}/{split}"):
            meant_for = _HELD_OUT_SET_OF_SPLIT.get(split.lower())
            yield replace(file, name=_data_file(folder).name, folder=_data_file(folder).folder, split=meant_for)


def _saved_dataset(folder: str) -> Iterator[DataFile]:
    listed = _description(f"{folder}/state.json").get("_data_files")
    for item in listed if isinstance(listed, list) else ():
        dataset = PurePosixPath(folder)
        yield DataFile(f"{folder}/{item['filename']}", name=dataset.name, folder=dataset.parent.name or dataset.name)


def _description(path: str) -> dict[str, Any]:
    try:
        with open_binary(path) as file:
            return json.load(file)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); save the dataset again with save_to_disk") from error


def _require_file(path: Path | str) -> None:
    if is_url(path):
        system, inner = _file_system(str(path))
        if not system.exists(inner):
            raise DataError(f"data source {path} does not exist; correct the URL")
        return
    path = Path(path)
    if path.is_file():
        return
    if not path.parent.is_dir():
        raise DataError(f"data source {path} does not exist, nor does the folder {path.parent}; correct the path")
    beside = sorted(item.name for item in path.parent.iterdir() if item.is_file())
    near = difflib.get_close_matches(path.name, beside, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"{path.parent} holds no file of a similar name"
    raise DataError(f"data source {path} does not exist; {hint} Correct the path (relative paths start at the config)")
