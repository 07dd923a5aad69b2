"""Layers of settings onto one tree, in the form that validation reads: `merge` puts one over another, and `normalised`
spells short forms out, infers types, fills partial defaults in and makes paths absolute.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cluster.settings.node import Node, Origin, wrap
from cluster.settings.schema import Shape, type_names


def merge(base: Node | None, over: Node, shape: Shape) -> Node:
    """`over` on top of `base`: mappings key by key unless they are of different types; anything else replaces."""
    if base is None or not isinstance(base.value, dict):
        return over
    over = _spelled_out(over, shape)
    if not isinstance(over.value, dict):
        return over
    before, after = base.child("type"), over.child("type")
    is_union = len(shape.models) > 1
    if is_union and before is not None and after is not None and before.value != after.value:
        return over
    inner = shape.narrowed(base if after is None else over)
    merged = {key: merge(base.child(key), node, inner.under(key)) for key, node in over.value.items()}
    return Node({**base.value, **merged}, over.origin)


def normalised(node: Node, shape: Shape) -> Node:
    """The tree with short forms spelled out, types inferred, partial defaults filled in and paths made absolute."""
    node = _with_type(_spelled_out(node, shape), shape)
    if isinstance(node.value, dict):
        inner = shape.narrowed(node)
        children: dict[str, Node] = {}
        for key, child in node.value.items():
            below = inner.under(key)
            filled = merge(default(inner, key), _with_type(child, below), below)
            children[key] = normalised(filled, below)
        return Node(children, node.origin)
    if isinstance(node.value, list):
        entries = enumerate(node.value)
        return Node([normalised(item, shape.under(str(i))) for i, item in entries], node.origin)
    if isinstance(node.value, str) and shape.holds_path(node.value):
        return Node(absolute(node.value, node.origin.directory), node.origin)
    return node


def default(shape: Shape, key: str) -> Node | None:
    """The default under `key` if it is a model, a mapping or a list: what a partial setting is merged into."""
    for model in shape.models:
        field = model.model_fields.get(key)
        if field is None or field.is_required() or field.default_factory_takes_validated_data:
            continue
        value = field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel | Mapping | list | tuple):
            return wrap(stated(value), Node(None, Origin("default", Path.cwd())))
    return None


def absolute(path: str, directory: Path) -> str:
    """`path` from `directory`, without `~`, `.` and `..`."""
    return os.path.normpath(directory / os.path.expanduser(path))


def stated(value: Any) -> Any:
    """A default as a person would write it: only what it sets, and which union member it is."""
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if name in value.model_fields_set or name == "type"]
        return {name: stated(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: stated(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stated(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _spelled_out(node: Node, shape: Shape) -> Node:
    """The node in the long form of its model, if the model has a short one."""
    models = shape.models
    expand: Callable[[Any], Any] | None = getattr(models[0], "_short_form", None) if len(models) == 1 else None
    if expand is None or node.value is None:
        return node
    try:
        return wrap(expand(node.plain()), node)
    except (ValueError, TypeError, AssertionError):
        return node  # validation meets the same complaint again, and reports it with the others


def _with_type(node: Node, shape: Shape) -> Node:
    """The mapping with its missing `type`, if exactly one member of the union has all its keys."""
    models = shape.models
    if not isinstance(node.value, dict) or "type" in node.value or len(models) < 2:
        return node
    fitting = [model for model in models if type_names(model) and node.value.keys() <= model.model_fields.keys()]
    if len(fitting) != 1:
        return node
    return Node({"type": Node(type_names(fitting[0])[0], node.origin), **node.value}, node.origin)
