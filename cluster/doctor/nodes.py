"""The doctor's round over a cluster: one Ray task on each node."""

import dataclasses
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.doctor.finding import Finding, fail, ok, warn
from cluster.doctor.machine import Limits, examine_machine

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node says: its findings, whether it sees the file this process wrote, and its clock before it worked."""

    findings: tuple[Finding, ...]
    sees_mark: bool
    clock_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A node's report between two readings of this process's clock."""

    node: str
    report: NodeReport
    asked_s: float


def examine_nodes(limits: Limits, *, storage: Path | None) -> list[Finding]:
    """Examine every node of the connected cluster that is alive."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    mark = _leave_mark(storage)
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_examine_here)
    findings: list[Finding] = [ok("cluster", f"{len(nodes)} node(s): {_resources()}")]
    try:
        for node in nodes:
            name = node["NodeManagerHostname"] + (f" {node['NodeManagerAddress']}" if len(nodes) > 1 else "")
            pinned = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            try:
                ray.get(pinned.remote(None, None, None), timeout=_TIMEOUT_S)  # the process is up before clocks are read
                asked_s = time.time()
                report: Any = ray.get(pinned.remote(limits, storage, mark), timeout=_TIMEOUT_S)
            except (RayError, GetTimeoutError) as error:
                findings.append(_unable(name, error))
                continue
            findings += judge_node(Heard(name, report, asked_s), limits, storage=storage)
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
    return findings


def judge_node(heard: Heard, limits: Limits, *, storage: Path | None) -> list[Finding]:
    """A node's own findings, and what only the comparison with this process shows."""
    findings = [*heard.report.findings, check_clock(heard.report.clock_s - heard.asked_s, limits.clock_skew_s)]
    if storage is not None and not heard.report.sees_mark:
        findings.append(
            fail(
                "storage",
                f"does not see under {storage} what the driver's node wrote there",
                remedy="mount the same network file system under this path on every node and name it launch.storage",
            )
        )
    return [dataclasses.replace(finding, node=heard.node) for finding in findings]


def check_clock(skew_s: float, most_s: float) -> Finding:
    """A node's clock against this one's; `skew_s` includes the way there, milliseconds."""
    if abs(skew_s) > most_s:
        return warn(
            "clock",
            f"{skew_s:+.1f} s against the driver's node",
            remedy="run chrony or ntpd on every node; logs, TLS and object stores rely on the clock",
        )
    return ok("clock", f"within {most_s:g} s")


def _examine_here(limits: Limits | None, storage: Path | None, mark: Path | None) -> NodeReport:
    clock_s = time.time()
    if limits is None:
        return NodeReport((), sees_mark=False, clock_s=clock_s)
    sees_mark = mark is not None and mark.is_file()
    return NodeReport(tuple(examine_machine(limits, storage=storage)), sees_mark=sees_mark, clock_s=clock_s)


def _leave_mark(storage: Path | None) -> Path | None:
    if storage is None:
        return None
    mark = storage / f".taskheat-doctor-{uuid.uuid4().hex}"
    try:
        storage.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return None
    return mark


def _unable(name: str, error: Exception) -> Finding:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    if "No module named" in str(error):
        remedy = (
            "install the project there, or ask in a job: ray job submit --working-dir . -- python -m cluster doctor"
        )
        return dataclasses.replace(fail("imports", lines[-1], remedy=remedy), node=name)
    return dataclasses.replace(fail("cluster", lines[-1], remedy="look at the node's logs"), node=name)


def _resources() -> str:
    total = ray.cluster_resources()
    return ", ".join(f"{total[kind]:g} {kind}" for kind in ("CPU", "GPU") if kind in total) or "no CPUs"
