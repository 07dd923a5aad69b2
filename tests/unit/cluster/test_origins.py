import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.origins import HOME, package_origins, shadowed_packages


def foreign(folder: Path, package: str) -> Path:
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    return folder


def test_our_own_packages_are_not_shadowed() -> None:
    assert shadowed_packages() == []
    assert {Path(origin).parents[1] for origin in package_origins().values() if origin} == {HOME}


@pytest.mark.parametrize("package", ["scheduler", "train", "evalsvc"])
@pytest.mark.parametrize("arguments", [["--help"], ["doctor"]])
def test_every_command_names_a_package_of_another_distribution_before_it_breaks(
    tmp_path: Path, package: str, arguments: list[str]
) -> None:
    site = foreign(tmp_path / "site", package)
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{HOME}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"error: the package '{package}' is imported from {site}/{package}/__init__.py" in done.stderr
    assert "Traceback" not in done.stderr
