"""Settings from YAML files and dotted overrides to one validated model, and back to YAML.

    defaults  <  files, left to right  <  overrides `a.b=value`, left to right

Each value is held as a `Node` that remembers the file and line that set it, through merging and until validation: a
relative path is resolved against its own file, and a complaint names the line to mend. The model's annotations are the
schema: they say which strings are paths, which keys may be overridden, and what a mistyped key may have meant.

Mappings merge, lists replace. In a union of models told apart by `type`, a mapping that states another `type` replaces
the earlier one; where `type` is missing it is the only member that has all the given keys. A model's shorter spelling
is what its before-validator `_short_form` makes of it, which must leave a long or a partial form as it is.

YAML is read by the 1.2 core schema: `3e-3` is a number, `no` and `2024-01-01` are strings. `${VAR}` and
`${VAR:-default}` stand for environment variables in every string (`$${` is a literal `${`); what they expand to stays a
string until the model converts it.

Not done here: no interpolation between settings, no includes, no deletion of a mapping's key, and no override of a key
that contains a dot.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scheduler.config_model import ConfigModel, PathLike
from scheduler.errors import ConfigError

T = TypeVar("T", bound=ConfigModel)
Alternatives = tuple[Any, ...]
"""What a value may be: its annotation with `Annotated` and unions taken apart; holds `PathLike` if marked so."""

_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_]\w*)(?P<fallback>:-[^}]*)?\}|\$\{")
_ALIASES = {
    "lr": "learning_rate",
    "batch_size": "global_batch_size",
    "train_batch_size": "global_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "global_batch_size",
    "epochs": "train.steps",
    "num_epochs": "train.steps",
    "num_train_epochs": "train.steps",
    "max_steps": "train.steps",
    "max_seq_length": "max_length",
    "lora_r": "lora.rank",
    "r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "model_name_or_path": "model.path",
    "model_name": "model.path",
    "random_seed": "seed",
    "output_dir": "output.dir",
}
"""Other tools' names for a setting of ours (the end of its dotted path); offered only where the model has it."""


# -- values that know where they come from --------------------------------------------------------------------------


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
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and key.isdecimal() and int(key) < len(self.value):
            return self.value[int(key)]
        return None

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def _wrap(value: Any, near: Node) -> Node:
    """`value` as nodes, each with the origin of the closest node at its place in `near`."""
    if isinstance(value, Mapping):
        return Node({str(key): _wrap(item, near.child(str(key)) or near) for key, item in value.items()}, near.origin)
    if isinstance(value, list | tuple):
        return Node([_wrap(item, near.child(str(i)) or near) for i, item in enumerate(value)], near.origin)
    return Node(value, near.origin)


# -- reading YAML ---------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of the YAML 1.2 core schema."""


