"""Values that know who set them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Origin:
    """Who set a value; `directory` is what its relative paths are relative to."""

    source: str
    directory: Path
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a `dict[str, Node]` or a `list[Node]`."""

    value: Any
    origin: Origin

    def child(self, key: str) -> "Node | None":
        """What stands under `key`, of a list under the index `key`; None where nothing does."""
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and key.isdecimal() and int(key) < len(self.value):
            return self.value[int(key)]
        return None

    def plain(self) -> Any:
        """The value alone, without origins."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def wrap(value: Any, near: Node) -> Node:
    """`value` as nodes, each with the origin of the closest node at its place in `near`."""
    if isinstance(value, Mapping):
        return Node({str(key): wrap(item, near.child(str(key)) or near) for key, item in value.items()}, near.origin)
    if isinstance(value, list | tuple):
        return Node([wrap(item, near.child(str(i)) or near) for i, item in enumerate(value)], near.origin)
    return Node(value, near.origin)


def shown(value: Any) -> str:
    """A plain value for a message, shortened."""
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, value)) or 'no keys'}"
    text = repr(value) if value is not None else "null"
    return text if len(text) <= 80 else text[:77] + "..."
