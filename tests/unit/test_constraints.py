import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]


def test_the_constraints_are_in_order_and_pin_nothing_twice() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(lines, key=str.lower)
    names = [canonicalize_name(pin.name) for pin in PINS]
    assert len(set(names)) == len(names)


def test_everything_the_project_and_its_extras_ask_for_is_pinned_within_the_range_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in PINS}
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    for asked in (Requirement(line) for lines in lists for line in lines):
        version = pinned.get(canonicalize_name(asked.name))
        assert version is not None, f"{asked} has no pin"
        assert asked.specifier.contains(version), f"{asked} is pinned to {version}"
