"""The example sweeps are what the current settings understand, and search what they say."""

from pathlib import Path

import pytest

from cluster.config import RunConfig
from cluster.settings import dump_config, load_config
from cluster.sweep.config import OptunaSearch, SweepConfig
from cluster.sweep.directory import TrialSpec, trial_config
from cluster.sweep.sensitivity import SensitivityConfig
from cluster.sweep.space import corners, draw

FOLDER = Path(__file__).parents[3] / "examples" / "sweeps"
SWEEPS = ["boundaries", "policies", "population"]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_corner_and_some_draws_of_an_example_load(name: str, tmp_path: Path) -> None:
    config = load_config(SweepConfig, files=[FOLDER / f"{name}.yaml"])
    assert not isinstance(config.search, OptunaSearch)
    base = tmp_path / "base.yaml"
    base.write_text(dump_config(load_config(RunConfig, files=config.run, overrides=config.overrides)), encoding="utf-8")
    drawn = [*corners(config.space), *(draw(config.space, seed=0, trial=number) for number in range(5))]
    for number, values in enumerate(drawn):
        trial_config(base, TrialSpec(f"trial-{number:03d}", values), folder=tmp_path)


def test_the_example_of_sensitivity_loads() -> None:
    config = load_config(SensitivityConfig, files=[FOLDER / "sensitivity.yaml"])
    assert config.run == FOLDER.parents[1] / "runs" / "demo"