class _Dumper(yaml.SafeDumper):
    """Quotes every string that a YAML 1.1 or 1.2 reader would take for something else; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {}
for _cls in (_Loader, _Dumper):
    for _kind, _pattern, _first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
        ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
        ("merge", r"<<", ["<"]),
    ):
        _cls.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)

_REMEDIES = {
    "\\t": "indent with spaces, not tabs",
    "mapping values are not allowed": "quote a value that contains ': ', and check the indentation",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "single document": "keep one document a file; give several files instead of `---`",
    "undefined alias": "define the anchor (&name) above its use, or quote a value that starts with *",
    "cannot start any token": "quote a value that starts with this character",
}


class _Reader:
    """Turns one YAML text into nodes. `source` is what messages call it."""

    def __init__(self, *, source: str, directory: Path, has_lines: bool = True) -> None:
        self._origin = Origin(source, directory)
        self._has_lines = has_lines
        self._done: dict[int, Node] = {}
        self._open: set[int] = set()

    def read(self, text: str, path: tuple[str, ...] = ()) -> Node | None:
        """The text's root, None for an empty text; `path` is the setting that the root stands for."""
        try:
            self._loader = _Loader(text)
            root = self._loader.get_single_node()
            return None if root is None else self._convert(root, root.start_mark, path)
        except yaml.MarkedYAMLError as error:
            problem = error.problem or "not YAML"
            problem = f"{error.context} {problem}" if error.context and problem.startswith("but ") else problem
            self._fail(error.problem_mark or error.context_mark, problem)
        except yaml.reader.ReaderError as error:
            raise ConfigError(
                f"{self._origin.source}: character #x{error.character:04x} at offset {error.position} is not allowed "
                "in YAML; remove it, or write it as an escape in a double-quoted string"
            ) from error

    def _fail(self, mark: Any, problem: str, remedy: str | None = None) -> NoReturn:
        place = self._origin.source
        if mark is not None and self._has_lines:
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
        origin = replace(self._origin, line=mark.line + 1) if self._has_lines else self._origin
        return Node(self._done[id(node)].value, origin)

    def _value(self, node: Any, path: tuple[str, ...]) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            self._refuse_duplicates(node)
            self._loader.flatten_mapping(node)
            return {k.value: self._convert(v, k.start_mark, (*path, k.value)) for k, v in node.value}
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._convert(item, item.start_mark, (*path, str(i))) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode):
            self._fail(node.start_mark, f"tag {node.tag} is not read", "remove it")
        return self._scalar(node, path)

    def _refuse_duplicates(self, node: Any) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail(key.start_mark, "a key is a list or a mapping", "use a plain word as the key")
            if key.value in lines:
                first = f" (first on line {lines[key.value]})" if self._has_lines else ""
                self._fail(
                    key.start_mark, f"key {key.value!r} is set twice in one mapping{first}", "keep one of the two"
                )
            lines[key.value] = key.start_mark.line + 1

    def _scalar(self, node: Any, path: tuple[str, ...]) -> Any:
        text = node.value
        try:
            match node.tag.removeprefix(_TAG):
                case "str":
                    line = f":{node.start_mark.line + 1}" if self._has_lines else ""
                    return _expanded(text, f"{self._origin.source}{line}, key {'.'.join(path)}")
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
                case "float":
                    return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
                case _:
                    self._fail(node.start_mark, f"tag {node.tag} is not read", "remove it")
        except ValueError as error:
            self._fail(node.start_mark, str(error), "correct the value or remove its tag")


def _expanded(text: str, place: str) -> str:
    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, fallback = match["name"], match["fallback"]
        if name is None:
            raise ConfigError(
                f"{place}: {text!r} has a `${{` that starts no ${{NAME}} or ${{NAME:-default}}; "
                "correct it, or write `$${` for a literal `${`"
            )
        value = os.environ.get(name, "")
        if fallback is not None:
            return value or fallback.removeprefix(":-")
        if name not in os.environ:
            raise ConfigError(
                f"{place}: environment variable {name} is not set; export it, or give a default: ${{{name}:-default}}"
            )
        return value

    return _VARIABLE.sub(value_of, text)


def _read_file(file: Path) -> Node | None:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    root = _Reader(source=str(file), directory=file.parent.absolute()).read(text)
    if root is None or root.value is None:
        return None
    if not isinstance(root.value, dict):
        raise ConfigError(f"{root.origin}: the top level is {_shown(root.plain())}; it must be `key: value` settings")
    return root


# -- the model's annotations as a schema ----------------------------------------------------------------------------


def _alternatives(annotation: Any, metadata: Sequence[Any] = ()) -> Alternatives:
    marks = tuple(mark for mark in metadata if mark is PathLike)
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return (*_alternatives(inner, more), *marks)
    if get_origin(annotation) in (Union, UnionType):
        return (*(found for member in get_args(annotation) for found in _alternatives(member)), *marks)
    return (annotation, *marks)


def _is_a(alternative: Any, *kinds: type) -> bool:
    cls = get_origin(alternative) or alternative
    return isinstance(cls, type) and issubclass(cls, kinds) and not issubclass(cls, str | bytes)


def _models(alternatives: Alternatives) -> list[type[BaseModel]]:
    return [alternative for alternative in alternatives if _is_a(alternative, BaseModel)]


def _items(alternative: Any, index: int = 0) -> Alternatives:
    """What a list, tuple, set or mapping holds; for a tuple of fixed length, at `index`."""
    args = get_args(alternative)
    if not args:
        return (Any,)
    if _is_a(alternative, Mapping):
        return _alternatives(args[1])
    if _is_a(alternative, tuple) and args[-1] is not Ellipsis:
        return _alternatives(args[index]) if index < len(args) else ()
    return _alternatives(args[0])


