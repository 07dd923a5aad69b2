"""What is checked before anything is started: the right modules, a loadable model, data and output that can be used."""

from pathlib import Path

from cluster.config import LaunchConfig, RunConfig
from cluster.origins import shadowed_packages
from scheduler.errors import ConfigError
from train.config import ModelConfig, PretrainedModel
from train.data.files import find_files


def check_packages() -> None:
    """Refuse to run when another distribution shadows one of our packages."""
    if faults := shadowed_packages():
        raise ConfigError("; ".join(faults))


def check_files(config: RunConfig) -> None:
    """Refuse a model or a source that is not there, before the seconds that importing torch and Ray take.

    Raises:
        ConfigError: The model's folder cannot be loaded, or the output would lie in a job's own copy of the project.
        DataError: A source does not exist or is of an unknown extension.
    """
    check_output(config.output.dir)
    check_model(config.model)
    for source in config.data.sources:
        find_files(source.path)


def check_stages(config: RunConfig, launch: LaunchConfig) -> None:
    """Refuse workers for a stage that the run does not have."""
    if len(launch.stages) > len(config.stages):
        raise ConfigError(
            f"launch.stages gives workers to {len(launch.stages)} stages, and the run has {len(config.stages)} "
            f"({', '.join(stage.name for stage in config.stages)}); remove launch.stages.{len(config.stages)}"
        )


def check_output(folder: Path) -> None:
    """Refuse to write into the copy of the project that Ray unpacks for a job: no other node sees it, and it goes."""
    if {"runtime_resources", "working_dir_files"} <= set(folder.parts):
        raise ConfigError(
            f"output.dir: {folder} lies in this job's copy of the working directory, which Ray deletes after the "
            "job and no other node sees; give a folder that every node reads and writes: output.dir=/mnt/shared/runs"
        )


def check_model(config: ModelConfig) -> None:
    """Refuse a local model folder that cannot be loaded, before any process is started for it."""
    if not isinstance(config, PretrainedModel):
        return
    folder = Path(config.path)
    if not folder.is_absolute():
        return
    if not folder.is_dir():
        raise ConfigError(f"model.path: {folder} does not exist; give a Hugging Face model folder or a hub id")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model.path: {folder} has no config.json; it is not a Hugging Face model folder")
    if not list(folder.glob("*.safetensors")):
        raise ConfigError(
            f"model.path: {folder} has no *.safetensors; save the model with safetensors (pickles are refused)"
        )
