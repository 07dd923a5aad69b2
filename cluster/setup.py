"""From configuration to the parts' own inputs: prepared data, engine setup, an evaluation that can score it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cluster.config import RunConfig
from cluster.data import prepare_data, task_cards, wanted_arrangements
from evalsvc.cost import Costs, costs
from evalsvc.evaluator import make_evaluator
from evalsvc.human_verdicts import check_verdicts
from evalsvc.probes import probe_order
from scheduler.allocation import AdaptiveAllocation, UniformAllocation
from scheduler.config_model import faults
from scheduler.curriculum import wilson
from scheduler.curriculum_config import CurriculumConfig
from scheduler.engine import HeatEngine
from scheduler.errors import ConfigError
from scheduler.policies import policy_notes
from scheduler.setup import EngineSetup
from scheduler.task import TaskSpec
from train.data.arrangement import ARRANGEMENTS, CHAIN
from train.data.levels import held_out_levels
from train.data.prepare import Prepared
from train.data.store import TokenStore
from train.micro_batches import longest_row

_COSTLY_RATIO = 0.2


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made of, once its data is prepared.

    `tasks` is in the order of every per-task array; `notes` are what a reader of the scores must know about the probes.
    """

    prepared: Prepared
    tasks: tuple[TaskSpec, ...]
    engine: EngineSetup
    notes: tuple[str, ...]


def gather_inputs(config: RunConfig) -> Inputs:
    """Prepare the data and set up the engine; everything that can be refused is refused here.

    Raises:
        DataError: Rows or sources cannot be used.
        ConfigError: Tasks, weights or bounds contradict each other.
    """
    cards = task_cards(config)
    return inputs_of(config, cards, prepare_data(config, cards))


def inputs_of(config: RunConfig, cards: Mapping[str, TaskSpec], prepared: Prepared) -> Inputs:
    """`gather_inputs` on data that is prepared. Raises as it does."""
    prepared.require_tasks()
    tasks = tuple(cards.get(name) or TaskSpec(name=name) for name in prepared.task_names)
    store = TokenStore.open(prepared.store_path)
    engine = _engine_setup(config, tasks, store)
    _check_stages(config, store)
    HeatEngine(engine)
    notes = (
        *policy_notes(engine),
        *_check_evaluation(config, prepared, store, tasks),
        *_unarranged(config, store),
        *_unlevelled(config, store),
        *_weak_evidence(config, store),
        *_costly_evaluation(evaluation_costs(config, store, tasks), engine),
    )
    return Inputs(prepared=prepared, tasks=tasks, engine=engine, notes=notes)


def _engine_setup(config: RunConfig, tasks: tuple[TaskSpec, ...], store: TokenStore) -> EngineSetup:
    first, last = config.stages[0], config.stages[-1]
    numbers = range(len(tasks))
    has_windows = config.mixture.curriculum is not None or any(stage.difficulty for stage in config.stages)
    by_token = config.mixture.weight_unit == "tokens"
    try:
        return EngineSetup(
            tasks=tasks,
            num_rows=tuple(store.num_rows(task) for task in numbers),
            seed=config.seed,
            total_steps=config.train.steps,
            global_batch_size=config.train.global_batch_size,
            mixture=config.mixture,
            boundary=first.until,
            stage_policies=(first.policy or config.mixture.policy, last.policy or config.mixture.policy),
            stage_arrangements=(first.arrangement, last.arrangement),
            stage_difficulty=(first.difficulty, last.difficulty),
            stage_guards=(first.guards, last.guards),
            level_sizes=tuple(store.level_sizes(task) for task in numbers) if has_windows else (),
            mean_supervised_tokens=tuple(float(store.supervised_lengths(task).mean()) for task in numbers)
            if by_token
            else (),
            num_probes=tuple(store.num_rows(task, "probe") for task in numbers)
            if config.mixture.allocation != UniformAllocation()
            else (),
        )
    except ValidationError as error:
        raise ConfigError(faults(error)) from error


def _check_stages(config: RunConfig, store: TokenStore) -> None:
    """Refuse a stage with rows that its micro-batches cannot hold."""
    for number, stage in enumerate(config.stages):
        training = stage.training(config.train)
        longest = longest_row(store, max_arranged_length=training.max_length)
        training.micro_batches.check(longest=longest, where=f"stages.{number} ({stage.name})")


def _check_evaluation(
    config: RunConfig, prepared: Prepared, store: TokenStore, tasks: tuple[TaskSpec, ...]
) -> tuple[str, ...]:
    """Refuse probes that cannot be scored and verdicts that cannot be read, before any process is started for them."""
    names = [task.name for task in tasks]
    if config.evaluation.human_verdicts is not None and config.evaluation.human_verdicts.exists():
        check_verdicts(config.evaluation.human_verdicts, names)
    return make_evaluator(prepared.tokenizer, store, tasks=tasks, config=config.evaluation, seed=config.seed).notes


def evaluation_costs(config: RunConfig, store: TokenStore, tasks: tuple[TaskSpec, ...]) -> Costs:
    """What a step and an evaluation of this run are expected to compute."""
    return costs(
        store,
        tasks,
        batch_size=config.train.global_batch_size,
        evaluation=config.evaluation,
        probes_per_task=config.mixture.allocation.probes_per_task,
    )


