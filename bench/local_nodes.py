"""A Ray cluster of several nodes on this machine: each a raylet with its own resources and labels; for trials."""

from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from ray.cluster_utils import Cluster


class LocalNodes:
    """A head without CPUs, and nodes made from keyword arguments of Ray's `Cluster.add_node`."""

    def __init__(self, nodes: Sequence[Mapping[str, Any]], *, head_labels: Mapping[str, str] | None = None) -> None:
        head: dict[str, Any] = {"num_cpus": 0, **({"labels": dict(head_labels)} if head_labels else {})}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: list[tuple[Any, Mapping[str, Any]]] = []
        self._lost: list[Mapping[str, Any]] = []
        for arguments in nodes:
            self._add(arguments)

    @property
    def address(self) -> str:
        """What `launch.address` is to be."""
        return self._cluster.address

    def kill_one_of(self, processes: Sequence[int]) -> None:
        """SIGKILL the raylet that one of these processes belongs to.

        Raises:
            RuntimeError: They belong to none.
        """
        raylets = self._raylets_of(processes)
        for node, arguments in self._nodes:
            if _raylet(node) in raylets:
                self._nodes.remove((node, arguments))
                self._lost.append(arguments)
                self._cluster.remove_node(node, allow_graceful=False)
                return
        raise RuntimeError("no node to be hit")

    def labels_of(self, processes: Sequence[int]) -> list[Mapping[str, str]]:
        """Labels of the nodes that these processes belong to."""
        raylets = self._raylets_of(processes)
        return [arguments.get("labels", {}) for node, arguments in self._nodes if _raylet(node) in raylets]

    def add(self) -> None:
        """Fresh nodes in place of the lost ones, alike."""
        while self._lost:
            self._add(self._lost.pop())

    def close(self) -> None:
        """End the cluster."""
        self._cluster.shutdown()

    def _add(self, arguments: Mapping[str, Any]) -> None:
        self._nodes.append((self._cluster.add_node(**arguments), arguments))

    def _raylets_of(self, processes: Sequence[int]) -> set[int]:
        found = set()
        for pid in processes:
            try:
                found.add(psutil.Process(pid).ppid())
            except psutil.Error:
                continue
        return found


def _raylet(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid
