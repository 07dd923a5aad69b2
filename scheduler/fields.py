"""Frozen dataclasses as JSON gives them back, and from it; the annotations say what must stand where."""

import dataclasses
import json
import types
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def build(cls: type[T], fields: dict[str, Any]) -> T:
    """The `cls` whose fields these are. Raises TypeError where names or types are not those of its annotations."""
    hints = _hints(cls)
    if fields.keys() != hints.keys():
        raise TypeError(f"{cls.__name__} has the fields {sorted(hints)}, the line has {sorted(fields)}")
    return cls(**{name: _convert(hints[name], value) for name, value in fields.items()})


def to_plain(record: Any) -> dict[str, Any]:
    """All fields of a dataclass, as JSON gives them back: what `build` takes."""
    return json.loads(json.dumps(dataclasses.asdict(record)))


def _convert(hint: Any, value: Any) -> Any:
    if hint is float:
        return float(_checked(float, (float, int), value))
    if hint in (int, str):
        return _checked(hint, hint, value)
    if dataclasses.is_dataclass(hint):
        return build(cast(type, hint), _checked(hint, dict, value))
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]
        return tuple([_convert(element, item) for item in _checked(hint, list, value)])
    if get_origin(hint) is types.UnionType:
        (other,) = set(get_args(hint)) - {types.NoneType}
        return None if value is None else _convert(other, value)
    return _checked(hint, dict, value)


def _checked(hint: Any, accepted: Any, value: Any) -> Any:
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not of type {getattr(hint, '__name__', hint)}")
    return value
