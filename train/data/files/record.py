"""What a reader finds in a file: an object, or why there is none."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BadRecord:
    """What stands in a file where a record should be."""

    rule: str
    reason: str


Record = dict[str, Any] | BadRecord


def as_record(value: Any) -> Record:
    """The value if it is a JSON object."""
    if isinstance(value, dict):
        return value
    shown = repr(value)
    kind = f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:40] + '…'}"
    return BadRecord("not_an_object", f"a row must be a JSON object; found {kind}")


def too_long(size: int, limit: int) -> BadRecord:
    """The refusal of a record of `size` bytes."""
    return BadRecord("line_too_long", f"{size} bytes, more than max_line_bytes {limit}; shorten it or raise the limit")


def parse_line(raw: bytes) -> Record:
    """The JSON object on one line."""
    if b"\0" in raw:
        return BadRecord("nul_byte", f"NUL byte at position {raw.index(0)} of the line")
    try:
        return as_record(json.loads(raw.decode()))
    except UnicodeDecodeError as error:
        return BadRecord("invalid_utf8", f"not UTF-8: {error.reason} at byte {error.start} of the line")
    except (ValueError, RecursionError) as error:
        return BadRecord("malformed_json", f"not JSON: {error}")
