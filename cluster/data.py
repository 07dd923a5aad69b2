"""A run's data: task cards, where the tokenizer comes from, the prepared folder.

Imports neither torch nor transformers until there is something to tokenise, so that finding data prepared is quick.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config import RunConfig
from cluster.settings import load_config
from cluster.views.preparation import drawn_progress
from scheduler.config_model import ConfigModel
from scheduler.task import TaskCard, TaskSpec
from train.config import DataConfig, ModelConfig, TinyModel
from train.data.arrangement import SINGLE
from train.data.files import find_files, is_url
from train.data.prepare import Prepared, TokenizerSource, prepare
from train.data.preparing.execute import Executor, LocalExecutor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREPARED_FOLDER = ".prepared"
_MIN_PARALLEL_BYTES = 64 << 20
_TOKENIZER_FILES = ("*token*", "*vocab*", "merges.txt", "*.model", "*.jinja", "config.json", "*.py")


class TasksFile(ConfigModel):
    """A file of ontology cards: `tasks: {name: card}`."""

    tasks: dict[str, TaskCard]


def task_cards(config: RunConfig) -> dict[str, TaskSpec]:
    """Cards by task: those of `data.tasks_file`, replaced by those in `tasks`."""
    cards: dict[str, TaskCard] = {}
    if config.data.tasks_file is not None:
        cards |= load_config(TasksFile, files=[config.data.tasks_file]).tasks
    cards |= config.tasks
    return {name: TaskSpec(name=name, **card.model_dump()) for name, card in cards.items()}


def prepare_data(config: RunConfig, cards: Mapping[str, TaskSpec], *, executor: Executor | None = None) -> Prepared:
    """Prepare the rows under `output.dir`, or find them prepared there; without `executor` on this machine.

    Raises:
        DataError: Rows or sources cannot be used.
    """
    with drawn_progress() as progress, LocalExecutor(_num_processes(config.data)) as local:
        return prepare(
            config.data,
            specs=cards,
            tokenizer_source=tokenizer_source(config.model),
            chat_template="auto" if isinstance(config.model, TinyModel) else config.model.chat_template,
            out_dir=config.output.dir / PREPARED_FOLDER,
            seed=config.seed,
            arrangements=wanted_arrangements(config),
            max_arranged_length=_max_arranged_length(config),
            trust_remote_code=config.model.trust_remote_code,
            executor=executor or local,
            progress=progress,
        )


def _num_processes(config: DataConfig) -> int:
    """Processes that suit the size of the data: this one alone where starting others would take longer."""
    paths = [file.path for source in config.sources for file in find_files(source.path)]
    num_bytes = sum(Path(path).stat().st_size for path in paths if not is_url(path))
    if num_bytes < _MIN_PARALLEL_BYTES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wanted_arrangements(config: RunConfig) -> frozenset[int]:
    """Those that some stage gives a share, beside the single one."""
    return frozenset(
        code
        for stage in config.stages
        for code, share in enumerate(stage.arrangement.shares())
        if share > 0 and code != SINGLE
    )


def _max_arranged_length(config: RunConfig) -> int:
    """Tokens of a row in context that some stage trains on."""
    return max(stage.max_length or config.data.max_length for stage in config.stages)


@dataclass(frozen=True, slots=True)
class TrainedTokenizer:
    """The tiny model's: a byte-level tokenizer trained on the run's own training rows."""

    vocab_size: int

    @property
    def key(self) -> str:
        """See `TokenizerSource`."""
        return f"byte-level {self.vocab_size}"

    def make(self, texts: Iterator[str]) -> "PreTrainedTokenizerBase":
        """Train it."""
        from train.tokenizer import train_byte_tokenizer

        return train_byte_tokenizer(texts, vocab_size=self.vocab_size)


@dataclass(frozen=True, slots=True)
class PretrainedTokenizer:
    """A pretrained model's own."""

    path: str
    trust_remote_code: bool

    @property
    def key(self) -> str:
        """See `TokenizerSource`. Of a folder its tokenizer files are hashed, so that nothing has to be loaded."""
        folder = Path(self.path)
        if not folder.is_dir():
            from train.tokenizer import fingerprint

            return fingerprint(self._load())
        digest = hashlib.blake2b(digest_size=16)
        for file in sorted({file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)}):
            digest.update(repr((file.name, hashlib.blake2b(file.read_bytes()).hexdigest())).encode())
        return digest.hexdigest()

    def make(self, texts: Iterator[str]) -> "PreTrainedTokenizerBase":  # noqa: ARG002
        """Load it; no text is read."""
        return self._load()

    def _load(self) -> "PreTrainedTokenizerBase":
        from train.model_path import load_tokenizer

        tokenizer = load_tokenizer(Path(self.path), trust_remote_code=self.trust_remote_code)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer


def tokenizer_source(model: ModelConfig) -> TokenizerSource:
    """Where the model's tokenizer comes from."""
    if isinstance(model, TinyModel):
        return TrainedTokenizer(model.vocab_size)
    return PretrainedTokenizer(model.path, model.trust_remote_code)
