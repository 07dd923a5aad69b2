"""JSON Schema for output rules: refuse a definition that is not one, compile one that is. Nothing is ever fetched."""

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012


def compile_schema(definition: Mapping[str, Any]) -> Validator:
    """A validator of the definition's draft (`$schema`, else 2020-12) that checks formats and has no network."""
    validator = validator_for(definition, default=Draft202012Validator)
    return validator(definition, registry=Registry(), format_checker=validator.FORMAT_CHECKER)


def require_schema(definition: Mapping[str, Any]) -> None:
    """Refuse what is no JSON Schema, or refers to something outside itself.

    Raises:
        ValueError: Names the place in the definition.
    """
    validator = validator_for(definition, default=Draft202012Validator)
    draft = str(validator.META_SCHEMA["$schema"])
    if str(definition.get("$schema", draft)).rstrip("#") != draft.rstrip("#"):
        raise ValueError(f"$schema {definition['$schema']!r} is no known draft; leave it out for {draft}")
    errors = validator(validator.META_SCHEMA, format_checker=validator.FORMAT_CHECKER).iter_errors(definition)
    if error := best_match(errors):
        raise ValueError(f"not a JSON Schema: at {error.json_path}: {error.message}")
    resource = Resource.from_contents(definition, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).crawl().resolver_with_root(resource)
    for reference in _references(definition):
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise ValueError(f"$ref {reference!r} leads nowhere inside the definition; put it under $defs") from error


def _references(node: Any) -> Iterator[str]:
    match node:
        case {"$ref": str(reference)}:
            yield reference
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for child in children:
        yield from _references(child)
