"""A model's annotations as a schema: what may stand where in a tree of settings."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.settings.node import Node
from scheduler.config_model import PathLike, UrlLike


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at one place: an annotation's alternatives, with `Annotated` and unions taken apart.

    False where nothing may. `is_path_like`: a string there may be a path, as `scheduler.config_model.PathLike` says;
    `is_url_like`: it may be a URL, which is no path.
    """

    kinds: tuple[Any, ...] = ()
    is_path_like: bool = False
    is_url_like: bool = False

    def __bool__(self) -> bool:
        return bool(self.kinds)

    @classmethod
    def of(cls, annotation: Any) -> "Shape":
        """The shape of a type annotation."""
        if get_origin(annotation) is Annotated:
            inner, *marks = get_args(annotation)
            shape = cls.of(inner)
            return shape._marked(marks)
        if get_origin(annotation) in (Union, UnionType):
            return cls.joined(*(cls.of(member) for member in get_args(annotation)))
        return cls((annotation,))

    @classmethod
    def of_field(cls, field: FieldInfo) -> "Shape":
        """The shape of a model's field, whose outermost `Annotated` pydantic has taken apart already."""
        return cls.of(field.annotation)._marked(field.metadata)

    @classmethod
    def joined(cls, *shapes: "Shape") -> "Shape":
        """All alternatives of all the shapes."""
        kinds = tuple(kind for shape in shapes for kind in shape.kinds)
        return cls(kinds, any(shape.is_path_like for shape in shapes), any(shape.is_url_like for shape in shapes))

    def _marked(self, marks: Sequence[Any]) -> "Shape":
        return Shape(self.kinds, self.is_path_like or PathLike in marks, self.is_url_like or UrlLike in marks)

    @property
    def models(self) -> list[type[BaseModel]]:
        """The alternatives that are models; of a union told apart by `type`, its members."""
        return [kind for kind in self.kinds if _is_a(kind, BaseModel)]

    @property
    def is_list(self) -> bool:
        """A list, tuple or set may stand here."""
        return any(_is_a(kind, Sequence, Set) for kind in self.kinds)

    def holds_path(self, text: str) -> bool:
        """The string `text` is a path here, and not a name or one of the literals."""
        if any(get_origin(kind) is Literal and text in get_args(kind) for kind in self.kinds):
            return False
        if self.is_url_like and "://" in text:
            return False
        if any(_is_a(kind, Path) for kind in self.kinds):
            return True
        return self.is_path_like and (text in (".", "..") or text.startswith(("./", "../", "/", "~")))

    def under(self, key: str) -> "Shape":
        """What may stand under `key`, of a list under the index `key`."""
        return Shape.joined(*(_under(kind, key) for kind in self.kinds))

    def narrowed(self, node: Node | None) -> "Shape":
        """The model that the node's `type` names; all alternatives if it names none."""
        stated = node.child("type") if node is not None else None
        named = [model for model in self.models if stated is not None and stated.value in type_names(model)]
        return replace(self, kinds=tuple(named)) if named else self

    def within(self, node: Node | None, key: str) -> "Shape":
        """What may stand under `key` of `node`: by the node's own `type`, else by any other member of the union."""
        return self.narrowed(node).under(key) or self.under(key)

    def paths(self, above: tuple[str, ...] = (), inside: tuple[Any, ...] = ()) -> Iterator[tuple[str, ...]]:
        """Every path that exists below; a list's entry is `0`, a mapping's `<name>`."""
        for kind in self.kinds:
            if _is_a(kind, BaseModel) and kind not in inside:
                for name, field in kind.model_fields.items():
                    yield (*above, name)
                    yield from Shape.of_field(field).paths((*above, name), (*inside, kind))
            elif _is_a(kind, Mapping):
                yield from _items(kind).paths((*above, "<name>"), inside)
            elif _is_a(kind, Sequence, Set):
                yield from _items(kind).paths((*above, "0"), inside)


def type_names(model: type[BaseModel]) -> tuple[str, ...]:
    """What `type` may say to mean this member of a union."""
    return get_args(model.model_fields["type"].annotation) if "type" in model.model_fields else ()


def _is_a(kind: Any, *classes: type) -> bool:
    cls = get_origin(kind) or kind
    return isinstance(cls, type) and issubclass(cls, classes) and not issubclass(cls, str | bytes)


def _under(kind: Any, key: str) -> Shape:
    if kind is Any:
        return Shape((Any,))
    if _is_a(kind, BaseModel) and key in kind.model_fields:
        return Shape.of_field(kind.model_fields[key])
    if _is_a(kind, Mapping):
        return _items(kind)
    if _is_a(kind, Sequence, Set) and key.isdecimal():
        return _items(kind, int(key))
    return Shape()


def _items(kind: Any, index: int = 0) -> Shape:
    """What a list, tuple, set or mapping holds; for a tuple of fixed length, at `index`."""
    args = get_args(kind)
    if not args:
        return Shape((Any,))
    if _is_a(kind, Mapping):
        return Shape.of(args[1])
    if _is_a(kind, tuple) and args[-1] is not Ellipsis:
        return Shape.of(args[index]) if index < len(args) else Shape()
    return Shape.of(args[0])
