"""One run of one arm, wherever it is played, and the key under which its outcome is kept.

A key is a hash of all that the outcome depends on: suite, seed, settings, and for an arm that the engine decides what
the engine decides under its settings in a few worlds of the simulator; for a control the heat run it follows. So
outcomes outlive a change of the engine that leaves its decisions alone. What those worlds cannot show, and the sources
of training and evaluation, their defaults included, are not part of it: delete the outcomes after a change that moves
their numbers.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.policies import worlds
from bench.policies.arms import ARMS, HEAT, Arm, Array, random_walk, static_weights
from bench.policies.compute import affordable_steps
from bench.policies.local import floor_of, play, rows_served
from bench.policies.outcome import Outcome
from bench.policies.suites import REAL_SUITES, ROOT, RealSuite
from cluster.config import RunConfig
from cluster.data import task_cards
from cluster.setup import Inputs, evaluation_costs, gather_inputs, inputs_of
from scheduler.setup import EngineSetup
from train.data.store import TokenStore

RUNS = ROOT / "bench" / "results" / "policies"
OUTCOMES = Path(__file__).parent / "outcomes"
_WITNESSES = (100_015, 100_019, 100_021, 100_033, 100_034, 100_048, 100_057, 100_058)


def run_world(seed: int, names: Sequence[str]) -> list[Outcome]:
    """Arms of suite S0 on the world of one seed; `names` has the heat arm before its controls."""
    world = worlds.draw_world(seed)
    done: dict[str, Outcome] = {}
    for name in names:
        arm = ARMS[name]
        if arm.kind == "engine":
            trace = worlds.play_engine(world, arm)
        else:
            script = _script(
                arm,
                heat=done.get(HEAT),
                num_rows=world.num_rows,
                total_samples=worlds.STEPS * worlds.BATCH_SIZE,
                num_plans=worlds.STEPS // worlds.INTERVAL,
                floor=worlds.floor_of(len(world.tasks)),
                seed=seed,
            )
            trace = worlds.play_script(world, script)
        done[name] = trace.outcome(suite=worlds.NAME, arm=name, seed=seed)
    return list(done.values())


def run_real(
    suite: str,
    name: str,
    seed: int,
    *,
    heat: Outcome | None,
    quick: bool,
    besides: Sequence[str] = (),
    finished: Sequence[Outcome] = (),
) -> list[Outcome]:
    """One arm of a real suite, and those of `besides` that turned out to have the same run.

    `heat` is the heat arm's outcome of the same seed, which its controls follow; `finished` are outcomes of static arms
    of that seed: one that serves the same rows in the same order is not run again.
    """
    chosen, arm = REAL_SUITES[suite], ARMS[name]
    config = chosen.config(arm, seed=seed, folder=RUNS / "prepared", quick=quick)
    inputs = _prepared(config)
    shadows: dict[str, EngineSetup] = {}
    if arm.kind == "engine":
        config, inputs = _charged(arm, config, inputs)
        for other in besides:
            beside = chosen.config(ARMS[other], seed=seed, folder=RUNS / "prepared", quick=quick)
            beside, its_inputs = _charged(ARMS[other], beside, inputs)
            if differ_in_the_engine_alone(config, beside):
                shadows[other] = its_inputs.engine
        trace = play(config, inputs, random_tasks=chosen.random_tasks, shadows=shadows)
    else:
        script = _script_of(arm, inputs.engine, heat=heat, seed=seed)
        if arm.kind == "static" and (same := _same_rows(script, finished, inputs.engine)):
            return [replace(same, arm=name, run_of=same.run_of or same.arm)]
        trace = play(config, inputs, random_tasks=chosen.random_tasks, script=script)
    own = trace.outcome(suite=suite, arm=name, seed=seed)
    alike = [replace(own, arm=other, random_floor=floor_of(shadows[other]), run_of=name) for other in trace.alike]
    return [own, *alike]


def _same_rows(script: Sequence[Array], finished: Sequence[Outcome], setup: EngineSetup) -> Outcome | None:
    """The outcome of a static arm under which the same rows are served as under `script`, if there is one."""
    served = rows_served(script, setup)
    return next((one for one in finished if rows_served(_script_of(ARMS[one.arm], setup), setup) == served), None)


def _script_of(arm: Arm, setup: EngineSetup, *, heat: Outcome | None = None, seed: int = 0) -> Sequence[Array]:
    return _script(
        arm,
        heat=heat,
        num_rows=setup.num_rows,
        total_samples=setup.total_steps * setup.global_batch_size,
        num_plans=-(-setup.total_steps // setup.interval_steps),
        floor=floor_of(setup),
        seed=seed,
    )


def _charged(arm: Arm, config: RunConfig, inputs: Inputs) -> tuple[RunConfig, Inputs]:
    """The run of an arm on the rows of `inputs`, its probes paid for with steps where they are charged."""
    if arm.is_charged:
        found = evaluation_costs(config, TokenStore.open(inputs.prepared.store_path), inputs.tasks)
        steps = affordable_steps(found, steps=config.train.steps, interval=inputs.engine.interval_steps)
        config = config.model_copy(update={"train": config.train.model_copy(update={"steps": steps})})
    return config, inputs_of(config, task_cards(config), inputs.prepared)


def differ_in_the_engine_alone(one: RunConfig, other: RunConfig) -> bool:
    """Whether two runs differ in nothing but settings that only the engine reads, which its decisions show."""
    engine = {name: getattr(one.mixture, name) for name in ("prior", "policy", "heat", "guards")}
    return other.model_copy(update={"mixture": other.mixture.model_copy(update=engine)}) == one


def _script(
    arm: Arm,
    *,
    heat: Outcome | None,
    num_rows: Sequence[int],
    total_samples: int,
    num_plans: int,
    floor: float,
    seed: int,
) -> Sequence[Array]:
    """Weights of every interval of an arm without an engine."""
    if arm.kind == "static":
        return [static_weights(arm.name, num_rows, total_samples=total_samples)]
    if heat is None:
        raise ValueError(f"the arm {arm.name} follows the heat arm, which has not been run")
    if arm.kind == "replay":
        return [_normalised(heat.mean_weights)]
    start = _normalised(heat.first_weights)
    return random_walk(start, heat.moves, num_plans=num_plans, floor=min(floor, float(start.min())), seed=seed)


def _normalised(weights: Mapping[str, float]) -> Array:
    array = np.array(list(weights.values()))
    return array / array.sum()


def _prepared(config: RunConfig) -> Inputs:
    """The inputs of a run; runs of one seed share their prepared rows, and one process at a time prepares."""
    with _locked(config.output.dir / "lock"):
        return gather_inputs(config)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def key_of(suite: str, name: str, seed: int, *, quick: bool, heat: str | None) -> str:
    """Where the outcome is kept; `heat` is the key of the heat run a control follows."""
    arm = ARMS[name]
    parts: dict[str, Any] = {
        "suite": suite,
        "arm": name,
        "seed": seed,
        "settings": _settings(suite, name, quick=quick),
        "is_charged": arm.is_charged,
    }
    if suite == worlds.NAME:
        parts["code"] = _source("scheduler/simulator", "bench/policies/worlds.py")
    if arm.kind == "engine":
        parts["decisions"] = decisions_of(name)
    if arm.kind in ("walk", "replay"):
        parts["heat"] = heat
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()


@cache
def _settings(suite: str, name: str, *, quick: bool) -> Any:
    arm = ARMS[name]
    if suite == worlds.NAME:
        return worlds.mixture_of(arm).model_dump(mode="json") if arm.kind == "engine" else None
    chosen: RealSuite = REAL_SUITES[suite]
    config = chosen.config(arm, seed=0, folder=Path(), quick=quick)
    settings = config.model_dump(mode="json", exclude_defaults=True)
    for source in settings["data"]["sources"]:
        source["path"] = Path(source["path"]).name
    model = settings["model"]
    model |= {"path": Path(model["path"]).name} if "path" in model else {}
    return settings if arm.kind == "engine" else {**settings, "mixture": settings["mixture"]["interval_steps"]}


@cache
def decisions_of(name: str) -> str:
    """Hash of what the engine decides under an arm's settings: weights to a millionth, and the tasks it gives up.

    The worlds are not among those of the suite S0, and were picked because plateaus are left behind in them: in most
    worlds the rule that begins a new segment (`scheduler.learnability`) moves nothing.
    """
    digest = hashlib.blake2b(digest_size=12)
    for seed in _WITNESSES:
        trace = worlds.play_engine(worlds.draw_world(seed), ARMS[name])
        digest.update(np.rint(trace.weights * 1e6).astype(np.int64).tobytes())
        digest.update(b"" if trace.given_up is None else trace.given_up.tobytes())
    return digest.hexdigest()


@cache
def _source(*places: str) -> str:
    """Hash of the Python sources at these places of the project."""
    digest = hashlib.blake2b(digest_size=12)
    for place in places:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
