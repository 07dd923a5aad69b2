"""The four passes in order, and what each hands to the next."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scheduler.errors import DataError
from scheduler.task import TaskSpec
from train.config import SPLITS, DataConfig
from train.data.arrangement import CHAIN, CONTRAST
from train.data.files import Shard, is_url
from train.data.preparing.arranging import MAX_ANCESTORS
from train.data.preparing.decide import (
    Decision,
    count_refusals,
    decide,
    refusals_of,
    require_all_splits,
    require_disjoint,
)
from train.data.preparing.encoding import EncodeJob, Encoder, ShardToEncode
from train.data.preparing.execute import Executor, Result
from train.data.preparing.index import Index, RefusalCounts, ShardIndex, join
from train.data.preparing.layout import Layout, find_contrasts, lay_out
from train.data.preparing.near import find_near_pairs
from train.data.preparing.progress import Progress
from train.data.preparing.reading import ReadJob, ShardToRead
from train.data.preparing.relations import Relations, ancestors, find_canonical, relate
from train.data.preparing.sampling import sample_rows, sampled_texts
from train.data.preparing.sorting import ShardToSort, SortJob
from train.data.preparing.spill import PROMPT_SCHEMA, ParquetFile
from train.data.preparing.writing import StoreJob, TaskTotals
from train.data.row import UNCOUNTED_RULES
from train.data.sources import SourcePlan, open_source
from train.data.split import TRAIN
from train.data.summary import SourceSummary, Summary, TaskSummary
from train.data.verify import require_acceptable, require_enough_rows, write_quarantine
from train.tokenizer import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class _Read:
    """What pass 1 found."""

    plans: Sequence[SourcePlan]
    index: Index
    num_read: Counter[int]
    num_prompts: Counter[str]
    refusals: RefusalCounts


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One preparation; the arguments are those of `train.data.prepare.prepare`."""

    config: DataConfig
    specs: Mapping[str, TaskSpec]
    make_tokenizer: "Callable[[Iterator[str]], PreTrainedTokenizerBase]"
    chat_template: ChatTemplate
    out_dir: Path
    seed: int
    known_tasks: frozenset[str] | None
    arrangements: frozenset[int]
    max_arranged_length: int
    executor: Executor
    progress: Progress
    shard_bytes: int
    file_hashes: Mapping[str, str]

    def run(self, folder: Path, spill: Path) -> Summary:
        """Write everything but the summary into `folder`.

        Raises:
            DataError: The data cannot be trained on; the refusals so far are in `out_dir/quarantine.parquet`.
        """
        read = self._read(spill)
        index, refusals = read.index, read.refusals
        canonical = find_canonical(index)
        near = find_near_pairs(index, canonical, self.config.near_duplicates, spill, self.executor)
        together = self.config.near_duplicates is not None and self.config.near_duplicates.action == "keep_together"
        relations = relate(index, canonical, near, join_near=together)
        alive = np.ones(len(index.rows), dtype=bool)
        decision = self._decide(read, relations, alive, spill)
        encoder = self._encoder(index, decision, folder, spill)
        alive = self._encode(index, relations, encoder, spill, refusals)
        if not alive.all():
            decision = self._decide(read, relations, alive, spill)
        require_disjoint(index, decision.sets)
        totals, layout = self._store(index, relations, decision, encoder, folder, spill)
        write_quarantine(
            folder / "quarantine.parquet",
            refusals_of(index, relations, decision, self.config),
            parts=self._refused_parts(spill),
        )
        self._write_prompts(folder, spill)
        refusals.by_rule.update(count_refusals(index, decision))
        return self._summary(read, layout, totals)

    def _read(self, spill: Path) -> _Read:
        plans = [open_source(source, self.config, shard_bytes=self.shard_bytes) for source in self.config.sources]
        cut = [(source, plan, shard) for source, plan in enumerate(plans) for shard in plan.shards]
        items = [
            ShardToRead(number, source, replace(plan, shards=()), shard)
            for number, (source, plan, shard) in enumerate(cut)
        ]
        sizes = [_num_bytes(item.shard) for item in items]
        job = ReadJob(self.config, self.specs, self.known_tasks, self.seed, spill)
        found: list[ShardIndex] = []
        refusals, num_read, num_prompts = RefusalCounts(), Counter[int](), Counter[str]()
        for shard in self._tracked("read", "bytes", self.executor.map(job, items), sizes):
            refusals.merge(shard.refusals)
            num_read[shard.source] += shard.num_read
            num_prompts.update(shard.num_prompts)
            found.append(shard)
        return _Read(plans, join(found), num_read, num_prompts, refusals)

    def _decide(self, read: _Read, relations: Relations, alive: np.ndarray, spill: Path) -> Decision:
        """Decide, or stop: too many refused, too few left."""
        index, quarantine = read.index, self.out_dir / "quarantine.parquet"
        distinct = (relations.canonical == np.arange(len(alive))) & alive
        counted = Counter[str]()
        for (_, rule), count in read.refusals.by_rule.items():
            counted[rule] += 0 if rule in UNCOUNTED_RULES else count
        num_rows = np.bincount(index.rows["task"][distinct], minlength=len(index.tasks)).tolist()
        try:
            require_acceptable(
                +counted,
                read.refusals.first,
                num_read=read.num_read.total(),
                max_refused_ratio=self.config.max_refused_ratio,
                quarantine=quarantine,
            )
            require_enough_rows(dict(zip(index.tasks, num_rows, strict=True)), self._sources_of_task(read))
            decision = decide(index, relations, self.config, alive=alive)
            require_all_splits(index, decision.sets)
        except DataError:
            write_quarantine(quarantine, (), parts=self._refused_parts(spill))
            raise
        return decision

    def _sources_of_task(self, read: _Read) -> dict[str, list[str]]:
        """Every task that a row or a card names, with the files its rows stand in; not those that are prompts alone."""
        index = read.index
        pairs = np.unique(index.rows["task"].astype(np.int64) * max(1, len(index.files)) + index.rows["file"])
        sources: dict[str, dict[str, None]] = {name: {} for name in index.tasks}
        for task, file in zip(*np.divmod(pairs, max(1, len(index.files))), strict=True):
            sources[index.tasks[int(task)]][index.files[int(file)][1]] = None
        for task, files in read.refusals.files_of_task.items():
            sources.setdefault(task, {}).update(files)
        for task in self.specs:
            sources.setdefault(task, {})
        is_prompts = read.num_prompts.keys() - set(index.tasks)
        return {task: list(files) for task, files in sources.items() if task not in is_prompts}

    def _encoder(self, index: Index, decision: Decision, folder: Path, spill: Path) -> Encoder:
        rows = sample_rows(index, decision.sets == TRAIN)
        tokenizer = self.make_tokenizer(sampled_texts(index, rows, spill))
        tokenizer.save_pretrained(folder / "tokenizer")
        encoder = Encoder(spill / "tokenizer", self.chat_template, self.config.loss_on, self.config.max_length)
        encoder.save(tokenizer)
        return encoder

    def _encode(
        self, index: Index, relations: Relations, encoder: Encoder, spill: Path, refusals: RefusalCounts
    ) -> np.ndarray:
        """Encode every distinct row, also those that leak now: without the refused ones they may not leak any more."""
        distinct = relations.canonical == np.arange(len(index.rows))
        source = [
            index.files[index.rows["file"][start]][0] if start < len(index.rows) else 0
            for start in index.shard_starts[:-1].tolist()
        ]
        items = [ShardToEncode(n, source[n], distinct[index.shard_slice(n)]) for n in range(len(source))]
        sizes = np.diff(index.shard_starts).tolist()
        alive = np.ones(len(index.rows), dtype=bool)
        results = self._tracked("tokenise", "rows", self.executor.map(EncodeJob(encoder, spill), items), sizes)
        for number, result in enumerate(results):
            refusals.merge(result.refusals)
            alive[index.shard_slice(number)] = (result.lengths > 0) | ~items[number].wanted
        return alive

    def _store(
        self, index: Index, relations: Relations, decision: Decision, encoder: Encoder, folder: Path, spill: Path
    ) -> tuple[TaskTotals, Layout]:
        layout = lay_out(index, decision.sets, self.specs)
        in_context = replace(encoder, max_length=self.max_arranged_length)
        job = SortJob(spill, in_context, self.arrangements, index.shard_starts, layout.segments)
        items = self._items_to_sort(index, relations, layout)
        sizes = np.diff(index.shard_starts).tolist()
        files = [
            path for paths in self._tracked("sort", "rows", self.executor.map(job, items), sizes) for path in paths
        ]
        store = folder / "store"
        store.mkdir()
        totals = TaskTotals.zero(len(index.tasks))
        for done in StoreJob(index, layout, self.specs, self.file_hashes).write(store, files):
            if isinstance(done, TaskTotals):
                totals = done
            else:
                self.progress.update("write", done=done, total=len(layout.order), unit="rows")
        return totals, layout

    def _items_to_sort(self, index: Index, relations: Relations, layout: Layout) -> list[ShardToSort]:
        is_train = np.append(layout.sets == TRAIN, False)
        parent = np.where(is_train[relations.parent], relations.parent, -1)
        chained = np.flatnonzero(is_train[:-1] & (parent >= 0)) if CHAIN in self.arrangements else np.empty(0, np.int64)
        contrast = np.full(len(index.rows), -1, dtype=np.int64)
        if CONTRAST in self.arrangements:
            contrast = find_contrasts(index, relations, layout.sets, self.specs, seed=self.seed)
        items = []
        for number in range(len(index.shard_starts) - 1):
            rows = index.shard_slice(number)
            first, last = np.searchsorted(chained, [rows.start, rows.stop])
            chains = {
                row - rows.start: tuple(ancestors(parent, row, limit=MAX_ANCESTORS))
                for row in chained[first:last].tolist()
            }
            items.append(ShardToSort(number, layout.position[rows], chains, contrast[rows]))
        return items

    def _refused_parts(self, spill: Path) -> list[Path]:
        return [*sorted(spill.glob("refused-*.parquet")), *sorted(spill.glob("faults-*.parquet"))]

    def _write_prompts(self, folder: Path, spill: Path) -> None:
        with ParquetFile(folder / "prompts.parquet", PROMPT_SCHEMA) as file:
            for path in sorted(spill.glob("prompts-*.parquet")):
                file.add_file(path)

    def _summary(self, read: _Read, layout: Layout, totals: TaskTotals) -> Summary:
        by_source: dict[int, Counter[str]] = {}
        for (source, rule), count in read.refusals.by_rule.items():
            by_source.setdefault(source, Counter())[rule] += count
        sources = tuple(
            SourceSummary(
                path=plan.path,
                form=plan.form,
                num_read=read.num_read[number],
                refused=dict(by_source.get(number, Counter()).most_common()),
                unread_columns=plan.unread_columns,
            )
            for number, plan in enumerate(read.plans)
        )
        tasks = tuple(self._task_summary(number, name, layout, totals) for number, name in enumerate(read.index.tasks))
        return Summary(sources, tasks, prompts=dict(read.num_prompts), file_hashes=dict(self.file_hashes))

    @staticmethod
    def _task_summary(number: int, name: str, layout: Layout, totals: TaskTotals) -> TaskSummary:
        counts = {f"num_{split}": int(layout.num_rows[place, number]) for place, split in enumerate(SPLITS)}
        num_train = counts["num_train"]
        return TaskSummary(
            task=name,
            **counts,
            mean_tokens=float(totals.num_tokens[number] / num_train),
            mean_supervised_tokens=float(totals.num_supervised[number] / num_train),
            num_flagged=int(totals.num_flagged[number]),
            num_chains=int(totals.num_chains[number]),
            num_contrasts=int(totals.num_contrasts[number]),
            level_sizes=layout.level_sizes[number],
        )

    def _tracked(self, phase: str, unit: str, results: Iterable[Result], sizes: Sequence[int]) -> Iterator[Result]:
        total, done = sum(sizes), 0
        self.progress.update(phase, done=0, total=total, unit=unit)
        for size, result in zip(sizes, results, strict=True):
            done += size
            self.progress.update(phase, done=done, total=total, unit=unit)
            yield result


def _num_bytes(shard: Shard) -> int:
    """What is to be read, for progress; 0 where it costs too much to know."""
    if shard.kind == "lines":
        return shard.part.end - shard.part.start
    return 0 if is_url(shard.file.path) else os.stat(shard.file.path).st_size
