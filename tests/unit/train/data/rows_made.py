"""Rows and indexes for tests of the data plane."""

from collections.abc import Sequence
from dataclasses import replace

from train.config import SPLITS, DifficultyWeights
from train.data.preparing.index import AUTO, Index, IndexBuilder, RefusalCounts, ShardIndex, join
from train.data.row import Lineage, Row, hash_content


def make_row(task: str, content: int | str, *, answer: str = "x", line: int | None = None, **changes: object) -> Row:
    """A row whose prompt is `content`; its line is the content's number unless given."""
    messages = (("user", str(content)),)
    number = line if line is not None else content if isinstance(content, int) else 1
    row = Row(
        id=f"{task}:{content}",
        task=task,
        messages=messages,
        answer=answer,
        source=f"{task}.jsonl",
        line=number,
        parent_id=None,
        lineage=Lineage(),
        content_hash=hash_content(messages, answer),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def make_index(rows: Sequence[Row], *, seed: int = 0, declared: Sequence[str] = (), shard_rows: int = 7) -> Index:
    """The index of these rows, cut into shards of a few rows; `declared` gives a set or "auto" for every row."""
    codes = [AUTO if name == "auto" else SPLITS.index(name) for name in declared] or [AUTO] * len(rows)
    shards = []
    for start in range(0, max(1, len(rows)), shard_rows):
        builder = IndexBuilder(seed, DifficultyWeights())
        for row, code in list(zip(rows, codes, strict=True))[start : start + shard_rows]:
            builder.add(row, declared=code)
        found, tasks, files = builder.finish()
        shards.append(ShardIndex(0, found, tasks, files, len(found), {}, RefusalCounts()))
    return join(shards)
