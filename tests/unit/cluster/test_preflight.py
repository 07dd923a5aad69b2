import re
from pathlib import Path

import pytest

from cluster.config import RunConfig
from cluster.preflight import check_files, check_model, check_packages
from cluster.settings import load_config
from scheduler.errors import ConfigError, DataError
from train.config import PretrainedModel, TinyModel

# -- model, data, packages ------------------------------------------------------------------------------------------


def test_a_folder_is_a_model_only_with_its_config_and_safetensors(tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    model = PretrainedModel(path=str(folder))
    with pytest.raises(ConfigError, match=re.escape(f"model.path: {folder} does not exist")):
        check_model(model)
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"has no config.json; it is not a Hugging Face model folder"):
        check_model(model)
    (folder / "config.json").touch()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match=r"has no \*.safetensors; save the model with safetensors"):
        check_model(model)
    (folder / "model-00001-of-00002.safetensors").touch()
    check_model(model)


def test_a_file_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "lm").touch()
    with pytest.raises(ConfigError, match="give a Hugging Face model folder"):
        check_model(PretrainedModel(path=str(tmp_path / "lm")))


@pytest.mark.parametrize("model", [TinyModel(), PretrainedModel(path="org/model")])
def test_a_built_model_and_a_hub_id_are_not_looked_for_on_disk(model: PretrainedModel | TinyModel) -> None:
    check_model(model)


def test_the_second_of_two_sources_is_looked_for_too(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: {type: tiny}\ndata: [a.jsonl, b.jsonl]")
    (tmp_path / "a.jsonl").touch()
    config = load_config(RunConfig, files=[tmp_path / "run.yaml"])
    with pytest.raises(DataError, match=re.escape(f"data source {tmp_path / 'b.jsonl'} does not exist")):
        check_files(config)
    (tmp_path / "b.jsonl").touch()
    check_files(config)


def test_the_packages_imported_here_are_the_projects_own() -> None:
    check_packages()


def test_a_package_of_another_distribution_is_told_from_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "train")
    with pytest.raises(ConfigError, match=re.escape(f"'train' is imported from {tmp_path / 'train/__init__.py'}")):
        check_packages()
