"""The reference tables of `docs/configuration.md`, written from the settings' own models.

    python -m cluster.settings_reference            rewrite the section between the markers
    python -m cluster.settings_reference --check    write nothing; exit 1 when the section is not up to date

One section a model: where it stands, its docstring, and a table of its settings. Name, type, default and limits come
from the models and are replaced; the meaning is written by hand in the last column and kept, unless the model itself
documents the setting (a description, or an entry under `Attributes:`). Exits 1 when a meaning is missing.
"""

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cluster.config import LaunchConfig, RunConfig
from cluster.settings.dialect import Dumper
from cluster.settings.merge import stated
from cluster.settings.schema import Shape, type_names
from scheduler.errors import ConfigError

BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"
ROOTS: dict[type[BaseModel], str] = {RunConfig: "", LaunchConfig: "launch"}
"""What can be configured, and the prefix of its settings on the command line."""

Meanings = Mapping[tuple[str, str], str]
"""Meaning by (model, setting)."""

_DOCUMENT_END = "...\n"  # which YAML writes after a bare scalar
_LIMITS = ((at.Ge, "ge", "≥"), (at.Gt, "gt", ">"), (at.Le, "le", "≤"), (at.Lt, "lt", "<"))
_WORDS = {Path: "path", str: "string", int: "integer", float: "number", bool: "true or false", type(None): "null"}
_ROW = re.compile(r"\| `(?P<name>\w+)` \|.*(?<!\\)\| (?P<meaning>.*) \|")
_ATTRIBUTE = re.compile(r"^(?P<name>\w+): (?P<text>.*(?:\n {4,}.*)*)", re.MULTILINE)


@dataclass(slots=True)
class Section:
    """One model and the settings paths it stands at."""

    model: type[BaseModel]
    places: list[str]

    @property
    def anchor(self) -> str:
        """A link to the section inside the document."""
        return f"[{self.model.__name__}](#{self.model.__name__.lower()})"


def sections() -> list[Section]:
    """Every model below the roots, once, in the order in which a reader meets them."""
    found: dict[type[BaseModel], Section] = {}
    for root, prefix in ROOTS.items():
        for model, place in _models(root, prefix):
            found.setdefault(model, Section(model, [])).places.append(place)
    return list(found.values())


def reference(meanings: Meanings) -> str:
    """The generated section, without its markers."""
    return "\n\n".join(_section(section, meanings) for section in sections())


def read_meanings(text: str) -> Meanings:
    """The hand-written last columns of a generated section, by model and setting."""
    meanings: dict[tuple[str, str], str] = {}
    model = ""
    for line in text.splitlines():
        if line.startswith("### "):
            model = line.removeprefix("### ").strip()
        elif found := _ROW.fullmatch(line):
            meanings[model, found["name"]] = found["meaning"].strip()
    return meanings


def renewed(document: str) -> str:
    """The document with its generated section brought up to date.

    Raises:
        ConfigError: The document has no markers.
    """
    if document.count(BEGIN) != 1 or document.count(END) != 1:
        raise ConfigError(f"the document needs one line {BEGIN!r} and one line {END!r}")
    head, rest = document.split(BEGIN)
    section, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{reference(read_meanings(section))}\n\n{END}{tail}"


def unexplained(document: str) -> list[str]:
    """Settings of the document whose meaning is still empty."""
    return [f"{model}.{name}" for (model, name), meaning in read_meanings(document).items() if not meaning]


def _models(model: type[BaseModel], place: str) -> Iterator[tuple[type[BaseModel], str]]:
    yield model, place
    for name, field in model.model_fields.items():
        shape, path = Shape.of_field(field), f"{place}.{name}".removeprefix(".")
        while shape and not shape.models and Any not in shape.kinds:
            path += ".0" if shape.is_list else ".NAME"
            shape = shape.under("0")
        for below in shape.models:
            yield from _models(below, path)


def _section(section: Section, meanings: Meanings) -> str:
    model = section.model
    lines = [f"### {model.__name__}", ""]
    places = ", ".join(f"`{place}`" for place in section.places if place)
    selector = f", chosen by `type: {type_names(model)[0]}`" if type_names(model) else ""
    lines += [f"At {places}{selector}.", ""] if places else []
    prose, documented = _docstring(model)
    lines += [prose, ""]
    fields = {name: field for name, field in model.model_fields.items() if name != "type"}
    if not fields:
        return "\n".join([*lines, "No settings of its own."])
    lines += ["| setting | type | default | limits | meaning |", "|---|---|---|---|---|"]
    for name, field in fields.items():
        meaning = field.description or documented.get(name) or meanings.get((model.__name__, name), "")
        cells = (f"`{name}`", _type_words(field.annotation), default_words(field), _limit_words(field), _cell(meaning))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _docstring(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """The docstring's prose, one line a paragraph, and its entries under `Attributes:`."""
    text, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    prose = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
    entries = _ATTRIBUTE.finditer(inspect.cleandoc(attributes))
    return prose, {entry["name"]: " ".join(entry["text"].split()) for entry in entries}


def default_words(field: FieldInfo) -> str:
    """The default as one would write it in YAML; `required` where there is none."""
    if field.is_required():
        return "required"
    value = stated(field.get_default(call_default_factory=True))
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return f"`{_cell(text.removesuffix(_DOCUMENT_END).strip())}`"


def _type_words(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_words(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_type_words(member) for member in args)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin is dict:
        return f"mapping of {_type_words(args[1])}"
    if origin is tuple:
        item = _type_words(args[0])
        return f"list of {item}" if args[-1] is Ellipsis else f"list of {len(args)} of {item}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Section(annotation, []).anchor
    return "anything" if annotation is Any else _WORDS[annotation]


def _limit_words(field: FieldInfo) -> str:
    limits = []
    for mark in field.metadata:
        limits += [f"{sign} {getattr(mark, name)}" for kind, name, sign in _LIMITS if isinstance(mark, kind)]
        if isinstance(mark, at.MinLen):
            limits.append(f"length ≥ {mark.min_length}")
        if isinstance(mark, at.MaxLen):
            limits.append(f"length ≤ {mark.max_length}")
        if pattern := getattr(mark, "pattern", None):
            limits.append(f"`{_cell(pattern)}`")
    return ", ".join(limits)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 1 when the section is not up to date.")
def main(check: bool) -> None:
    """Rewrite the generated section of docs/configuration.md."""
    before = DOCUMENT.read_text(encoding="utf-8")
    after = renewed(before)
    if missing := unexplained(after):
        click.echo(f"no meaning yet: {', '.join(missing)}", err=True)
    if not check:
        DOCUMENT.write_text(after, encoding="utf-8")
    raise SystemExit(1 if missing or (check and before != after) else 0)


if __name__ == "__main__":
    main()
