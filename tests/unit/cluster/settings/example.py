"""A small tree of settings of every kind, and what the tests of `cluster.settings` do with it."""

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from cluster.settings import dump_config, load_config
from evalsvc.config import EvaluationConfig
from scheduler.config_model import ConfigModel
from scheduler.errors import ConfigError
from scheduler.task import TaskSpec
from train.config import DataConfig, ModelConfig, TinyModel, TrainConfig


class Stage(ConfigModel):
    until: int = 1
    name: str = ""


class Sampling(ConfigModel):
    temperature: float = 1.0
    num_answers: int = 1


class Output(ConfigModel):
    dir: Path = Path("runs")
    mirrors: dict[str, Path] = Field(default_factory=dict)
    extra: tuple[Path, ...] = ()
    log: Path | Literal["none"] = "none"


class Settings(ConfigModel):
    """A small tree of the kinds of field a run's settings have."""

    seed: int = 0
    title: str = ""
    model: ModelConfig = TinyModel()
    data: DataConfig | None = None
    tasks: dict[str, TaskSpec] = Field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    stages: tuple[Stage, ...] = (Stage(until=10, name="first"), Stage(until=20))
    sampling: Sampling = Sampling(temperature=0.3)
    evaluation: EvaluationConfig = EvaluationConfig()
    output: Output = Output()


def load(directory: Path, *texts: str, overrides: tuple[str, ...] = ()) -> Settings:
    """Writes each text to its own folder, `0/run.yaml`, `1/run.yaml`, …, and loads them in that order."""
    files = []
    for i, text in enumerate(texts):
        file = directory / str(i) / "run.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        files.append(file)
    return load_config(Settings, files=files, overrides=overrides)


def complaint(directory: Path, *texts: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load(directory, *texts, overrides=overrides)
    return str(caught.value).replace(f"{directory}{os.sep}", "")


def source_paths(config: Settings) -> list[str]:
    assert config.data is not None
    return [str(source.path) for source in config.data.sources]


def round_trip(config: Any, directory: Path) -> Any:
    file = directory / "dump.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    return load_config(type(config), files=[file])
