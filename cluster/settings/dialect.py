"""The YAML that is read and written: scalars by the YAML 1.2 core schema, where `no` and `1:30` are strings."""

import re
from typing import Any

import yaml

TAG = "tag:yaml.org,2002:"

_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
)
"""Kind, pattern, and the characters that it may begin with."""


class Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of the YAML 1.2 core schema."""


class Dumper(yaml.SafeDumper):
    """Quotes every string that a YAML 1.1 or 1.2 reader would take for something else; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Outside double quotes a reader takes U+0085 for a line break, and gives "\n" for it.
        return self.represent_scalar(TAG + "str", data, style='"' if "\x85" in data else None)


Dumper.add_representer(str, Dumper.represent_str)


# The loader forgets the scalars of YAML 1.1; the dumper keeps them, and so quotes what either version would misread.
Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in _SCALARS:
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


def scalar(kind: str, text: str) -> bool | int | float | None:
    """The value of a null, bool, int or float as `_SCALARS` spells them.

    Raises:
        ValueError: The text is no such value, which an explicit tag makes possible.
    """
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
        case "float":
            return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
        case _:
            raise ValueError(f"tag {TAG}{kind} is not read")
