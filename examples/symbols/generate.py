"""Write the symbol corpus: one alpaca JSONL file per task.

    python -m examples.symbols.generate --out examples/symbols/corpus [--seed 0] [--variant noise_saturated_duplicate]

The same arguments give the same bytes. Files of tasks outside the chosen variant are left as they are.
"""

import argparse
import json
from pathlib import Path
from typing import get_args

from examples.symbols.tasks import Variant, generate_rows, tasks_of


def write_corpus(out: Path, *, seed: int, variant: Variant) -> dict[str, int]:
    """Write `<task>.jsonl` for every task of the variant into `out`; return the rows written per task."""
    out.mkdir(parents=True, exist_ok=True)
    num_rows = {}
    for task in tasks_of(variant):
        rows = generate_rows(task, seed=seed)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (out / f"{task.name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        num_rows[task.name] = len(rows)
    return num_rows


def main(arguments: list[str] | None = None) -> None:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(prog="python -m examples.symbols.generate", description="Write the symbol corpus.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSONL files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=get_args(Variant), default="base")
    options = parser.parse_args(arguments)
    num_rows = write_corpus(options.out, seed=options.seed, variant=options.variant)
    for name, count in num_rows.items():
        print(f"{name:<16}{count:>7,}")
    print(f"{'total':<16}{sum(num_rows.values()):>7,} rows in {options.out}")


if __name__ == "__main__":
    main()
