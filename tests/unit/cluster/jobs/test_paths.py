from pathlib import Path

from cluster.config import RunConfig
from cluster.jobs.paths import local_paths, with_paths
from train.config import DataConfig, PretrainedModel, SourceConfig


def config(model: str) -> RunConfig:
    sources = (SourceConfig(path=Path("/d/a.jsonl")), SourceConfig(path="s3://b/c.jsonl"))
    return RunConfig(model=PretrainedModel(path=model), data=DataConfig(sources=sources))


def test_every_local_path_is_found_under_its_setting_and_nothing_else() -> None:
    found = dict(local_paths(config("/models/lm")))
    assert found == {
        "model.path": Path("/models/lm"),
        "data.sources.0.path": Path("/d/a.jsonl"),
        "output.dir": Path("runs"),
    }
    assert "model.path" not in dict(local_paths(config("org/model")))


def test_replacing_paths_keeps_everything_else() -> None:
    before = config("/models/lm")
    after = with_paths(before, lambda _, path: Path("/new") / path.name)
    assert after.model_dump() | {"model": 0, "data": 0, "output": 0} == before.model_dump() | {
        "model": 0, "data": 0, "output": 0,
    }  # fmt: skip
    assert dict(local_paths(after)) == {setting: Path("/new") / path.name for setting, path in local_paths(before)}
    assert with_paths(before, lambda _, path: path) == before
