"""How much memory can still be used here: the machine's, or what the container's limit leaves.

Linux only. Both generations of control groups are read. Pages of files that the kernel would give back at once do not
count as used, though the group's usage holds them: reading a large data set must not look like memory running out.
"""

from dataclasses import dataclass
from pathlib import Path

_GB = 1e9


@dataclass(frozen=True, slots=True)
class _Generation:
    """Files of one generation of control groups, and how `memory.stat` names the pages it can take back."""

    folder: str
    limit: str
    used: str
    reclaimable: str


_GENERATIONS = (
    _Generation("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    _Generation("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory_gb(root: Path = Path("/")) -> float | None:
    """Gigabytes that can still be used; None where that cannot be told."""
    machine = _numbers(root / "proc/meminfo")
    if "MemAvailable" not in machine:
        return None
    free = machine["MemAvailable"] * 1024
    left = [_left(root / generation.folder, generation) for generation in _GENERATIONS]
    return min([free, *(one for one in left if one is not None)]) / _GB


def _left(folder: Path, generation: _Generation) -> int | None:
    """Bytes the group may still take; None where it has no limit, or there is no such group."""
    try:
        limit, used = (
            (folder / name).read_text(encoding="utf-8").strip() for name in (generation.limit, generation.used)
        )
    except OSError:
        return None
    if limit == "max":
        return None
    return int(limit) - int(used) + _numbers(folder / "memory.stat").get(generation.reclaimable, 0)


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line, by the word before it; empty where there is no such file."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    words = [line.replace(":", " ").split() for line in lines]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}
