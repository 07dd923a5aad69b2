"""From YAML text to nodes, with environment variables expanded."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cluster.settings.dialect import TAG, Loader, scalar
from cluster.settings.node import Node, Origin, shown
from scheduler.errors import ConfigError

_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_]\w*)(?P<fallback>:-[^}]*)?\}|\$\{")
_REMEDIES = {
    "\\t": "indent with spaces, not tabs",
    "mapping values are not allowed": "quote a value that contains ': ', and check the indentation",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "single document": "keep one document a file; give several files instead of `---`",
    "undefined alias": "define the anchor (&name) above its use, or quote a value that starts with *",
    "cannot start any token": "quote a value that starts with this character",
}
"""What mends a problem, by words of the parser's message; the first that fits is given."""


def read_file(file: Path) -> Node:
    """The file's settings; of an empty file, an empty mapping.

    Raises:
        ConfigError: The file cannot be read or is not a YAML mapping, or names an environment variable that is not set.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    root = Reader(Origin(str(file), file.parent.absolute())).read(text)
    if root.value is None:
        return Node({}, root.origin)
    if not isinstance(root.value, dict):
        raise ConfigError(f"{root.origin}: the top level is {shown(root.plain())}; it must be `key: value` settings")
    return root


class Reader:
    """Turns one YAML text into nodes.

    Messages name the place by the origin's source, line and column; or by `label`, for a text that is not in a file.
    """

    def __init__(self, origin: Origin, *, label: str | None = None) -> None:
        self._origin = origin
        self._label = label
        self._done: dict[int, Node] = {}
        self._open: set[int] = set()

    def read(self, text: str, path: tuple[str, ...] = ()) -> Node:
        """The text's root, null for an empty text; `path` is the setting that the root stands for."""
        try:
            self._loader = Loader(text)
            root = self._loader.get_single_node()
            return Node(None, self._origin) if root is None else self._convert(root, root.start_mark, path)
        except yaml.MarkedYAMLError as error:
            problem = error.problem or "not YAML"
            problem = f"{error.context} {problem}" if error.context and problem.startswith("but ") else problem
            self._fail(error.problem_mark or error.context_mark, problem)
        except yaml.reader.ReaderError as error:
            raise ConfigError(
                f"{self._label or self._origin.source}: character #x{error.character:04x} at offset {error.position} "
                "is not allowed in YAML; remove it, or write it as an escape in a double-quoted string"
            ) from error

    def _fail(self, mark: Any, problem: str, remedy: str | None = None) -> NoReturn:
        place = self._label or self._origin.source
        if mark is not None and self._label is None:
            place = f"{place}:{mark.line + 1}:{mark.column + 1}"
        if remedy is None:
            fitting = (text for sign, text in _REMEDIES.items() if sign in problem)
            remedy = next(fitting, "check indentation, quotes and brackets at and just before this place")
        raise ConfigError(f"{place}: {problem}; {remedy}")

    def _convert(self, node: Any, mark: Any, path: tuple[str, ...]) -> Node:
        if id(node) in self._open:
            self._fail(node.start_mark, "an anchor contains itself", "write the value out")
        # An aliased node must be flattened once only: its merged keys would look like duplicates the second time.
        if id(node) not in self._done:
            self._open.add(id(node))
            self._done[id(node)] = Node(self._value(node, path), self._origin)
            self._open.remove(id(node))
        origin = self._origin if self._label else replace(self._origin, line=mark.line + 1)
        return Node(self._done[id(node)].value, origin)

    def _value(self, node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            self._refuse_duplicates(node)
            self._loader.flatten_mapping(node)
            return {k.value: self._convert(v, k.start_mark, (*path, k.value)) for k, v in node.value}
        if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            return [self._convert(item, item.start_mark, (*path, str(i))) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode):
            self._fail(node.start_mark, f"tag {node.tag} is not read", "remove it")
        if node.tag == TAG + "str":
            place = self._label or f"{self._origin.source}:{node.start_mark.line + 1}"
            return _expanded(node.value, f"{place}, key {'.'.join(path)}")
        try:
            return scalar(node.tag.removeprefix(TAG), node.value)
        except ValueError as error:
            self._fail(node.start_mark, str(error), "correct the value or remove its tag")

    def _refuse_duplicates(self, node: Any) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail(key.start_mark, "a key is a list or a mapping", "use a plain word as the key")
            if key.value in lines:
                first = "" if self._label else f" (first on line {lines[key.value]})"
                problem = f"key {key.value!r} is set twice in one mapping{first}"
                self._fail(key.start_mark, problem, "keep one of the two")
            lines[key.value] = key.start_mark.line + 1


def _expanded(text: str, place: str) -> str:
    """The text with its environment variables replaced by their values."""

    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, fallback = match["name"], match["fallback"]
        if name is None:
            raise ConfigError(
                f"{place}: {text!r} has a `${{` that starts no ${{NAME}} or ${{NAME:-default}}; "
                "correct it, or write `$${` for a literal `${`"
            )
        if fallback is not None:
            return os.environ.get(name) or fallback.removeprefix(":-")
        if name not in os.environ:
            raise ConfigError(
                f"{place}: environment variable {name} is not set; export it, or give a default: ${{{name}:-default}}"
            )
        return os.environ[name]

    return _VARIABLE.sub(value_of, text)
