"""Installed distributions against what the project asks for."""

import importlib.metadata
import platform
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from cluster.doctor.finding import Finding, fail, ok, warn
from cluster.origins import HOME

_CHECK = "versions"
_DISTRIBUTION = "taskheat"


def project_requirements(home: Path = HOME) -> tuple[Requirement, ...] | None:
    """What the project needs, from its pyproject.toml or from its installed metadata; None where neither is there."""
    file = home / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        extras = [
            f"{line}; extra == '{name}'" for name, lines in project["optional-dependencies"].items() for line in lines
        ]
        return tuple(Requirement(line) for line in (*project["dependencies"], *extras))
    try:
        return tuple(Requirement(line) for line in importlib.metadata.requires(_DISTRIBUTION) or ())
    except importlib.metadata.PackageNotFoundError:
        return None


def pinned_versions(home: Path = HOME) -> dict[str, str]:
    """Version by distribution that the project was tested with; empty where constraints.txt is not there."""
    file = home / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pins = (re.fullmatch(r"([\w.-]+)==([\w.!+-]+)", line.strip()) for line in lines)
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def check_versions(
    requirements: Sequence[Requirement] | None,
    *,
    tested: dict[str, str],
    search_path: Sequence[str] | None = None,
    python: str = ">=3.11",
) -> list[Finding]:
    """Compare what is installed (on `search_path`, default: where Python imports from) with `requirements`.

    A required distribution that is missing or out of range fails; an extra's is judged only if it is installed; one in
    range but not the tested version is a warning.
    """
    found = [] if SpecifierSet(python).contains(platform.python_version()) else [_wrong_python(python)]
    if requirements is None:
        found.append(ok(_CHECK, "not known here what is needed: neither pyproject.toml nor an installed taskheat"))
        return found
    installed = _installed(search_path)
    others = []
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        is_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        version = installed.get(name)
        if version is None:
            found += [] if is_extra else [_missing(requirement)]
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(_out_of_range(requirement, version))
        elif name in tested and Version(version).public != Version(tested[name]).public:
            others.append(f"{name} {version} (tested with {tested[name]})")
    if others:
        found.append(warn(_CHECK, ", ".join(others), remedy="pip install -c constraints.txt brings the tested ones"))
    names = ("ray", "torch", "transformers")
    known = ", ".join(f"{name} {installed[name]}" for name in names if name in installed)
    return found or [ok(_CHECK, f"python {platform.python_version()}, {known}; all in range")]


def _installed(search_path: Sequence[str] | None) -> dict[str, str]:
    """Version by name, of the first of each name on the path, as importing takes the first."""
    path = sys.path if search_path is None else list(search_path)
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=path):
        found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution.version)
    return found


def _wrong_python(python: str) -> Finding:
    return fail(_CHECK, f"python {platform.python_version()}, needed {python}", remedy=f"use a Python {python}")


def _missing(requirement: Requirement) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    return fail(_CHECK, f"{requirement.name} is not installed", remedy=f"pip install '{wanted}'")


def _out_of_range(requirement: Requirement, version: str) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    return fail(
        _CHECK, f"{requirement.name} {version}, needed {requirement.specifier}", remedy=f"pip install '{wanted}'"
    )
