"""What is wrong with a tree of settings, in words: who set it, what was expected, what may have been meant."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster.settings.node import Node, shown
from cluster.settings.schema import Shape, type_names

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


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a tree: its path and what may stand there. `node` is what does if `is_set`, else the nearest above."""

    path: tuple[str, ...]
    node: Node
    is_set: bool
    shape: Shape

    @classmethod
    def top(cls, tree: Node, shape: Shape) -> "Place":
        """The place of the whole tree."""
        return cls((), tree, True, shape)

    @property
    def narrowed(self) -> Shape:
        """What may stand here, by the `type` of what does."""
        return self.shape.narrowed(self.node if self.is_set else None)

    def step(self, key: str) -> "Place":
        """The place under `key`."""
        child = self.node.child(key) if self.is_set else None
        shape = self.shape.within(self.node if self.is_set else None, key)
        return Place((*self.path, key), child or self.node, child is not None, shape)

    def follow(self, loc: Sequence[int | str]) -> "Place":
        """Where pydantic's `loc` leads, leaving out the steps that name a union's member or a validator."""
        place = self
        for key in map(str, loc):
            below = place.step(key)
            if below.is_set or any(key in model.model_fields for model in place.narrowed.models):
                place = below
        return place


def describe(error: ValidationError, tree: Node, shape: Shape) -> str:
    """One line a setting, in the order of the model; a union's several complaints about one value are joined."""
    problems: dict[str, list[str]] = {}
    details = error.errors(include_url=False)
    top = Place.top(tree, shape)
    for detail in details:
        loc = detail["loc"]
        if detail["type"] == "too_short" and any(other["loc"][: len(loc)] == loc != other["loc"] for other in details):
            continue  # it counts only the valid entries: the invalid ones are the cause
        place = top.follow(loc)
        if detail["type"] == "extra_forbidden":
            above = top.follow(loc[:-1])
            text = f"{unknown_key(above, str(loc[-1]), top=shape)} (value {shown(place.node.plain())})"
        else:
            text = _expected(detail, place)
        texts = problems.setdefault(_heading(place, tree), [])
        if text not in texts:
            texts.append(text)
    lines = [f"  {heading}{': ' if heading else ''}{', or '.join(texts)}" for heading, texts in problems.items()]
    return f"{len(lines)} {'problem' if len(lines) == 1 else 'problems'} in the settings:\n" + "\n".join(lines)


def unknown_key(place: Place, key: str, *, top: Shape) -> str:
    """Why `key` cannot stand under `place`, and which setting of `top` may have been meant."""
    inner, path = place.narrowed, ".".join(place.path)
    siblings = list(dict.fromkeys(name for member in inner.models for name in member.model_fields))
    if not siblings:
        return f"{path} is a list; use an index such as 0" if inner.is_list else f"{path} has no settings below it"
    stated = place.node.child("type") if place.is_set else None
    of_type = stated is not None and len(inner.kinds) < len(place.shape.models)
    what = f"unknown key {key!r} {f'in {path}' if path else 'at the top level'}"
    what += f" of type {stated.value}" if of_type and stated is not None else ""
    owners = [name for member in place.shape.models if key in member.model_fields for name in type_names(member)]
    if owners:
        return f"{what}; it belongs to type {' or '.join(owners)}"
    meant = _suggested(top, place.path, siblings, key)
    return f"{what}; " + (f"did you mean {' or '.join(meant)}?" if meant else f"known here: {', '.join(siblings)}")


def _suggested(top: Shape, above: tuple[str, ...], siblings: Sequence[str], key: str) -> list[str]:
    """Dotted paths that exist and that `key` may have meant, the likeliest kind of them only."""
    paths = [path for path in dict.fromkeys(top.paths()) if path != (*above, key)]
    paths.sort(key=lambda path: path[:-1] != above)
    alias = tuple(_ALIASES[key].split(".")) if key in _ALIASES else None
    renamed = [path for path in paths if alias and path[-len(alias) :] == alias]
    elsewhere = [path for path in paths if path[-1] == key]
    near = [(*above, name) for name in difflib.get_close_matches(key, siblings, n=2)]
    far_names = difflib.get_close_matches(key, sorted({path[-1] for path in paths}), n=1, cutoff=0.7)
    far = [path for path in paths if path[-1] in far_names]
    found = next((kind for kind in (renamed, near, elsewhere, far) if kind), [])
    return [".".join(path) for path in found[:3]]


def _expected(error: ErrorDetails, place: Place) -> str:
    """What is wrong, and what would be right, for all kinds but an unknown key."""
    value = error["input"]
    members = place.shape.models
    names = [name for member in members for name in type_names(member)]
    match error["type"]:
        case "missing":
            return "is required and not set"
        case "union_tag_invalid":
            tag = value.get("type") if isinstance(value, dict) else None
            meant = difflib.get_close_matches(str(tag), names, n=1)
            return f"type is {tag!r}; it must be one of {', '.join(names)}{_question(meant)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            remedy = "; give it settings or remove the key" if value is None else ""
            return f"should be a mapping of settings, got {shown(value)}{remedy}"
        case "union_tag_not_found" if isinstance(value, dict):
            known = {key for member in members for key in member.model_fields}
            meant = [hit for key in value if key not in known for hit in difflib.get_close_matches(key, known, n=1)]
            keys, types = ", ".join(value) or "none", " | ".join(names)
            return f"has no type, and its keys ({keys}) do not tell which; add type: {types}{_question(meant)}"
        case "value_error" | "assertion_error":
            return error["msg"].split(", ", 1)[-1] + ("" if isinstance(value, dict) else f" (got {shown(value)})")
    remedy = "; give it a value or remove the key" if value is None else ""
    return f"{error['msg'].removeprefix('Input ')}, got {shown(value)}{remedy}"


def _question(meant: Sequence[str]) -> str:
    return f"; did you mean {' and '.join(meant)}?" if meant else ""


def _heading(place: Place, tree: Node) -> str:
    """The setting's path and who set it, or who set the mapping that lacks it."""
    path = ".".join(place.path)
    if place.is_set and path:
        return f"{path} ({_sources(place.node)})"
    if len(place.path) > 1 and place.node is not tree:
        return f"{path} (for {_sources(place.node)})"
    return path


def _sources(node: Node) -> str:
    """The origin of a scalar or list; of a mapping, which may be merged, the origins of its values."""
    if not isinstance(node.value, dict) or not node.value:
        return str(node.origin)
    origins = list(dict.fromkeys(str(child.origin) for child in node.value.values()))
    return ", ".join(origins[:3]) + (", …" if len(origins) > 3 else "")
