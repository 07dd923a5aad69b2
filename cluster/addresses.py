"""Whether anything listens at an address, asked before Ray is: it goes on trying for more than ten minutes."""

import socket

_TIMEOUT_S = 5.0


def why_silent(host: str, port: int, *, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Why no connection to this port comes about, in words; None where one does."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def why_cluster_is_silent(address: str) -> str | None:
    """The same of a Ray cluster's `HOST:PORT`; None too where the address names no port, such as `auto`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return None
    why = why_silent(host.strip("[]"), int(port))
    return None if why is None else f"nothing answers at {address} ({why})"
