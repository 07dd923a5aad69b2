"""Pass 1, for one shard: records into verified rows on disk, refusals on disk, and the shard's index.

A shard's memory is bounded by a batch of rows and by its index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scheduler.task import TaskSpec
from train.config import SPLITS, DataConfig
from train.data.preparing.index import AUTO, IndexBuilder, RefusalCounts, ShardIndex
from train.data.preparing.near import SignatureFile
from train.data.preparing.spill import (
    PROMPT_SCHEMA,
    REFUSAL_SCHEMA,
    ROW_SCHEMA,
    ArrowFile,
    ParquetFile,
    RowBatches,
    part,
)
from train.data.row import Refusal, Row, messages_text
from train.data.sources import Shard, SourcePlan, read_rows
from train.data.verify import verify_row


@dataclass(frozen=True, slots=True)
class ShardToRead:
    """One shard: its number among all, its source's number, and where its records are."""

    number: int
    source: int
    plan: SourcePlan
    shard: Shard


@dataclass(frozen=True, slots=True)
class ReadJob:
    """Reads shards into the spill.

    Attributes:
        config: Review, near duplicates, the sources' splits.
        specs: Task cards by name.
        known_tasks: Where given, a row of any other task is refused.
        seed: Of the ranks.
        spill: Folder of the spill.
    """

    config: DataConfig
    specs: Mapping[str, TaskSpec]
    known_tasks: frozenset[str] | None
    seed: int
    spill: Path

    def __call__(self, item: ShardToRead) -> ShardIndex:
        """Read one shard."""
        split = self.config.sources[item.source].split
        declared_split = item.shard.split if split == "auto" else split
        declared = AUTO if declared_split is None else SPLITS.index(declared_split)
        index, counts = IndexBuilder(self.seed, self.config.difficulty_weights), RefusalCounts()
        num_read, num_prompts = 0, dict[str, int]()
        with (
            ArrowFile(part(self.spill, "rows", item.number), ROW_SCHEMA) as rows_file,
            ParquetFile(part(self.spill, "refused", item.number), REFUSAL_SCHEMA) as refused,
            ParquetFile(part(self.spill, "prompts", item.number), PROMPT_SCHEMA) as prompts,
            SignatureFile(self.spill, item.number, self.config.near_duplicates) as signatures,
        ):
            batches = RowBatches(rows_file)
            for found in read_rows(item.plan, item.shard, self.known_tasks):
                num_read += 1
                verdict = found if isinstance(found, Refusal) else self._verdict(found)
                if isinstance(found, Refusal) or isinstance(verdict, Refusal):
                    assert isinstance(verdict, Refusal)
                    counts.add(item.source, verdict)
                    refused.add({name: getattr(verdict, name) for name in REFUSAL_SCHEMA.names})
                elif not found.answer:
                    num_prompts[found.task] = num_prompts.get(found.task, 0) + 1
                    prompts.add(_prompt_record(found))
                else:
                    index.add(found, declared=declared)
                    batches.add(found, verdict)
                    signatures.add(found)
            batches.flush()
        rows, tasks, files = index.finish()
        return ShardIndex(item.source, rows, tasks, files, num_read, num_prompts, counts)

    def _verdict(self, row: Row) -> tuple[str, ...] | Refusal:
        return verify_row(row, self.specs.get(row.task), self.config)


def _prompt_record(row: Row) -> dict[str, object]:
    return {
        "task": row.task,
        "id": row.id,
        "source": row.source,
        "line": row.line,
        "messages": messages_text(row.messages),
    }
