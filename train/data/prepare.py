"""Files in, training data out: read, verify, tokenise, split, write.

    sources ─ read ─► rows ─ verify ─► rows ─ tokenise ─► rows ─ split ─► <out_dir>/<key>/  store/  tokenizer/
                └────────────────┴──── refusals ───┴─────────────────┘                      quarantine.parquet
                                                                                            summary.json

The folder's name is a hash of all that goes into it, and the folder appears under that name only when complete, so a
second preparation of the same data finds it and does not tokenise again. A tokenizer may be trained on the training
rows, so a provisional split comes before tokenising; it is the final one unless tokenising refuses rows.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.errors import DataError
from scheduler.task import TaskSpec
from train.config import DataConfig
from train.data.row import Refusal, Row, refuse
from train.data.sources import SourceRows, read_source
from train.data.split import SPLITS, TaskSplit, check_disjoint, require_all_splits, split_rows
from train.data.store import SCHEMA_VERSION, TokenStore, write_split
from train.data.summary import Summary, summarise_sources, summarise_tasks
from train.data.verify import require_acceptable, require_enough_rows, verify, write_quarantine
from train.tokenizer import ChatTemplate, Encoded, EncodingFault, encode_examples, fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK_ROWS = 1024

MakeTokenizer = Callable[[Iterator[str]], "PreTrainedTokenizerBase"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data ready to train on.

    Attributes:
        path: The complete folder; `store_path` and `tokenizer_path` lie in it.
        summary: What was read, refused and kept.
        tokenizer: The tokenizer the rows were encoded with.
        task_names: In order of first appearance in the sources; a task's place here is its number in the store.
        num_rows: By split (train, probe, test), rows per task in the order of `task_names`.
    """

    path: Path
    summary: Summary
    tokenizer: "PreTrainedTokenizerBase"
    task_names: tuple[str, ...]
    num_rows: dict[str, tuple[int, ...]]

    @property
    def store_path(self) -> Path:
        """Folder for `TokenStore.open`."""
        return self.path / "store"

    @property
    def tokenizer_path(self) -> Path:
        """Folder for `AutoTokenizer.from_pretrained`."""
        return self.path / "tokenizer"


def prepare(
    config: DataConfig,
    *,
    specs: Mapping[str, TaskSpec],
    make_tokenizer: MakeTokenizer,
    chat_template: ChatTemplate,
    out_dir: Path,
    seed: int,
    known_tasks_only: bool = False,
) -> Prepared:
    """Prepare the data of a run, or find it prepared.

    Args:
        config: Sources and limits.
        specs: Task cards by name; a task without a card has no output rules.
        make_tokenizer: Gives the tokenizer; it may read the texts of the training rows it is handed, once.
        chat_template: How prompts are rendered (see `train.tokenizer`).
        out_dir: Where prepared folders are kept. When too many rows are refused, `quarantine.parquet` is written here.
        seed: Decides which rows are held out.
        known_tasks_only: Refuse rows of tasks that have no card.

    Raises:
        DataError: A source cannot be read, too many rows are refused, a task has too few rows, or a card has no rows.
    """
    known_tasks = frozenset(specs) if known_tasks_only else None
    sources = [read_source(source, known_tasks=known_tasks) for source in config.sources]
    read_refusals = [refusal for source in sources for refusal in source.refusals]
    rows, broken = verify((row for source in sources for row in source.rows), specs)
    job = _Job(config=config, sources=sources, specs=specs, out_dir=out_dir, seed=seed)
    verified = job.split(rows, read_refusals + broken)
    tokenizer = make_tokenizer(_texts(verified.splits))
    path = out_dir / _key(job, verified, tokenizer, chat_template)
    if not path.exists():
        encoded, faults = _tokenise(rows, tokenizer, chat_template, max_length=config.max_length)
        final = verified
        if faults:
            kept = [row for row in rows if (row.task, row.content_hash) in encoded]
            final = job.split(kept, read_refusals + broken + faults)
        _write(path, job, final, encoded, tokenizer)
    return _open(path, tokenizer)


@dataclass(frozen=True, slots=True)
class _Split:
    splits: dict[str, TaskSplit]
    refusals: list[Refusal]


