"""A small, real run for the integration tests: own JSONL files, a tiny model, real Ray, real processes."""

import os
import sys
from pathlib import Path

from cluster.config import LaunchConfig, RunConfig
from cluster.run import start_run
from cluster.settings import load_config
from tests.tiny_tasks import write_tasks

_PROJECT = Path(__file__).parents[2]


def write_config(folder: Path, extra: str = "") -> Path:
    """A RunConfig over `write_tasks`, forty steps with an evaluation every ten."""
    paths = write_tasks(folder / "data")
    config = folder / "run.yaml"
    config.write_text(
        f"""
model: {{type: tiny, hidden_size: 32, num_layers: 1, num_heads: 2, vocab_size: 300}}
data: {{sources: [{", ".join(str(path) for path in paths)}], probes_per_task: 16, test_per_task: 8}}
train: {{steps: 40, global_batch_size: 8, micro_batch_size: 4, learning_rate: 3e-3, checkpoint_every_intervals: 1}}
mixture: {{interval_steps: 10}}
evaluation: {{max_new_tokens: 8, sampled_probes: 4}}
output: {{dir: {folder / "runs"}}}
{extra}
""",
        encoding="utf-8",
    )
    return config


def start(folder: Path, name: str, *overrides: str, num_workers: int = 2, cpus_per_worker: float = 1.0) -> Path:
    """Run to the end inside this process, on the Ray it is connected to; returns the run's directory."""
    config = load_config(RunConfig, files=[write_config(folder)], overrides=[f"output.name={name}", *overrides])
    start_run(config, LaunchConfig(num_workers=num_workers, cpus_per_worker=cpus_per_worker))
    return config.output.dir / name


def command(*arguments: str) -> list[str]:
    """The real command line."""
    return [sys.executable, "-m", "cluster", *arguments]


def environment() -> dict[str, str]:
    """This process's environment, with the project importable and no compute threads to spare."""
    return {**os.environ, "PYTHONPATH": str(_PROJECT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
