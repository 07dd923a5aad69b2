"""From configuration to the parts' own inputs: task cards, prepared data, engine setup, worker job."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cluster.config import RunConfig
from cluster.settings import load_config
from evalsvc.evaluator import make_evaluator
from evalsvc.human_verdicts import check_verdicts
from scheduler.config_model import ConfigModel
from scheduler.engine import HeatEngine
from scheduler.setup import EngineSetup
from scheduler.task import TaskCard, TaskSpec
from train.config import TinyModel
from train.data.prepare import Prepared, prepare
from train.data.store import TokenStore
from train.model import load_tokenizer
from train.tokenizer import train_byte_tokenizer

PREPARED_FOLDER = ".prepared"


class TasksFile(ConfigModel):
    """A file of ontology cards: `tasks: {name: card}`."""

    tasks: dict[str, TaskCard]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made of, once its data is prepared.

    `tasks` is in the order of every per-task array; `notes` are what a reader of the scores must know about the probes.
    """

    prepared: Prepared
    tasks: tuple[TaskSpec, ...]
    engine: EngineSetup
    notes: tuple[str, ...]


def task_cards(config: RunConfig) -> dict[str, TaskSpec]:
    """Cards by task: those of `data.tasks_file`, replaced by those in `tasks`."""
    cards: dict[str, TaskCard] = {}
    if config.data.tasks_file is not None:
        cards |= load_config(TasksFile, files=[config.data.tasks_file]).tasks
    cards |= config.tasks
    return {name: TaskSpec(name=name, **card.model_dump()) for name, card in cards.items()}


def prepare_data(config: RunConfig, cards: Mapping[str, TaskSpec]) -> Prepared:
    """Prepare the rows under `output.dir`, or find them prepared there.

    Raises:
        DataError: Rows or sources cannot be used.
    """
    return prepare(
        config.data,
        specs=cards,
        make_tokenizer=lambda texts: _tokenizer(config, texts),
        chat_template="auto" if isinstance(config.model, TinyModel) else config.model.chat_template,
        out_dir=config.output.dir / PREPARED_FOLDER,
        seed=config.seed,
    )


def gather_inputs(config: RunConfig) -> Inputs:
    """Prepare the data and set up the engine; everything that can be refused is refused here.

    Raises:
        DataError: Rows or sources cannot be used.
        ConfigError: Tasks, weights or bounds contradict each other.
    """
    cards = task_cards(config)
    prepared = prepare_data(config, cards)
    tasks = tuple(cards.get(name) or TaskSpec(name=name) for name in prepared.task_names)
    first, last = config.stages[0], config.stages[-1]
    engine = EngineSetup(
        tasks=tasks,
        num_rows=prepared.num_rows["train"],
        seed=config.seed,
        total_steps=config.train.steps,
        global_batch_size=config.train.global_batch_size,
        mixture=config.mixture,
        boundary=first.until,
        stage_policies=(first.policy or config.mixture.policy, last.policy or config.mixture.policy),
    )
    HeatEngine(engine)
    return Inputs(prepared=prepared, tasks=tasks, engine=engine, notes=_check_evaluation(config, prepared, tasks))


def _check_evaluation(config: RunConfig, prepared: Prepared, tasks: tuple[TaskSpec, ...]) -> tuple[str, ...]:
    """Refuse probes that cannot be scored and verdicts that cannot be read, before any process is started for them."""
    names = [task.name for task in tasks]
    if config.evaluation.human_verdicts is not None and config.evaluation.human_verdicts.exists():
        check_verdicts(config.evaluation.human_verdicts, names)
    store = TokenStore.open(prepared.store_path)
    return make_evaluator(prepared.tokenizer, store, tasks=tasks, config=config.evaluation, seed=config.seed).notes


def _tokenizer(config: RunConfig, texts: Iterator[str]) -> PreTrainedTokenizerBase:
    if isinstance(config.model, TinyModel):
        return train_byte_tokenizer(texts, vocab_size=config.model.vocab_size)
    tokenizer = load_tokenizer(Path(config.model.path), trust_remote_code=config.model.trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