def _costly_evaluation(found: Costs, engine: EngineSetup) -> tuple[str, ...]:
    """A note where evaluations compute more than they should beside training."""
    ratio = found.evaluation_ratio(engine.interval_steps)
    if ratio <= _COSTLY_RATIO:
        return ()
    return (
        f"an evaluation computes about {ratio:.0%} of what training computes between two of them: raise "
        "mixture.interval_steps, or read fewer probes (mixture.allocation.probes_per_task) or sampled answers "
        "(evaluation.sampled_probes)",
    )


def _unlevelled(config: RunConfig, store: TokenStore) -> tuple[str, ...]:
    """A note on tasks where a curriculum or a stage's difficulty window does nothing.

    Raises:
        ConfigError: No task has more than one difficulty level.
    """
    settings = config.difficulty_windows
    if config.mixture.curriculum is not None:
        settings.append("mixture.curriculum")
    if not settings:
        return ()
    written, several = " and ".join(settings), len(settings) > 1
    flat = [name for task, name in enumerate(store.task_names) if len(store.level_sizes(task)) == 1]
    if len(flat) == len(store.task_names):
        raise ConfigError(
            f"{written} {'are' if several else 'is'} set, but no task has training rows of more than one difficulty "
            "level; give rows difficulty_factors and cards difficulty_levels above 1, or set "
            f"{'them' if several else 'it'} to null"
        )
    if not flat:
        return ()
    return (f"{', '.join(flat)}: one difficulty level only, so {written} {'do' if several else 'does'} nothing there",)


def _weak_evidence(config: RunConfig, store: TokenStore) -> Iterator[str]:
    """Notes on levels that a curriculum has no evidence of, or too little ever to promote a task from them."""
    curriculum = config.mixture.curriculum
    if curriculum is None:
        return
    probes = {name: _probes_by_level(config, store, task) for task, name in enumerate(store.task_names)}
    more = "data.probes_per_task"
    if config.mixture.allocation.probes_per_task is not None:
        more += " and mixture.allocation.probes_per_task"
    for name, by_level in probes.items():
        missing = ", ".join(str(level + 1) for level in np.flatnonzero(by_level == 0).tolist())
        if missing:
            yield (
                f"task {name!r}: no evaluation reads a probe of difficulty level {missing}, so what the model can do "
                f"there is not measured; raise {more}"
            )
    stuck = "; ".join(_never_promoted(curriculum, probes))
    if stuck:
        yield (
            f"no result can promote {stuck}: the Wilson lower bound must be above mixture.curriculum.promote_at "
            f"{curriculum.promote_at:g}; lower it, or raise {more}"
        )


def _never_promoted(curriculum: CurriculumConfig, probes: Mapping[str, NDArray[np.int64]]) -> Iterator[str]:
    """Windows of levels, task by task, whose probes cannot reach `promote_at` even where all of them are right.

    Args:
        curriculum: When tasks move.
        probes: Most that an evaluation reads, by task and level.
    """
    z = NormalDist().inv_cdf(curriculum.confidence)
    for name, by_level in probes.items():
        firsts = range(len(by_level) - 1)
        ends = [min(first + curriculum.open_levels, len(by_level)) for first in firsts]
        num_probes = np.array([by_level[first:end].sum() for first, end in zip(firsts, ends, strict=True)], dtype=float)
        best, _ = wilson(num_probes, num_probes, z)
        for first, end, count, bound in zip(firsts, ends, num_probes.tolist(), best.tolist(), strict=True):
            if bound <= curriculum.promote_at:
                levels = f"level {end}" if end - first == 1 else f"levels {first + 1} to {end}"
                yield f"{name} from {levels} (probes: {count:.0f}, best bound: {bound:.3f})"


def _probes_by_level(config: RunConfig, store: TokenStore, task: int) -> NDArray[np.int64]:
    """Most probes of the task that an evaluation reads, by difficulty level."""
    num_levels, levels = len(store.level_sizes(task)), held_out_levels(store, task, "probe")
    if levels is None:
        return np.array([store.num_rows(task, "probe")])
    allocation = config.mixture.allocation
    most = allocation.probes_per_task
    if isinstance(allocation, AdaptiveAllocation):
        most = allocation.probes_per_task * len(store.task_names)
    order = probe_order(len(levels), seed=config.seed, task=store.task_names[task])
    return np.bincount(levels[list(order[:most])], minlength=num_levels)


def _unarranged(config: RunConfig, store: TokenStore) -> tuple[str, ...]:
    """Notes on arrangements that have a share and too few rows to fill it: their samples are trained alone.

    Raises:
        ConfigError: There is no row at all for one.
    """
    notes = []
    numbers = range(len(store.task_names))
    for code in sorted(wanted_arrangements(config)):
        counts = {store.task_names[task]: int(store.has_arrangement(task, code).sum()) for task in numbers}
        without = [name for name, count in counts.items() if count == 0]
        if len(without) == len(counts):
            needed = "a parent_id that names another row" if code == CHAIN else "another row beside it"
            raise ConfigError(
                f"stages: arrangement.{ARRANGEMENTS[code]} has a share, but no training row of any task has {needed}; "
                "set it to 0, or link the rows"
            )
        if without:
            notes.append(
                f"no row of {', '.join(without)} can be put into a {ARRANGEMENTS[code]}: "
                "what a stage offers of it is trained alone"
            )
    return tuple(notes)
