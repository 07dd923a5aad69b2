"""Difficulty: what the four factors count, and which level a held-out row belongs to."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from scheduler.task import TaskSpec
from tests.unit.train.data.preparing.test_pipeline import run, write_rows
from train.config import DifficultyWeights
from train.data.levels import held_out_levels
from train.data.store import TokenStore


def test_the_score_is_the_weighted_mean_of_the_four_factors() -> None:
    assert DifficultyWeights().score((1.0, 2.0, 3.0, 6.0)) == 3.0
    assert DifficultyWeights(knowledge_breadth=0, constraints=3, ambiguity=0).score((9.0, 2.0, 6.0, 9.0)) == 5.0
    with pytest.raises(ValidationError, match="give at least one of them a weight"):
        DifficultyWeights(knowledge_breadth=0, reasoning_steps=0, constraints=0, ambiguity=0)


def levelled_store(folder: Path, **settings: object) -> TokenStore:
    """Rows of rising reasoning and falling constraints; every seventh has no factors."""
    rows = [
        {"id": f"r{n}", "instruction": f"q{n}", "output": "a"}
        | ({} if n % 7 == 0 else {"difficulty_factors": [0, n % 10, 0.5 * (9 - n % 10), 0]})
        for n in range(200)
    ]
    folder.mkdir(exist_ok=True)
    source = write_rows(folder / "rows.jsonl", rows)
    prepared = run(folder / "out", [source], specs={"rows": TaskSpec(name="rows", difficulty_levels=3)}, **settings)
    return TokenStore.open(prepared.store_path)


def test_a_held_out_row_is_of_the_level_whose_training_rows_are_as_hard(tmp_path: Path) -> None:
    store = levelled_store(tmp_path)
    sizes, trained = store.level_sizes(0), store.difficulty(0)
    level_of = dict(zip(trained.tolist(), np.repeat(np.arange(len(sizes)), sizes).tolist(), strict=True))
    levels = held_out_levels(store, 0, "probe")
    assert levels is not None
    assert set(levels.tolist()) == {0, 1, 2}
    for score, level in zip(store.difficulty(0, "probe").tolist(), levels.tolist(), strict=True):
        if not np.isnan(score):
            assert level == level_of[score]
    unrated = levels[np.isnan(store.difficulty(0, "probe"))]
    assert len(unrated) > 0
    assert set(unrated.tolist()) == {level for score, level in level_of.items() if np.isnan(score)} == {1}


def test_other_weights_give_other_levels(tmp_path: Path) -> None:
    only_constraints = {"knowledge_breadth": 0, "reasoning_steps": 0, "ambiguity": 0}
    plain, other = (
        levelled_store(tmp_path / name, **settings)
        for name, settings in (("plain", {}), ("other", {"difficulty_weights": only_constraints}))
    )
    for store, sign in ((plain, 1), (other, -1)):
        ids = [store.row_id(0, row) for row in range(store.num_rows(0))]
        reasoning = np.array([int(name[1:]) % 10 for name in ids])
        known = ~np.isnan(store.difficulty(0))
        levels = np.repeat(np.arange(3), store.level_sizes(0))
        assert sign * np.corrcoef(reasoning[known], levels[known])[0, 1] > 0.8


def test_a_task_of_one_level_has_no_levels(tmp_path: Path) -> None:
    rows = [{"instruction": f"q{n}", "output": "a"} for n in range(40)]
    prepared = run(tmp_path / "out", [write_rows(tmp_path / "rows.jsonl", rows)])
    assert held_out_levels(TokenStore.open(prepared.store_path), 0, "probe") is None
