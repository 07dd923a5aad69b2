"""Checks of the machine they run on: imports, GPUs, memory, shared memory, open files, storage."""

import os
import resource
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from cluster.doctor.finding import Finding, fail, ok, warn
from cluster.doctor.memory import free_memory_gb
from cluster.doctor.versions import check_versions, pinned_versions, project_requirements
from cluster.origins import HOME, shadowed_packages

_GB = 1e9


@dataclass(frozen=True, slots=True)
class Limits:
    """Below these a check fails. The demo with two workers takes 3.3 GB of memory, all processes together."""

    free_memory_gb: float = 4.0
    shm_gb: float = 1.0
    open_files: int = 4096
    free_storage_gb: float = 5.0
    clock_skew_s: float = 1.0


def examine_machine(limits: Limits, *, storage: Path | None) -> list[Finding]:
    """All checks of this machine."""
    return [
        *check_versions(project_requirements(), tested=pinned_versions()),
        check_imports(),
        check_gpus(),
        check_memory(free_memory_gb(), least_gb=limits.free_memory_gb),
        check_shm(Path("/dev/shm"), least_gb=limits.shm_gb),
        check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1], least=limits.open_files),
        *([check_storage(storage, least_free_gb=limits.free_storage_gb)] if storage is not None else []),
    ]


def check_imports() -> Finding:
    """Our packages come from this project, not from another distribution."""
    faults = shadowed_packages()
    if faults:
        return fail("imports", "; ".join(faults), remedy="see above")
    return ok("imports", f"scheduler, train, evalsvc and cluster from {HOME}")


def check_gpus() -> Finding:
    """What torch sees of the GPUs that the driver lists."""
    listed = _driver_list()
    import torch
    from torch.cuda import nccl

    from train.precision import has_bfloat16

    if not torch.cuda.is_available():
        if listed:
            return fail(
                "gpus",
                f"the driver lists {', '.join(listed)}, but torch {torch.__version__} cannot use them",
                remedy="install a CUDA build of torch that fits the driver (https://pytorch.org/get-started/locally)",
            )
        lacking = "" if has_bfloat16(torch.device("cpu")) else ", which has no bfloat16 instructions"
        return ok("gpus", f"none; torch {torch.__version__} computes on the CPU{lacking}")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    nccl_version = ".".join(map(str, nccl.version())) if torch.distributed.is_nccl_available() else "none"
    known = f"{', '.join(listed or names)}; torch {torch.__version__}, nccl {nccl_version}"
    if not has_bfloat16(torch.device("cuda")):
        return warn("gpus", f"{known}; no bfloat16", remedy="model.dtype auto trains in float32 there, slower")
    return ok("gpus", f"{known}, bfloat16")


def check_memory(free_gb: float | None, *, least_gb: float) -> Finding:
    """Free memory, of the container where that has a limit."""
    if free_gb is None:
        return ok("memory", f"not known on {sys.platform}")
    if free_gb < least_gb:
        return fail(
            "memory",
            f"{free_gb:.1f} GB free, {least_gb:g} GB wanted",
            remedy="end other processes, give the container more, or lower launch.num_workers",
        )
    return ok("memory", f"{free_gb:.1f} GB free")


def check_shm(folder: Path, *, least_gb: float) -> Finding:
    """The shared-memory folder, in which Ray keeps objects and NCCL its buffers."""
    if not folder.is_dir():
        return ok("shm", f"no {folder} on {sys.platform}; Ray uses files")
    total_gb = shutil.disk_usage(folder).total / _GB
    if total_gb < least_gb:
        return fail(
            "shm",
            f"{folder} has {total_gb:.2f} GB, {least_gb:g} GB wanted: Ray keeps objects on disk and NCCL may fail",
            remedy="docker run --shm-size=8g; in Kubernetes an emptyDir of medium Memory (taskheat manifest adds one)",
        )
    return ok("shm", f"{folder} has {total_gb:.1f} GB")


def check_open_files(hard_limit: int, *, least: int) -> Finding:
    """Open files a process may have; Ray raises the soft limit up to the hard one."""
    if hard_limit == resource.RLIM_INFINITY or hard_limit >= least:
        return ok("open files", "no limit" if hard_limit == resource.RLIM_INFINITY else f"up to {hard_limit}")
    return warn("open files", f"at most {hard_limit} a process", remedy=f"raise it: ulimit -Hn {least}")


def check_storage(folder: Path, *, least_free_gb: float) -> Finding:
    """Write, rename and read back a small file, as a checkpoint is written."""
    probe = folder / f".taskheat-doctor-{uuid.uuid4().hex}"
    partial = probe.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(probe)
        intact = probe.read_bytes() == b"doctor"
        free_gb = shutil.disk_usage(folder).free / _GB
    except OSError as error:
        return fail(
            "storage",
            f"{folder} cannot be written ({error.strerror or error})",
            remedy=f"make it writable for user {os.getuid()}, or name another in launch.storage and output.dir",
        )
    finally:
        for path in (probe, partial):
            _remove(path)
    if not intact:
        return fail(
            "storage", f"{folder} gave back other bytes than were written", remedy="do not use this file system"
        )
    if free_gb < least_free_gb:
        return warn(
            "storage", f"{folder} has {free_gb:.1f} GB free", remedy="make room: checkpoints and data lie there"
        )
    return ok("storage", f"{folder} is writable, {free_gb:.0f} GB free")


def _driver_list() -> list[str]:
    """Name and driver of each GPU, by the driver's own tool; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
