"""What is refused or noted once the data is prepared."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import dynamic_module_utils

from cluster.config import RunConfig
from cluster.setup import Inputs, gather_inputs
from scheduler.curriculum import Curriculum
from scheduler.errors import ConfigError
from tests.tiny_tasks import write_tasks
from tests.unit.scheduler.made import evaluation, signal
from tests.unit.small_models import save_tokenizer_with_own_code
from train.data.levels import held_out_levels
from train.data.store import TokenStore

TINY = {"type": "tiny", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
SHORT_ANSWERS = {"max_new_tokens": 8, "sampled_probes": 1, "samples_per_probe": 2}


def notes(folder: Path, *, interval_steps: int) -> tuple[str, ...]:
    write_tasks(folder / "rows", num_rows=60)
    config = RunConfig.model_validate(
        {
            "model": TINY,
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


def levelled(folder: Path, *, levels: dict[str, int], num_rows: int = 120, **settings: Any) -> Inputs:
    """Inputs of a run of tasks whose rows are of so many difficulty levels; `settings` are sections of the config."""
    folder.mkdir(exist_ok=True)
    for name, count in levels.items():
        rows = (
            {
                "instruction": name,
                "input": f"{number:03d}",
                "output": "x",
                "difficulty_factors": [number % count, 1, 1, 1],
            }
            for number in range(num_rows)
        )
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sections: dict[str, Any] = {
        "model": TINY,
        "data": {"sources": [str(folder / f"{name}.jsonl") for name in levels]},
        "train": {"steps": 400, "global_batch_size": 6, "micro_batch_size": 3},
        "stages": [{"name": "tasks"}],
        "evaluation": SHORT_ANSWERS,
        "output": {"dir": str(folder / "out")},
    }
    data = {**sections["data"], **settings.pop("data", {})}
    return gather_inputs(RunConfig.model_validate({**sections, **settings, "data": data}))


@pytest.mark.parametrize(
    ("num_probes", "promote_at", "bound"),
    [(6, 0.7, "0.689"), (7, 0.7, None), (10, 0.8, "0.787"), (11, 0.8, None), (20, 0.9, "0.881")],
)
def test_a_curriculum_that_no_result_can_promote_is_noted_with_probes_bound_and_remedy(
    tmp_path: Path, num_probes: int, promote_at: float, bound: str | None
) -> None:
    found = levelled(
        tmp_path,
        levels={"climb": 2},
        data={"probes_per_task": num_probes},
        mixture={"curriculum": {"promote_at": promote_at}},
    )
    told = [note for note in found.notes if note.startswith("no result can promote")]
    expected = (
        f"no result can promote climb from levels 1 to 2 (probes: {num_probes}, best bound: {bound}): the Wilson lower "
        f"bound must be above mixture.curriculum.promote_at {promote_at}; lower it, or raise data.probes_per_task"
    )
    assert told == ([] if bound is None else [expected])


@pytest.mark.parametrize("promote_at", [0.6, 0.7, 0.8])
def test_the_windows_that_are_noted_are_those_a_curriculum_never_leaves_on_right_answers_alone(
    tmp_path: Path, promote_at: float
) -> None:
    found = levelled(
        tmp_path,
        levels={"climb": 3, "steep": 4},
        data={"probes_per_task": 14},
        tasks={"steep": {"difficulty_levels": 4}},
        mixture={"curriculum": {"promote_at": promote_at, "promote_evaluations": 1}},
    )
    store, config = TokenStore.open(found.prepared.store_path), found.engine.mixture.curriculum
    assert config is not None
    num_levels = tuple(map(len, found.engine.level_sizes))
    assert num_levels == (3, 4)
    right = []
    for task, name in enumerate(store.task_names):
        levels = held_out_levels(store, task, "probe")
        assert levels is not None
        counts = tuple(np.bincount(levels).tolist())
        right.append(signal(name, num_probes=14, level_probes=counts, level_successes=tuple(map(float, counts))))
    stuck = set()
    for task, name in enumerate(store.task_names):
        for phase in range(num_levels[task] - 1):
            curriculum = Curriculum(config, names=store.task_names, num_levels=num_levels)
            curriculum.phase[task] = phase
            moved = {move.task for move in curriculum.observe(evaluation(*right), progress=0.1)}
            if name not in moved:
                stuck.add((name, phase + 1))
    told = {
        (name, int(first)) for note in found.notes for name, first in re.findall(r"(\w+) from levels? (\d) to \d", note)
    }
    assert told == stuck


@pytest.mark.parametrize(
    ("allocation", "probes"),
    [
        ({"type": "uniform", "probes_per_task": 6}, 6),
        ({"type": "adaptive", "probes_per_task": 5}, 5),
        ({"type": "uniform"}, None),
    ],
)
def test_only_the_probes_that_an_evaluation_reads_count_for_a_promotion(
    tmp_path: Path, allocation: dict[str, Any], probes: int | None
) -> None:
    found = levelled(
        tmp_path,
        levels={"climb": 2},
        data={"probes_per_task": 20},
        mixture={"allocation": allocation, "curriculum": {}},
    )
    told = [note for note in found.notes if note.startswith("no result can promote")]
    if probes is None:
        assert told == []
    else:
        assert f"climb from levels 1 to 2 (probes: {probes}, " in told[0]
        assert told[0].endswith("raise data.probes_per_task and mixture.allocation.probes_per_task")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"stages": [{"name": "only", "difficulty": {"last": 2}}]}, "stages.0.difficulty is set, "),
        ({"mixture": {"curriculum": {}}}, "mixture.curriculum is set, "),
    ],
)
def test_levels_are_refused_where_no_task_has_any_and_noted_where_some_have_none(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(named) + "but no task has .* more than one difficulty level"):
        levelled(tmp_path, levels={"flat": 1, "even": 1}, **settings)
    setting = named.split(" ", maxsplit=1)[0]
    found = levelled(tmp_path, levels={"flat": 1, "climb": 3}, **settings)
    assert f"flat: one difficulty level only, so {setting} does nothing there" in found.notes


def test_a_tokenizer_with_code_of_its_own_is_prepared_and_evaluated_with_if_that_code_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    save_tokenizer_with_own_code(tmp_path / "base")
    model = {"type": "pretrained", "path": str(tmp_path / "base"), "trust_remote_code": True}
    found = levelled(tmp_path / "rows", levels={"TASK": 1}, num_rows=60, model=model)
    assert "OwnTokenizer" in type(found.prepared.tokenizer).__name__
    row = TokenStore.open(found.prepared.store_path).encoded(0, 0)
    assert found.prepared.tokenizer.decode(row.input_ids).startswith("task")
    with pytest.raises(ConfigError, match=r"(?s)model\.path: no tokenizer can be loaded .*trust_remote_code"):
        levelled(tmp_path / "rows", levels={"TASK": 1}, num_rows=60, model={**model, "trust_remote_code": False})
