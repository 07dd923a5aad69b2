"""What is refused or noted once the data is prepared."""

from pathlib import Path

from cluster.config import RunConfig
from cluster.setup import gather_inputs
from tests.tiny_tasks import write_tasks


def notes(folder: Path, *, interval_steps: int) -> tuple[str, ...]:
    write_tasks(folder / "rows", num_rows=60)
    config = RunConfig.model_validate(
        {
            "model": {"type": "tiny", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300},
            "data": {"sources": [str(path) for path in sorted((folder / "rows").glob("*.jsonl"))]},
            "train": {"steps": 400, "global_batch_size": 6, "micro_batch_size": 3},
            "stages": [{"name": "tasks"}],
            "mixture": {"interval_steps": interval_steps},
            "output": {"dir": str(folder / "out")},
        }
    )
    return gather_inputs(config).notes


def test_an_evaluation_that_computes_much_beside_training_is_noted_with_what_to_change(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, interval_steps=2)
    assert note.startswith("an evaluation computes about ")
    assert "raise mixture.interval_steps" in note
    assert notes(tmp_path, interval_steps=200) == ()
