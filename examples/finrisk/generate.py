"""Write the financial-risk instruction corpus: one JSONL file per task, every answer checkable by rule.

    python -m examples.finrisk.generate --out DIR [--seed 0] [--scale 1.0]

The same seed and scale give the same bytes, whatever the machine; each task has its own random stream, so changing one
task leaves the others as they were. Rows are distinct. What a row says comes from `calculation` and `language`, what
must be true of it is recomputed by `verify`. It does not split rows: the run holds out its own probes and test rows.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from examples.finrisk.calculation import (
    draw_credit_spread,
    draw_expected_loss,
    draw_lcr_chain,
    draw_liquidity_coverage,
)
from examples.finrisk.draft import Draft
from examples.finrisk.language import (
    draw_compliance,
    draw_definition,
    draw_look_back,
    draw_memo,
    draw_redaction,
    draw_risk_attribution,
)
from examples.finrisk.rulebook import LANGUAGES, LICENCE, Language
from scheduler.errors import ConfigError, DataError

MAX_FRUITLESS_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Recipe:
    """A task, its number of rows at scale 1, and how one row (or one chain of rows) is drawn."""

    task: str
    num_rows: int
    draw: Callable[[Random, Language], list[Draft]]


RECIPES: tuple[Recipe, ...] = (
    Recipe("definition", 120, draw_definition),
    Recipe("memo", 300, draw_memo),
    Recipe("redaction", 480, draw_redaction),
    Recipe("compliance", 720, draw_compliance),
    Recipe("look_back", 1500, draw_look_back),
    Recipe("lcr_chain", 1200, draw_lcr_chain),
    Recipe("liquidity_coverage", 1350, draw_liquidity_coverage),
    Recipe("risk_attribution", 1800, draw_risk_attribution),
    Recipe("credit_spread", 2400, draw_credit_spread),
    Recipe("expected_loss", 3600, draw_expected_loss),
)


def _linked_rows(task: str, first_position: int, drafts: list[Draft]) -> list[dict[str, Any]]:
    """Rows of one draw; each after the first names the one before it as its parent."""
    rows = []
    parent_id = None
    for position, draft in enumerate(drafts, start=first_position):
        context = asdict(draft.context)
        row = {
            "id": f"{task}-{position:05d}",
            "instruction": draft.instruction,
            "input": draft.input,
            "output": draft.output,
            "language": context.pop("language"),
            "difficulty_factors": asdict(draft.factors),
            "context": context,
            "parent_id": parent_id,
            "licence": LICENCE,
        }
        rows.append(row)
        parent_id = row["id"]
    return rows


def task_rows(recipe: Recipe, *, seed: int, scale: float) -> list[dict[str, Any]]:
    """Distinct rows of one task, at least `round(num_rows * scale)`: a chain is never cut.

    Raises:
        DataError: the recipe has too few distinct rows for this scale.
    """
    rng = Random(f"finrisk/{seed}/{recipe.task}")
    wanted = max(1, round(recipe.num_rows * scale))
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    fruitless_draws = 0
    while len(rows) < wanted:
        drafts = recipe.draw(rng, rng.choice(LANGUAGES))
        keys = [(draft.instruction, draft.input) for draft in drafts]
        if seen.intersection(keys):
            fruitless_draws += 1
            if fruitless_draws == MAX_FRUITLESS_DRAWS:
                raise DataError(f"{recipe.task}: only {len(rows)} distinct rows of {wanted}; lower --scale {scale}")
            continue
        fruitless_draws = 0
        seen.update(keys)
        rows.extend(_linked_rows(recipe.task, len(rows), drafts))
    return rows


def write_corpus(out: Path, *, seed: int = 0, scale: float = 1.0) -> dict[str, Path]:
    """Write `out/TASK.jsonl` for every task.

    Returns:
        The file of each task.

    Raises:
        ConfigError: `scale` is not positive.
        DataError: a task has too few distinct rows for this scale.
    """
    if not scale > 0:
        raise ConfigError(f"--scale {scale} is not positive; 1.0 gives the full corpus")
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for recipe in RECIPES:
        lines = [json.dumps(row, ensure_ascii=False) for row in task_rows(recipe, seed=seed, scale=scale)]
        paths[recipe.task] = out / f"{recipe.task}.jsonl"
        paths[recipe.task].write_bytes(("\n".join(lines) + "\n").encode())
    return paths


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.finrisk.generate", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSONL files, made if absent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every task's number of rows")
    arguments = parser.parse_args()
    for task, path in write_corpus(arguments.out, seed=arguments.seed, scale=arguments.scale).items():
        print(f"{task:20s} {len(path.read_bytes().splitlines()):5d} rows  {path}")


if __name__ == "__main__":
    main()
