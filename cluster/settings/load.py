"""`load_config`: files and overrides to one validated model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cluster.settings.complaints import describe
from cluster.settings.merge import absolute, merge, normalised
from cluster.settings.node import Node, Origin, wrap
from cluster.settings.overrides import overridden
from cluster.settings.reading import read_file
from cluster.settings.schema import Shape
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError

T = TypeVar("T", bound=ConfigModel)


def load_config(model: type[T], *, files: Sequence[Path], overrides: Sequence[str] = (), base: T | None = None) -> T:
    """The settings that `files` and `overrides` state, later ones over earlier ones, over the model's defaults.

    A path is relative to the file that states it; on the command line and in a default, to the current directory.
    All paths of the result are absolute, so that its dump means the same anywhere.

    Args:
        model: what to build.
        files: YAML files, each a mapping or empty.
        overrides: `a.b=value`, the value in YAML; `a.b=` is null; a list's entry is its index: `data.sources.0.path=x`.
        base: Settings that stand below the files' instead of the defaults.

    Raises:
        ConfigError: a file cannot be read or is not YAML, a key is written twice, a variable is not set, an override
            names no setting; or the settings are wrong, and then the message lists everything that is wrong, with its
            file and line.
    """
    shape = Shape.of(model)
    tree = Node({}, Origin("settings", Path.cwd()))
    if base is not None:
        tree = wrap(base.model_dump(mode="json"), tree)
    for file in files:
        tree = normalised(merge(tree, read_file(file), shape), shape)
    for override in overrides:
        tree = normalised(overridden(tree, override, shape), shape)
    try:
        config = model.model_validate(tree.plain())
    except ValidationError as error:
        raise ConfigError(describe(error, tree, shape)) from error
    return _with_absolute_defaults(config)


def _with_absolute_defaults(value: Any) -> Any:
    """The validated value with relative paths, which only defaults can have left, taken from the current directory."""
    if isinstance(value, Path):
        return value if value.is_absolute() else Path(absolute(str(value), Path.cwd()))
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        settled = {name: _with_absolute_defaults(item) for name, item in fields.items()}
        changed = {name: item for name, item in settled.items() if item != fields[name]}
        return value.model_copy(update=changed) if changed else value
    if type(value) in (list, tuple):
        return type(value)(_with_absolute_defaults(item) for item in value)
    if type(value) is dict:
        return {key: _with_absolute_defaults(item) for key, item in value.items()}
    return value
