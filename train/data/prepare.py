"""Files in, training data out, in bounded memory: read, verify, decide, tokenise, sort, write.

    files ─ hash ─► key ─► <out_dir>/<key>/ complete? done.
      │
      ├ shards ─► 1 read + verify ─► spill: rows, refusals, prompts          (a shard at a time, by the executor)
      │                    └ index: 69 bytes a row
      │           2 decide ◄┘  equal, near, family, set, leak                (numbers alone, here)
      ├ sample of training rows ─► tokenizer
      ├ shards ─► 3 tokenise ─► spill: tokens, refusals ─► decide again      (a shard at a time, by the executor)
      └ shards ─► 4 sort ─► segments ─► store/  lineage                      (a shard, then a segment at a time)

    <out_dir>/<key>/  store/{train,probe,selection,test}.arrow, store/lineage.parquet,
                      tokenizer/, quarantine.parquet, prompts.parquet, summary.json

The folder's name is a hash of all that goes into it, known before any row is read, and the folder appears under that
name only when complete; so a second preparation of the same data finds it. Who does the work and how the files are cut
changes nothing in it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scheduler.errors import DataError
from scheduler.task import TaskSpec
from train.config import SPLITS, DataConfig
from train.data.files import SHARD_BYTES, find_files
from train.data.lineage import prepared_with
from train.data.preparing.digests import hash_files
from train.data.preparing.execute import Executor, LocalExecutor
from train.data.preparing.partial import partial_folder
from train.data.preparing.progress import NoProgress, Progress
from train.data.rules import require_usable
from train.data.store import SCHEMA_VERSION
from train.data.summary import Summary
from train.data.verify import VERIFICATION_CODE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from train.data.preparing.pipeline import Pipeline
    from train.tokenizer import ChatTemplate


class TokenizerSource(Protocol):
    """Where a preparation gets its tokenizer."""

    @property
    def key(self) -> str:
        """Changes whenever another tokenizer would come of the same texts."""
        ...

    def make(self, texts: Iterator[str]) -> "PreTrainedTokenizerBase":
        """The tokenizer; it may be trained on the texts, a bounded sample of the training rows, read once."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data ready to train on.

    Attributes:
        path: The complete folder; `store_path` and `tokenizer_path` lie in it.
        summary: What was read, refused and kept.
        task_names: Tasks with rows to train on, in order of first appearance in the sources; a task's place here is its
            number in the store. Empty where the data is for evaluation only.
        num_rows: By split, rows per task in the order of `task_names`.
        trust_remote_code: Code that lies with the tokenizer may run.
    """

    path: Path
    summary: Summary
    task_names: tuple[str, ...]
    num_rows: dict[str, tuple[int, ...]] = field(default_factory=dict)
    trust_remote_code: bool = False

    @property
    def store_path(self) -> Path:
        """Folder for `TokenStore.open`."""
        return self.path / "store"

    @property
    def tokenizer_path(self) -> Path:
        """Folder for `train.model_path.load_tokenizer`, with the tokenizer's own code where it has any."""
        return self.path / "tokenizer"

    @property
    def prompts_path(self) -> Path:
        """Rows without an answer: task, id, source, line, messages as JSON."""
        return self.path / "prompts.parquet"

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer the rows were encoded with.

        Raises:
            ConfigError: Code comes with it, and `trust_remote_code` does not let it run.
        """
        return _load_tokenizer(self.tokenizer_path, self.trust_remote_code)

    def require_tasks(self) -> None:
        """Require something to train on.

        Raises:
            DataError: No task has a row with an answer.
        """
        if not self.task_names:
            prompts = sum(self.summary.prompts.values())
            raise DataError(
                f"no task has rows to train on: all {prompts:,} rows are prompts without an answer; add a source whose "
                "rows have answers"
            )


@lru_cache(maxsize=4)
def _load_tokenizer(path: Path, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    from train.model_path import load_tokenizer

    return load_tokenizer(path, trust_remote_code=trust_remote_code)


def prepare(
    config: DataConfig,
    *,
    specs: Mapping[str, TaskSpec],
    tokenizer_source: TokenizerSource,
    chat_template: "ChatTemplate",
    out_dir: Path,
    seed: int,
    known_tasks_only: bool = False,
    arrangements: frozenset[int] = frozenset(),
    max_arranged_length: int | None = None,
    trust_remote_code: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Prepared:
    """Prepare the data of a run, or find it prepared.

    Args:
        config: Sources and limits.
        specs: Task cards by name; a task without a card has no rules.
        tokenizer_source: Gives the tokenizer.
        chat_template: How prompts are rendered (see `train.tokenizer`).
        out_dir: Where prepared folders are kept. When too many rows are refused, `quarantine.parquet` is written here.
            An executor on other machines must reach it under the same path.
        seed: Decides which rows are held out and which are contrasted.
        known_tasks_only: Refuse rows of tasks that have no card.
        arrangements: The codes of `train.data.arrangement` in which rows are stored besides alone.
        max_arranged_length: Tokens of a row in context at most; those of a row alone if None is given.
        trust_remote_code: Code that comes with the tokenizer may run when it is loaded again; changes nothing in the
            result.
        executor: Who does the work; this process, if none is given.
        progress: Told how far it is.
        shard_bytes: Size of the shards that files are cut into; changes nothing in the result.

    Raises:
        DataError: A source cannot be read, too many rows are refused, a task has too few rows, or a card has no rows.
        ConfigError: A rule of a card needs something that is not installed; told before any row is read.
    """
    for name, spec in specs.items():
        require_usable(spec.input_rules, place=f"tasks.{name}.input_rules")
        require_usable(spec.output_rules, place=f"tasks.{name}.output_rules")
    paths = [file.path for source in config.sources for file in find_files(source.path)]
    file_hashes = hash_files(paths, cache=out_dir / ".file-hashes.json")
    facts = {
        "versions": [SCHEMA_VERSION, VERIFICATION_CODE, prepared_with()],
        "settings": config.model_dump(mode="json", exclude={"tasks_file"}),
        "files": file_hashes,
        "cards": {name: spec.model_dump(mode="json") for name, spec in specs.items()},
        "seed": seed,
        "known_tasks_only": known_tasks_only,
        "chat_template": chat_template,
        "arrangements": sorted(arrangements),
        **({} if max_arranged_length in (None, config.max_length) else {"max_arranged_length": max_arranged_length}),
        "tokenizer": tokenizer_source.key,
    }
    path = out_dir / hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()
    if not path.exists():
        from train.data.preparing.pipeline import Pipeline  # transformers: only where there is something to tokenise

        pipeline = Pipeline(
            config=config,
            specs=specs,
            make_tokenizer=tokenizer_source.make,
            chat_template=chat_template,
            out_dir=out_dir,
            seed=seed,
            known_tasks=frozenset(specs) if known_tasks_only else None,
            arrangements=arrangements,
            max_arranged_length=max_arranged_length or config.max_length,
            executor=executor or LocalExecutor(),
            progress=progress or NoProgress(),
            shard_bytes=shard_bytes,
            file_hashes=file_hashes,
        )
        _write(pipeline, path)
    return _open(path, trust_remote_code=trust_remote_code)


def _write(pipeline: "Pipeline", path: Path) -> None:
    """Write the folder beside its place, then move it there; where another process was first, its folder stays."""
    with partial_folder(path) as partial:
        spill = partial.absolute() / "spill"
        summary = pipeline.run(partial, spill)
        (partial / "summary.json").write_text(summary.to_json(), encoding="utf-8")
        shutil.rmtree(spill)
        _move(partial, path)


def _move(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError:
        if not (path / "summary.json").exists():
            raise


def _open(path: Path, *, trust_remote_code: bool) -> Prepared:
    summary_path = path / "summary.json"
    if not summary_path.exists():
        raise DataError(f"{path} is not a folder of prepared data; delete it and prepare again")
    try:
        summary = Summary.from_json(summary_path.read_text(encoding="utf-8", errors="replace"))
    except DataError as error:
        raise DataError(f"{summary_path} is damaged: {error}; delete the folder {path} and prepare again") from error
    return Prepared(
        path=path,
        summary=summary,
        task_names=tuple(task.task for task in summary.tasks),
        num_rows={name: tuple(getattr(task, f"num_{name}") for task in summary.tasks) for name in SPLITS},
        trust_remote_code=trust_remote_code,
    )
