"""Which checks are made where."""

import uuid
from pathlib import Path

from cluster.config import LaunchConfig
from cluster.doctor.access import check_address, check_token, unreached
from cluster.doctor.finding import Finding
from cluster.doctor.machine import Limits, examine_machine
from scheduler.errors import ResourceError


def examine(launch: LaunchConfig, *, storage: Path | None, limits: Limits | None = None) -> list[Finding]:
    """Everything the doctor has to say: of this machine, or with an address of every node of the cluster there."""
    limits = limits or Limits()
    findings = [check_token(on_cluster=launch.address is not None)]
    if launch.address is None:
        return findings + examine_machine(limits, storage=storage)
    if (silent := check_address(launch.address)) is not None:
        return [*findings, silent, *examine_machine(limits, storage=storage)]
    from cluster.doctor.nodes import examine_nodes
    from cluster.driver import ray_cluster

    try:
        with ray_cluster(launch, f"taskheat-doctor-{uuid.uuid4().hex[:8]}"):
            return findings + examine_nodes(limits, storage=storage)
    except ResourceError as error:
        return [*findings, unreached(str(error)), *examine_machine(limits, storage=storage)]
