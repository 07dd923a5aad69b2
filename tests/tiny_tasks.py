"""Three tasks a tiny model can learn a little of in seconds."""

import json
import random
from pathlib import Path


def write_tasks(folder: Path, num_rows: int = 160) -> list[Path]:
    """Three alpaca files a tiny model can learn a little of in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    letters = "abcdef"
    makers = {
        "copy": lambda word: ("copy", " ".join(word), " ".join(word)),
        "last": lambda word: ("last letter", " ".join(word), word[-1]),
        "noise": lambda word: ("guess", " ".join(word), rng.choice(letters)),
    }
    paths = []
    for name, make in makers.items():
        seen: set[str] = set()
        path = folder / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            while len(seen) < num_rows:
                word = "".join(rng.choice(letters) for _ in range(rng.randint(3, 5)))
                if word not in seen:
                    seen.add(word)
                    instruction, given, output = make(word)
                    file.write(json.dumps({"instruction": instruction, "input": given, "output": output}) + "\n")
        paths.append(path)
    return paths
