"""How a benchmark ends: its figures are written down beside the machine's, and every aim that is missed is named."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "transformers", "ray", "numpy")


def conclude(name: str, figures: Mapping[str, Any], missed: Sequence[str], *, check: bool) -> int:
    """Write `bench/results/NAME.json`, say where it is and what is missed.

    Args:
        name: Of the benchmark.
        figures: JSON-able.
        missed: A sentence for every figure that misses its aim.
        check: A missed aim is an error.

    Returns:
        The exit status.
    """
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine(), **figures, "missed": list(missed)}
    path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
    print("\n".join(f"missed: {line}" for line in missed) if missed else "every aim is met")
    return int(check and bool(missed))


def machine() -> dict[str, Any]:
    """What figures depend on: the processor, how many of them, and versions."""
    about = {"processor": platform.machine(), "num_cpus": os.cpu_count(), "python": platform.python_version()}
    return about | {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
