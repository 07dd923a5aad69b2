"""Where Python finds our four packages; other distributions have packages of the same names.

Imports nothing of ours, so that it can tell what is wrong before anything of ours is imported.
"""

import importlib.util
from pathlib import Path

PACKAGES = ("scheduler", "train", "evalsvc", "cluster")
HOME = Path(__file__).parents[1]
"""The folder that all of them must lie in."""


def package_origins() -> dict[str, str | None]:
    """The file that `import NAME` loads, by package; None where there is none."""
    found = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found[name] = spec.origin if spec is not None else None
    return found


def shadowed_packages() -> list[str]:
    """For each package that does not come from this project: which, from where, and what to do."""
    return [
        f"the package {name!r} is imported from {origin}, not from {HOME}; another distribution of that name shadows "
        f"it: uninstall it, or put {HOME} first on PYTHONPATH"
        for name, origin in package_origins().items()
        if origin is None or Path(origin).parents[1] != HOME
    ]
