"""`a.b=value` from the command line, put into a tree of settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.settings.complaints import Place, unknown_key
from cluster.settings.merge import default, merge
from cluster.settings.node import Node, Origin
from cluster.settings.reading import Reader
from cluster.settings.schema import Shape
from scheduler.errors import ConfigError


def overridden(tree: Node, override: str, shape: Shape) -> Node:
    """The tree with one override put in.

    Raises:
        ConfigError: The text is not `a.b=value`, or `a.b` is no setting of `shape`, or the value is not YAML.
    """
    target, equals, text = override.partition("=")
    path = tuple(target.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(
            f"command line: {override!r} is not an override; write a.b=value, for example train.steps=500"
        )
    place = Place.top(tree, shape)
    for key in path:
        below = place.step(key)
        if not below.shape:
            raise ConfigError(f"command line: {override!r}: {unknown_key(place, key, top=shape)}")
        place = below
    origin = Origin("command line", Path.cwd())
    value = Reader(origin, label=f"command line, {override!r}").read(text, path)
    return _Assignment(value, override).onto(tree, path, shape)


@dataclass(frozen=True, slots=True)
class _Assignment:
    """A value on its way to its place; `override` is what messages quote."""

    value: Node
    override: str

    def onto(self, base: Node | None, path: Sequence[str], shape: Shape) -> Node:
        """`base` with the value merged in at `path`."""
        if not path:
            return merge(base, self.value, shape)
        key, *rest = path
        inner, below = shape.narrowed(base), shape.within(base, key)
        may_be_list = base is None or not isinstance(base.value, dict)
        if may_be_list and inner.is_list and key.isdecimal():
            return self._into_list(base, int(key), rest, below)
        child = None if base is None else base.child(key)
        if child is None and rest:
            whole = default(inner, key)
            child = whole if whole is not None and isinstance(whole.value, list) else None
        over = Node({key: self.onto(child, rest, below)}, self.value.origin)
        return merge(base, over, shape)

    def _into_list(self, base: Node | None, index: int, rest: Sequence[str], below: Shape) -> Node:
        """A list with one entry replaced, or one appended: the index may be one past its end."""
        entries = list(base.value) if base is not None and isinstance(base.value, list) else []
        if index > len(entries):
            raise ConfigError(
                f"command line: {self.override!r}: the list has {len(entries)} entries, "
                f"so its index is 0 to {len(entries)}"
            )
        entry = entries[index] if index < len(entries) else None
        entries[index : index + 1] = [self.onto(entry, rest, below)]
        return Node(entries, self.value.origin if base is None else base.origin)
