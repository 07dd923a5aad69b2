"""Hashes of the files a preparation reads, kept between preparations so that an unchanged file is not read again.

A kept hash counts only for the same path, size and modification time, and only if the file was older than two seconds
when it was hashed: a file changed twice within the clock's grain would look unchanged (git's "racy" rule).
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from scheduler.errors import DataError
from train.data.files import is_url, open_binary

_BLOCK_BYTES = 1 << 20
_GRAIN_NS = 2_000_000_000


def hash_files(paths: Iterable[str], *, cache: Path) -> dict[str, str]:
    """128-bit hash (hex) of every file's bytes, by path; files at a URL are read each time.

    Raises:
        DataError: A file cannot be read.
    """
    kept = _read(cache)
    hashes: dict[str, str] = {}
    entries: dict[str, list[object]] = {}
    for path in paths:
        if is_url(path):
            hashes[path] = _hash(path)
            continue
        try:
            stat = Path(path).stat()
        except OSError as error:
            raise DataError(f"data source {path}: cannot be read ({error.strerror}); correct the path") from error
        stamp = [stat.st_size, stat.st_mtime_ns]
        key = str(Path(path).absolute())
        entry = kept.get(key)
        if entry is not None and entry[:2] == stamp:
            hashes[path] = str(entry[2])
            entries[key] = entry
            continue
        now = time.time_ns()
        hashes[path] = _hash(path)
        if stat.st_mtime_ns < now - _GRAIN_NS:
            entries[key] = [*stamp, hashes[path]]
    _write(cache, kept, entries)
    return hashes


def _hash(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_binary(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read(cache: Path) -> dict[str, list[object]]:
    try:
        return json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write(cache: Path, kept: dict[str, list[object]], entries: dict[str, list[object]]) -> None:
    if all(kept.get(path) == entry for path, entry in entries.items()):
        return
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(f"{cache.name}-{os.getpid()}")
    partial.write_text(json.dumps({**kept, **entries}), encoding="utf-8")
    partial.rename(cache)