@dataclass(frozen=True, slots=True)
class _Job:
    config: DataConfig
    sources: list[SourceRows]
    specs: Mapping[str, TaskSpec]
    out_dir: Path
    seed: int

    def split(self, rows: Sequence[Row], refusals: list[Refusal]) -> _Split:
        """Split the rows that are left, or stop: too many refused, too few left. `refusals` are those so far."""
        quarantine = self.out_dir / "quarantine.parquet"
        try:
            require_acceptable(
                refusals,
                num_read=sum(source.num_read for source in self.sources),
                max_refused_ratio=self.config.max_refused_ratio,
                quarantine=quarantine,
            )
            require_enough_rows(rows, self._sources_of_task(refusals))
            splits, leaks = split_rows(rows, self.config, seed=self.seed)
            check_disjoint(splits)
            require_all_splits(splits)
        except DataError:
            write_quarantine(quarantine, refusals)
            raise
        return _Split(splits, refusals + leaks)

    def _sources_of_task(self, refusals: Sequence[Refusal]) -> dict[str, list[str]]:
        """Every task that a row or a card names, with the files its rows stand in."""
        sources: dict[str, dict[str, None]] = {}
        for source in self.sources:
            for row in source.rows:
                sources.setdefault(row.task, {})[row.source] = None
        for refusal in refusals:
            if refusal.task:
                sources.setdefault(refusal.task, {})[refusal.source] = None
        for task in self.specs:
            sources.setdefault(task, {})
        return {task: list(paths) for task, paths in sources.items()}


def _texts(splits: Mapping[str, TaskSplit]) -> Iterator[str]:
    """Texts of the training rows, one row of every task in turn: a reader that stops early has seen all tasks."""
    for place in range(max(len(split.train) for split in splits.values())):
        for split in splits.values():
            for row in split.train[place : place + 1]:
                yield from (content for _, content in row.messages)
                yield row.answer


def _tokenise(
    rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", chat_template: ChatTemplate, *, max_length: int
) -> tuple[dict[tuple[str, str], Encoded], list[Refusal]]:
    """Encoded rows by (task, content hash), and refusals of those that cannot be encoded or are too long."""
    encoded: dict[tuple[str, str], Encoded] = {}
    refusals: list[Refusal] = []
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        results = encode_examples(tokenizer, [(row.messages, row.answer) for row in chunk], chat_template)
        for row, result in zip(chunk, results, strict=True):
            if isinstance(result, EncodingFault):
                refusals.append(refuse(row, rule=result.rule, reason=result.reason))
            elif len(result.input_ids) > max_length:
                reason = f"{len(result.input_ids)} tokens of prompt and answer, more than max_length {max_length}"
                refusals.append(refuse(row, rule="too_long", reason=reason))
            else:
                encoded[row.task, row.content_hash] = result
    return encoded, refusals


def _key(job: _Job, verified: _Split, tokenizer: "PreTrainedTokenizerBase", chat_template: ChatTemplate) -> str:
    """Hash of everything the folder's content follows from."""
    digest = hashlib.blake2b(digest_size=12)
    settings = job.config.model_dump(mode="json", exclude={"sources", "tasks_file"})
    digest.update(json.dumps([SCHEMA_VERSION, settings, job.seed, chat_template], sort_keys=True).encode())
    digest.update(fingerprint(tokenizer).encode())
    for source in job.sources:
        digest.update(repr((source.path, source.form, source.num_read, source.unread_columns)).encode())
    for split in verified.splits.values():
        for name in SPLITS:
            for row in split.rows(name):
                lineage = (row.language, row.licence, row.reviewer, row.review_status, row.difficulty_factors)
                place = (name, row.task, row.content_hash, row.source, row.line, row.id, row.parent_id)
                digest.update(repr((place, lineage)).encode())
    for refusal in verified.refusals:
        digest.update(repr(refusal).encode())
    return digest.hexdigest()


def _write(
    path: Path,
    job: _Job,
    final: _Split,
    encoded: Mapping[tuple[str, str], Encoded],
    tokenizer: "PreTrainedTokenizerBase",
) -> None:
    """Write the folder beside its place, then move it there; where another process was first, its folder stays."""
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    store = partial / "store"
    store.mkdir(parents=True)
    try:
        for name in SPLITS:
            write_split(
                store / f"{name}.arrow",
                {
                    task: [(row, encoded[task, row.content_hash]) for row in split.rows(name)]
                    for task, split in final.splits.items()
                },
            )
        tokenizer.save_pretrained(partial / "tokenizer")
        write_quarantine(partial / "quarantine.parquet", final.refusals)
        summary = Summary(
            sources=summarise_sources(job.sources, final.refusals), tasks=summarise_tasks(TokenStore.open(store))
        )
        (partial / "summary.json").write_text(summary.to_json(), encoding="utf-8")
        _move(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError:
        if not (path / "summary.json").exists():
            raise


def _open(path: Path, tokenizer: "PreTrainedTokenizerBase") -> Prepared:
    summary_path = path / "summary.json"
    if not summary_path.exists():
        raise DataError(f"{path} is not a folder of prepared data; delete it and prepare again")
    summary = Summary.from_json(summary_path.read_text(encoding="utf-8"))
    return Prepared(
        path=path,
        summary=summary,
        tokenizer=tokenizer,
        task_names=tuple(task.task for task in summary.tasks),
        num_rows={
            "train": tuple(task.num_train for task in summary.tasks),
            "probe": tuple(task.num_probe for task in summary.tasks),
            "test": tuple(task.num_test for task in summary.tasks),
        },
    )