def _under(alternatives: Alternatives, key: str) -> Alternatives:
    """What may stand under `key` (a list's index in digits); empty where nothing may."""
    found: list[Any] = []
    for alternative in alternatives:
        if alternative is Any:
            found.append(Any)
        elif _is_a(alternative, BaseModel) and key in alternative.model_fields:
            field = alternative.model_fields[key]
            found.extend(_alternatives(field.annotation, field.metadata))
        elif _is_a(alternative, Mapping):
            found.extend(_items(alternative))
        elif _is_a(alternative, Sequence, Set) and key.isdecimal():
            found.extend(_items(alternative, int(key)))
    return tuple(found)


def _type_names(model: type[BaseModel]) -> tuple[str, ...]:
    return get_args(model.model_fields["type"].annotation) if "type" in model.model_fields else ()


def _chosen(node: Node, alternatives: Alternatives) -> Alternatives:
    """The alternatives that the node's `type` leaves; all of them if it names none."""
    stated = node.child("type")
    named = [model for model in _models(alternatives) if stated is not None and stated.value in _type_names(model)]
    return tuple(named) or alternatives


def _setting_paths(
    alternatives: Alternatives, above: tuple[str, ...] = (), within: tuple[Any, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Every path that the model has; a list's entry is `0`, a mapping's `<name>`."""
    for alternative in alternatives:
        if _is_a(alternative, BaseModel) and alternative not in within:
            for name in alternative.model_fields:
                yield (*above, name)
                yield from _setting_paths(_under((alternative,), name), (*above, name), (*within, alternative))
        elif _is_a(alternative, Mapping):
            yield from _setting_paths(_items(alternative), (*above, "<name>"), within)
        elif _is_a(alternative, Sequence, Set):
            yield from _setting_paths(_items(alternative), (*above, "0"), within)


# -- merging --------------------------------------------------------------------------------------------------------


def _stated(value: Any) -> Any:
    """A default as a person would write it: only what it sets, and which union member it is."""
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if name in value.model_fields_set or name == "type"]
        return {name: _stated(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _stated(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stated(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _default(alternatives: Alternatives, key: str) -> Node | None:
    """The default under `key` if it is a model, a mapping or a list: what a partial setting is merged into."""
    for model in _models(alternatives):
        field = model.model_fields.get(key)
        if field is None or field.is_required() or field.default_factory_takes_validated_data:
            continue
        value = field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel | Mapping | list | tuple):
            return _wrap(_stated(value), Node(None, Origin("default", Path.cwd())))
    return None


def _merge(base: Node | None, over: Node, alternatives: Alternatives) -> Node:
    if base is None or not isinstance(base.value, dict):
        return over
    over = _spelled_out(over, alternatives)
    if not isinstance(over.value, dict):
        return over
    before, after = base.child("type"), over.child("type")
    is_union = len(_models(alternatives)) > 1
    if is_union and before is not None and after is not None and before.value != after.value:
        return over
    inner = _chosen(over if after is not None else base, alternatives)
    merged = {key: _merge(base.child(key), node, _under(inner, key)) for key, node in over.value.items()}
    return Node({**base.value, **merged}, over.origin)


def _spelled_out(node: Node, alternatives: Alternatives) -> Node:
    """The node in the long form of its model, if the model has a short one."""
    models = _models(alternatives)
    expand: Callable[[Any], Any] | None = getattr(models[0], "_short_form", None) if len(models) == 1 else None
    if expand is None or node.value is None:
        return node
    try:
        spelled = expand(node.plain())
    except (ValueError, TypeError, AssertionError):
        return node  # validation meets the same complaint again, and reports it with the others
    return _wrap(spelled, node)


def _with_type(node: Node, alternatives: Alternatives) -> Node:
    """The mapping with its missing `type`, if exactly one member of the union has all its keys."""
    models = _models(alternatives)
    if not isinstance(node.value, dict) or "type" in node.value or len(models) < 2:
        return node
    fitting = [model for model in models if _type_names(model) and node.value.keys() <= model.model_fields.keys()]
    if len(fitting) != 1:
        return node
    return Node({"type": Node(_type_names(fitting[0])[0], node.origin), **node.value}, node.origin)


def _normalised(node: Node, alternatives: Alternatives) -> Node:
    """The tree with short forms spelled out, types inferred, partial defaults filled in and paths made absolute."""
    node = _with_type(_spelled_out(node, alternatives), alternatives)
    if isinstance(node.value, dict):
        inner = _chosen(node, alternatives)
        children: dict[str, Node] = {}
        for key, child in node.value.items():
            below = _under(inner, key)
            filled = _merge(_default(inner, key), _with_type(child, below), below)
            children[key] = _normalised(filled, below)
        return Node(children, node.origin)
    if isinstance(node.value, list):
        entries = enumerate(node.value)
        return Node([_normalised(item, _under(alternatives, str(i))) for i, item in entries], node.origin)
    if isinstance(node.value, str) and _is_path(node.value, alternatives):
        return Node(_absolute(node.value, node.origin.directory), node.origin)
    return node


def _is_path(text: str, alternatives: Alternatives) -> bool:
    if any(get_origin(alternative) is Literal and text in get_args(alternative) for alternative in alternatives):
        return False
    if any(_is_a(alternative, Path) for alternative in alternatives):
        return True
    return PathLike in alternatives and (text in (".", "..") or text.startswith(("./", "../", "/", "~")))


def _absolute(text: str, directory: Path) -> str:
    return os.path.normpath(directory / os.path.expanduser(text))


def _with_absolute_defaults(value: Any) -> Any:
    """The validated value with relative paths, which only defaults can have left, taken from the current directory."""
    if isinstance(value, Path):
        return value if value.is_absolute() else Path(_absolute(str(value), Path.cwd()))
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


# -- overrides ------------------------------------------------------------------------------------------------------


def _overridden(tree: Node, override: str, model: type[BaseModel]) -> Node:
    target, equals, text = override.partition("=")
    parts = tuple(target.strip().split("."))
    if not equals or not all(parts):
        raise ConfigError(
            f"command line: {override!r} is not an override; write a.b=value, for example train.steps=500"
        )
    node, alternatives = tree, (model,)
    for depth, part in enumerate(parts):
        found = _under(_chosen(node, alternatives), part) or _under(alternatives, part)
        if not found:
            raise ConfigError(f"command line: {override!r}: {_unknown(model, tree, parts[:depth], part)}")
        node, alternatives = node.child(part) or Node(None, node.origin), found
    reader = _Reader(source=f"command line, {override!r}", directory=Path.cwd(), has_lines=False)
    origin = Origin("command line", Path.cwd())
    value = reader.read(text, parts)
    value = _wrap(None if value is None else value.plain(), Node(None, origin))
    return _assigned(tree, parts, value, (model,), override)


def _assigned(
    base: Node | None, parts: tuple[str, ...], value: Node, alternatives: Alternatives, override: str
) -> Node:
    """`base` with `value` merged in at `parts`; an index may be one past the end of its list."""
    if not parts:
        return _merge(base, value, alternatives)
    part, rest = parts[0], parts[1:]
    inner = alternatives if base is None else _chosen(base, alternatives)
    below = _under(inner, part) or _under(alternatives, part)
    is_list = any(_is_a(a, Sequence, Set) for a in inner) and part.isdecimal()
    if is_list and (base is None or not isinstance(base.value, dict)):
        entries = list(base.value) if base is not None and isinstance(base.value, list) else []
        if int(part) > len(entries):
            raise ConfigError(
                f"command line: {override!r}: the list has {len(entries)} entries, so its index is 0 to {len(entries)}"
            )
        entry = entries[int(part)] if int(part) < len(entries) else None
        entries[int(part) : int(part) + 1] = [_assigned(entry, rest, value, below, override)]
        return Node(entries, value.origin if base is None else base.origin)
    child = None if base is None else base.child(part)
    if child is None and rest and (default := _default(inner, part)) is not None and isinstance(default.value, list):
        child = default
    over = Node({part: _assigned(child, rest, value, below, override)}, value.origin)
    return _merge(base, over, alternatives)


# -- complaints -----------------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """Where a complaint belongs: the dotted path as written, the node there or else above it, and its alternatives."""

    path: tuple[str, ...]
    node: Node
    is_set: bool
    alternatives: Alternatives


def _located(tree: Node, model: type[BaseModel], loc: Sequence[int | str]) -> _Place:
    """Follows pydantic's `loc`, leaving out the steps that name a union's member or a validator."""
    place = _Place((), tree, True, (model,))
    for step in map(str, loc):
        child = place.node.child(step) if place.is_set else None
        inner = _chosen(place.node, place.alternatives)
        is_field = any(step in alternative.model_fields for alternative in _models(inner))
        if child is not None:
            place = _Place((*place.path, step), child, True, _under(inner, step))
        elif is_field:
            place = _Place((*place.path, step), place.node, False, _under(inner, step))
    return place


def _sources(node: Node) -> str:
    """The origin of a scalar or list; of a mapping, which may be merged, the origins of its values."""
    if not isinstance(node.value, dict) or not node.value:
        return str(node.origin)
    origins = list(dict.fromkeys(str(child.origin) for child in node.value.values()))
    return ", ".join(origins[:3]) + (", …" if len(origins) > 3 else "")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, value)) or 'no keys'}"
    text = repr(value) if value is not None else "null"
    return text if len(text) <= 80 else text[:77] + "..."


def _expected(error: ErrorDetails, place: _Place) -> str:
    """What is wrong, and what would be right, for all kinds but an unknown key."""
    value = error["input"]
    members = _models(place.alternatives)
    names = [name for member in members for name in _type_names(member)]
    match error["type"]:
        case "missing":
            return "is required and not set"
        case "union_tag_invalid":
            tag = value.get("type") if isinstance(value, dict) else None
            meant = difflib.get_close_matches(str(tag), names, n=1)
            hint = f"; did you mean {meant[0]}?" if meant else ""
            return f"type is {tag!r}; it must be one of {', '.join(names)}{hint}"
        case "model_type" | "model_attributes_type" | "dict_type":
            remedy = "; give it settings or remove the key" if value is None else ""
            return f"should be a mapping of settings, got {_shown(value)}{remedy}"
        case "union_tag_not_found" if isinstance(value, dict):
            known = {key for member in members for key in member.model_fields}
            meant = [hit for key in value if key not in known for hit in difflib.get_close_matches(key, known, n=1)]
            hint = f"; did you mean {' and '.join(meant)}?" if meant else ""
            keys = ", ".join(value) or "none"
            return f"has no type, and its keys ({keys}) do not tell which; add type: {' | '.join(names)}{hint}"
        case "value_error" | "assertion_error":
            return error["msg"].split(", ", 1)[-1] + ("" if isinstance(value, dict) else f" (got {_shown(value)})")
    remedy = "; give it a value or remove the key" if value is None else ""
    return f"{error['msg'].removeprefix('Input ')}, got {_shown(value)}{remedy}"


def _suggested(model: type[BaseModel], above: tuple[str, ...], siblings: Sequence[str], key: str) -> list[str]:
    """Dotted paths that exist in the model and that `key` may have meant, the likeliest kind of them only."""
    paths = [path for path in dict.fromkeys(_setting_paths((model,))) if path != (*above, key)]
    paths.sort(key=lambda path: path[:-1] != above)
    alias = tuple(_ALIASES[key].split(".")) if key in _ALIASES else None
    renamed = [path for path in paths if alias and path[-len(alias) :] == alias]
    elsewhere = [path for path in paths if path[-1] == key]
    near = [(*above, name) for name in difflib.get_close_matches(key, siblings, n=2)]
    far_names = difflib.get_close_matches(key, sorted({path[-1] for path in paths}), n=1, cutoff=0.7)
    far = [path for path in paths if path[-1] in far_names]
    found = next((kind for kind in (renamed, near, elsewhere, far) if kind), [])
    return [".".join(path) for path in found[:3]]


def _unknown(model: type[BaseModel], tree: Node, above: tuple[str, ...], key: str) -> str:
    """Why `key` cannot stand under the path `above`, and what may have been meant."""
    node: Node | None = tree
    alternatives: Alternatives = (model,)
    for part in above:
        inner = alternatives if node is None else _chosen(node, alternatives)
        alternatives = _under(inner, part) or _under(alternatives, part)
        node = None if node is None else node.child(part)
    inner = alternatives if node is None else _chosen(node, alternatives)
    siblings = list(dict.fromkeys(name for member in _models(inner) for name in member.model_fields))
    where = f"in {'.'.join(above)}" if above else "at the top level"
    if not siblings:
        is_list = any(_is_a(alternative, Sequence, Set) for alternative in inner)
        path = ".".join(above)
        return f"{path} is a list; use an index such as 0" if is_list else f"{path} has no settings below it"
    stated = node.child("type") if node is not None else None
    kind = f" of type {stated.value}" if stated is not None and len(inner) < len(_models(alternatives)) else ""
    owners = [name for member in _models(alternatives) if key in member.model_fields for name in _type_names(member)]
    if owners:
        return f"unknown key {key!r} {where}{kind}; it belongs to type {' or '.join(owners)}"
    suggested = _suggested(model, above, siblings, key)
    hint = f"did you mean {' or '.join(suggested)}?" if suggested else f"known here: {', '.join(siblings)}"
    return f"unknown key {key!r} {where}{kind}; {hint}"


def _report(error: ValidationError, tree: Node, model: type[BaseModel]) -> str:
    """One line a setting, in the order of the model; a union's several complaints about one value are joined."""
    problems: dict[str, list[str]] = {}
    details = error.errors(include_url=False)
    for detail in details:
        loc = detail["loc"]
        if detail["type"] == "too_short" and any(other["loc"][: len(loc)] == loc != other["loc"] for other in details):
            continue  # it counts only the valid entries: the invalid ones are the cause
        place = _located(tree, model, detail["loc"])
        path = ".".join(place.path)
        if detail["type"] == "extra_forbidden":
            text = f"{_unknown(model, tree, place.path[:-1], place.path[-1])} (value {_shown(place.node.plain())})"
        else:
            text = _expected(detail, place)
        if place.is_set and path:
            path = f"{path} ({_sources(place.node)})"
        elif len(place.path) > 1 and place.node is not tree:
            path = f"{path} (for {_sources(place.node)})"
        texts = problems.setdefault(path, [])
        if text not in texts:
            texts.append(text)
    lines = [f"  {path}{': ' if path else ''}{', or '.join(texts)}" for path, texts in problems.items()]
    return f"{len(lines)} {'problem' if len(lines) == 1 else 'problems'} in the settings:\n" + "\n".join(lines)


# -- public ---------------------------------------------------------------------------------------------------------


def load_config(model: type[T], *, files: Sequence[Path], overrides: Sequence[str] = ()) -> T:
    """The settings that `files` and `overrides` state, later ones over earlier ones, over the model's defaults.

    A path is relative to the file that states it; on the command line and in a default, to the current directory.
    All paths of the result are absolute, so that its dump means the same anywhere.

    Args:
        model: what to build.
        files: YAML files, each a mapping or empty.
        overrides: `a.b=value`, the value in YAML; `a.b=` is null; a list's entry is its index: `data.sources.0.path=x`.

    Raises:
        ConfigError: a file cannot be read or is not YAML, a key is written twice, a variable is not set, an override
            names no setting; or the settings are wrong, and then the message lists everything that is wrong, with its
            file and line.
    """
    tree = Node({}, Origin("settings", Path.cwd()))
    for file in files:
        layer = _read_file(file)
        if layer is not None:
            tree = _normalised(_merge(tree, layer, (model,)), (model,))
    for override in overrides:
        tree = _normalised(_overridden(tree, override, model), (model,))
    try:
        config = model.model_validate(tree.plain())
    except ValidationError as error:
        raise ConfigError(_report(error, tree, model)) from error
    return _with_absolute_defaults(config)


def dump_config(config: BaseModel) -> str:
    """YAML of every setting, defaults too, in the order of the model; `load_config` of it equals `config`.

    Relative paths are written as they are: only those that `load_config` made absolute mean the same in any directory.
    """
    data = _literal(config.model_dump(mode="json"))
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)


def _literal(value: Any) -> Any:
    """The value with every `${` in its strings kept from being expanded when read back."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
