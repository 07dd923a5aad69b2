"""The local paths that a configuration names, and the same configuration with other paths."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from cluster.settings.schema import Shape
from scheduler.config_model import ConfigModel

T = TypeVar("T", bound=ConfigModel)


def local_paths(config: BaseModel) -> Iterator[tuple[str, Path]]:
    """Setting and path of everything local that the resolved configuration names; URLs and hub ids are none."""
    found: list[tuple[str, Path]] = []

    def note(setting: str, path: Path) -> Path:
        found.append((setting, path))
        return path

    _mapped(config, "", note)
    yield from found


def with_paths(config: T, place: Callable[[str, Path], Path]) -> T:
    """The configuration with `place(setting, path)` for each of its local paths."""
    return _mapped(config, "", place)


def _mapped(value: Any, setting: str, place: Callable[[str, Path], Path]) -> Any:
    if isinstance(value, Path):
        return place(setting, value)
    if isinstance(value, BaseModel):
        changed = {}
        for name, field in type(value).model_fields.items():
            below, item = f"{setting}.{name}".removeprefix("."), getattr(value, name)
            if isinstance(item, str) and Path(item).is_absolute() and Shape.of_field(field).is_path_like:
                changed[name] = str(place(below, Path(item)))
            else:
                changed[name] = _mapped(item, below, place)
        return value.model_copy(update=changed)
    if type(value) is tuple:
        return tuple(_mapped(item, f"{setting}.{index}", place) for index, item in enumerate(value))
    if type(value) is dict:
        return {key: _mapped(item, f"{setting}.{key}", place) for key, item in value.items()}
    return value
