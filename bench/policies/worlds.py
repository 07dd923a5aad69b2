"""Suite S0: worlds of tasks drawn at random, played by the simulator; milliseconds a run, no model.

A world has five to twelve tasks that can be learnt, with pools from 300 to 20,000 rows and power laws of any steepness;
some overfit, fade, sit on a plateau, build on another or teach each other. Most worlds have a task with random labels,
half of them one that is saturated. Of the tasks that can be learnt the smallest third are declared long-tail and one is
core: the engine knows no more of a world than a user would write down.

An evaluation reads 12 probes a task, and two answers to each of two probes are sampled where the policy reads answers.

The selection score of a run is what so many answers to fresh questions would show of the true one; the test score is
the true one. A unit of compute is a sample.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.policies.arms import PROBES_READ, Arm, nested, reading
from bench.policies.compute import affordable_steps
from bench.policies.trace import Array, Mask, Trace
from evalsvc.cost import FORWARD, Costs
from scheduler.records import DecisionRecord
from scheduler.setup import EngineSetup, GuardConfig, MixtureConfig
from scheduler.simulator import Learner, LearnerConfig, MeasurementConfig, simulate
from scheduler.simulator.shares import Shares
from scheduler.simulator.summary import learnable
from scheduler.task import TaskSpec

NAME = "S0"
WORDS = "worlds drawn at random, played by the simulator"
STEPS, INTERVAL, BATCH_SIZE = 1000, 50, 32
_SELECTION_ROWS = 64
_NOISE, _SATURATED = "random labels", "saturated"


@dataclass(frozen=True, slots=True)
class World:
    """A learner and the cards of its tasks."""

    seed: int
    learner: LearnerConfig
    tasks: tuple[TaskSpec, ...]

    @property
    def num_rows(self) -> tuple[int, ...]:
        """Rows of every pool."""
        return tuple(task.rows for task in self.learner.tasks.values())


def draw_world(seed: int) -> World:
    """The world of a seed, the same for all arms."""
    rng = np.random.default_rng([seed, 11])
    names = [f"task {number}" for number in range(int(rng.integers(5, 13)))]
    tasks = {name: _task(rng, names[:place]) for place, name in enumerate(names)}
    transfer: dict[str, dict[str, float]] = {}
    for taught in names:
        teachers = [name for name in names if name != taught and rng.random() < 0.1]
        shares = np.clip(rng.normal(0.1, 0.15, size=len(teachers)), -0.2, 0.4)
        transfer |= {taught: dict(zip(teachers, shares.tolist(), strict=True))} if teachers else {}
    by_size = sorted(names, key=lambda name: tasks[name]["rows"])
    tiers = dict.fromkeys(by_size[: len(names) // 3], "long_tail") | {
        by_size[int(rng.integers(len(names) // 3, len(names)))]: "core"
    }
    if rng.random() < 0.75:
        tasks[_NOISE] = {"rows": _log_uniform(rng, 500, 8000), "curve": {"type": "noise", "chance_score": 0.1}}
    if rng.random() < 0.5:
        tasks[_SATURATED] = {"rows": _log_uniform(rng, 500, 8000), "curve": {"type": "saturated"}}
    cards = tuple(TaskSpec.model_validate({"name": name, "tier": tiers.get(name, "standard")}) for name in tasks)
    return World(seed, LearnerConfig.model_validate({"tasks": tasks, "transfer": transfer}), cards)


def _task(rng: np.random.Generator, earlier: Sequence[str]) -> dict[str, Any]:
    effects: list[dict[str, Any]] = []
    if rng.random() < 0.25:
        effects.append({"type": "overfit", "after_epochs": float(rng.uniform(3, 10))})
    if rng.random() < 0.2:
        effects.append({"type": "forgetting", "half_life_steps": float(_log_uniform(rng, 200, 2000))})
    if rng.random() < 0.2:
        effects.append({"type": "plateau", "at_samples": float(_log_uniform(rng, 800, 4000)), "width_samples": 200.0})
    if earlier and rng.random() < 0.2:
        effects.append({"type": "prerequisites", "tasks": [str(rng.choice(earlier))]})
    curve = {
        "type": "power_law",
        "start_loss": float(rng.uniform(1.5, 4.0)),
        "floor_loss": float(rng.uniform(0.05, 0.6)),
        "scale_samples": float(_log_uniform(rng, 150, 4000)),
        "exponent": float(rng.uniform(0.6, 1.4)),
        "chance_score": float(rng.choice([0.0, 0.0, 0.1, 0.25])),
        "best_score": float(rng.uniform(0.85, 1.0)),
        "sharpness": float(rng.uniform(0.8, 3.0)),
    }
    return {"rows": _log_uniform(rng, 300, 20_000), "curve": curve, "effects": effects}


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> int:
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def mixture_of(arm: Arm) -> MixtureConfig:
    """The mixture settings of an engine arm."""
    same = {"interval_steps": INTERVAL, "allocation": reading(PROBES_READ)}
    return MixtureConfig.model_validate(nested(arm.settings, over=same))


def floor_of(num_tasks: int) -> float:
    """The default floor of a weight, which bounds the random walk too."""
    return GuardConfig().floor_ratio / num_tasks


def play_engine(world: World, arm: Arm) -> Trace:
    """A run in which the engine decides, shortened by what its probes cost where they are charged."""
    started_s = time.process_time()
    measurement = MeasurementConfig(sampled_probes=2 if arm.samples_answers else 1, samples_per_probe=2)
    mixture = mixture_of(arm)
    num_probes = mixture.allocation.probes_per_task or measurement.num_probes
    answers = num_probes + measurement.sampled_probes * measurement.samples_per_probe
    evaluation = FORWARD * answers * len(world.tasks)
    paid = evaluation if arm.is_charged else 0.0
    steps = affordable_steps(Costs(float(BATCH_SIZE), paid), steps=STEPS, interval=INTERVAL)
    setup = EngineSetup(
        tasks=world.tasks,
        num_rows=world.num_rows,
        seed=world.seed,
        total_steps=steps,
        global_batch_size=BATCH_SIZE,
        mixture=mixture,
        boundary=None,
        stage_policies=(mixture.policy, mixture.policy),
        num_probes=(measurement.num_probes,) * len(world.tasks),
    )
    given_up: list[list[bool]] = []

    def watch(record: object) -> None:
        if isinstance(record, DecisionRecord):
            given_up.append([task.noise_since is not None for task in record.tasks])

    run = simulate(setup, world.learner, seed=world.seed, measurement=measurement, on_record=watch)
    spent = [step * BATCH_SIZE + (place + 1) * evaluation for place, step in enumerate(run.steps.tolist())]
    return _trace(
        world,
        steps=run.steps.tolist(),
        weights=run.weights[:-1],
        given_up=np.array(given_up),
        scores=run.scores,
        spent=spent,
        probe_units=evaluation * (len(run.steps) - 1),
        cpu_s=time.process_time() - started_s,
    )


def play_script(world: World, script: Sequence[Array]) -> Trace:
    """A run under given weights, the last of them for all intervals that follow; no engine, no probes."""
    started_s = time.process_time()
    learner, shares = Learner(world.learner, seed=world.seed), Shares(len(world.tasks))
    steps = [*range(0, STEPS, INTERVAL), STEPS]
    weights = [script[min(place, len(script) - 1)] for place in range(len(steps) - 1)]
    scores = [learner.truth().score]
    for own, begin, end in zip(weights, steps[:-1], steps[1:], strict=True):
        learner.advance(shares.serve(own, (end - begin) * BATCH_SIZE), num_steps=end - begin)
        scores.append(learner.truth().score)
    return _trace(
        world,
        steps=steps,
        weights=np.array(weights),
        given_up=None,
        scores=np.array(scores),
        spent=[float(step * BATCH_SIZE) for step in steps],
        probe_units=0.0,
        cpu_s=time.process_time() - started_s,
    )


def _trace(
    world: World,
    *,
    steps: Sequence[int],
    weights: Array,
    given_up: Mask | None,
    scores: Array,
    spent: Sequence[float],
    probe_units: float,
    cpu_s: float,
) -> Trace:
    names = tuple(world.learner.tasks)
    kept = learnable(world.learner)
    rng = np.random.default_rng([world.seed, 12])
    thresholds = rng.random((len(names), _SELECTION_ROWS))
    shown = (thresholds < scores[-1][:, None]).mean(axis=1)
    return Trace(
        tasks=names,
        random_tasks=(_NOISE,) if _NOISE in names else (),
        num_steps=np.diff(steps).tolist(),
        weights=weights,
        given_up=given_up,
        floor=None if given_up is None else floor_of(len(names)),
        curve=list(zip(spent, scores[:, kept].mean(axis=1).tolist(), strict=True)),
        train_units=float(steps[-1] * BATCH_SIZE),
        probe_units=probe_units,
        selection=dict(zip(names, shown.tolist(), strict=True)),
        test=dict(zip(names, scores[-1].tolist(), strict=True)),
        cpu_s=cpu_s,
    )
