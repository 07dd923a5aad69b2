"""What a check found."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's. `remedy` is empty where nothing needs one; `node` is empty for this machine."""

    check: str
    level: Level
    found: str
    remedy: str = ""
    node: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, *, remedy: str) -> Finding:
    """A run works, with a disadvantage."""
    return Finding(check, "warn", found, remedy)


def fail(check: str, found: str, *, remedy: str) -> Finding:
    """A run would fail or harm."""
    return Finding(check, "fail", found, remedy)


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether something must be mended first."""
    return any(finding.level == "fail" for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    """One line a finding; what several nodes have in common is said once."""
    nodes: dict[Finding, list[str]] = {}
    for finding in findings:
        nodes.setdefault(dataclasses.replace(finding, node=""), []).append(finding.node)
    width = max((len(finding.check) for finding in nodes), default=0)
    lines = []
    for finding, where in nodes.items():
        named = [node for node in where if node]
        place = f"{named[0]}: " if len(named) == 1 else f"{len(named)} nodes: " if named else ""
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        lines.append(f"{finding.level:<4}  {finding.check:<{width}}  {place}{finding.found}{remedy}")
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """A list of objects, one a finding."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False)
