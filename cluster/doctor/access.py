"""A cluster's address, and the token of one with token authentication."""

import os
import stat
from collections.abc import Mapping

from cluster.addresses import why_cluster_is_silent
from cluster.doctor.finding import Finding, fail, ok, warn
from cluster.jobs.token import token_file

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_address(address: str) -> Finding | None:
    """What is wrong with `HOST:PORT`; None where something listens there, or where the address names no port."""
    why = why_cluster_is_silent(address)
    return None if why is None else unreached(why)


def unreached(found: str) -> Finding:
    """No cluster was reached."""
    return fail(
        "cluster", found, remedy="correct launch.address (`auto` on a node of the cluster), and check the token"
    )


def check_token(environment: Mapping[str, str] = os.environ, *, on_cluster: bool) -> Finding:
    """Whether there is a token, and whether others can read it.

    On a cluster both faults fail. On a machine of its own Ray makes a token when it starts, readable by everybody.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        remedy = "unset RAY_AUTH_MODE: who reaches the ports of a cluster without a token runs any code on it"
        return warn("token", "RAY_AUTH_MODE is disabled", remedy=remedy)
    if environment.get("RAY_AUTH_TOKEN"):
        return ok("token", "in RAY_AUTH_TOKEN")
    file = token_file(environment)
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        if not on_cluster and "RAY_AUTH_TOKEN_PATH" not in environment:
            return ok("token", f"none in {file}; Ray makes one when it starts here")
        return fail(
            "token",
            f"no token: {file} ({error.strerror})",
            remedy="make one with `ray get-auth-token --generate` before `ray start`, copy it to every node and "
            f"client, and chmod 600 {file}",
        )
    if file.stat().st_size == 0:
        return fail("token", f"{file} is empty", remedy="write the cluster's token into it")
    if mode & _OTHERS:
        found = f"{file} has mode {mode:04o}: other users of this machine can run code on the cluster with it"
        judge = fail if on_cluster else warn
        return judge("token", found, remedy=f"chmod 600 {file}")
    return ok("token", f"in {file}, mode {mode:04o}")
