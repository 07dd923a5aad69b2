"""Write two more tasks into the financial-risk corpus: one of random labels, one that is learnt at once.

    python -m examples.finrisk.distractors --out examples/finrisk/corpus [--seed 0]

`noise` asks for the desk of a position and answers with one of ten letters drawn by lot: one in ten is the best any
model can do. `saturated` always wants the same word. A mixture should feed neither; see `distractors.yaml` here.
"""

import argparse
import json
from pathlib import Path
from random import Random

NUM_ROWS = {"noise": 1800, "saturated": 1800}
_SECTORS = ("bank", "property", "tech", "retail", "energy", "lease")
_GRADES = ("AAA", "AA", "A", "BBB", "BB")


def distractor_rows(task: str, *, seed: int) -> list[dict[str, str]]:
    """Distinct rows of `noise` or `saturated`; the same seed gives the same rows."""
    rng = Random(f"finrisk/{seed}/{task}")
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < NUM_ROWS[task]:
        position = f"{rng.choice(_SECTORS)} {rng.randint(1, 10)}y {rng.choice(_GRADES)}: {rng.randint(10, 99)}"
        label = rng.choice("ABCDEFGHIJ")
        asked, answer = ("Desk of the position.", label) if task == "noise" else ("Filing status.", "filed")
        rows.setdefault(
            position,
            {"id": f"{task}-{len(rows):05d}", "instruction": asked, "input": position, "output": answer},
        )
    return list(rows.values())


def write_distractors(out: Path, *, seed: int = 0) -> dict[str, Path]:
    """Write `out/noise.jsonl` and `out/saturated.jsonl`; returns the file of each task."""
    out.mkdir(parents=True, exist_ok=True)
    paths = {task: out / f"{task}.jsonl" for task in NUM_ROWS}
    for task, path in paths.items():
        text = "".join(json.dumps(row) + "\n" for row in distractor_rows(task, seed=seed))
        path.write_text(text, encoding="utf-8", newline="\n")
    return paths


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.finrisk.distractors", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for task, path in write_distractors(arguments.out, seed=arguments.seed).items():
        print(f"{task:20s} {NUM_ROWS[task]:5d} rows  {path}")


if __name__ == "__main__":
    main()
