"""The arms: what decides the mixture of a run. All else (model, rows, learning rate, seeds, compute) is the suite's.

    static    weights given once, by a formula on the sizes of the pools; no engine, no probes
    engine    the real engine under a policy, steered by probes that are charged
    walk      the control for "any movement helps": as far as the heat arm moved at each update, in a random direction
    replay    the control for "only the average matters": the heat arm's mean weights, held from the start

A control needs the heat arm of the same seed first. `walk` and `replay` are no policies of the project: nobody would
want them in a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Kind = Literal["static", "engine", "walk", "replay"]

NUM_DIRICHLET = 8
SIMPLE_STATICS = ("uniform", "proportional", "temperature", "unimax")
HEAT = "heat"
CONTROLS = ("random-walk", "time-average")
PROBES_READ = 12
_TEMPERATURE = 2.0
_UNIMAX_EPOCHS = 4.0


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm: its name, kind, what it is in words, and for an engine arm its settings below `mixture`, by path.

    `samples_answers`: whether its policy reads sampled answers; if not, as few as possible are sampled and charged.
    `is_charged`: whether its probes cost it steps.
    """

    name: str
    kind: Kind
    words: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples_answers: bool = False
    is_charged: bool = True


def reading(probes_per_task: int | None) -> dict[str, Any]:
    """`mixture.allocation` under which an evaluation reads so many probes of every task; None: all."""
    return {"type": "uniform", "probes_per_task": probes_per_task}


def _heat(name: str, words: str, **settings: Any) -> Arm:
    paths = {path.replace("__", "."): value for path, value in settings.items()}
    return Arm(name, "engine", words, {"policy.type": "heat", **paths}, samples_answers=True)


def _bandit(name: str, words: str) -> Arm:
    return Arm(name, "engine", words, {"policy.type": name.replace("-", "_")})


STATICS = (
    Arm("uniform", "static", "equal weights"),
    Arm("proportional", "static", "weights by rows"),
    Arm("temperature", "static", f"weights by rows to the power 1/{_TEMPERATURE:g}"),
    Arm("unimax", "static", f"as even as {_UNIMAX_EPOCHS:g} epochs a task allow (UniMax)"),
)
DIRICHLET = tuple(
    Arm(f"dirichlet-{number}", "static", "drawn from a Dirichlet distribution")
    for number in range(1, NUM_DIRICHLET + 1)
)
BASELINES = (
    _bandit("exp3", "Exp3.S on relative falls of the held-out loss"),
    _bandit("odm", "online data mixing"),
    _bandit("progress", "anchored learning progress (DynamixSFT form)"),
    _bandit("group-dro", "group DRO on the error"),
)
HEATS = (
    _heat(HEAT, "the heat policy as it is set by default"),
    replace(
        _heat("heat-free-probes", "heat with its probes for nothing: more compute than the others"), is_charged=False
    ),
    _heat(
        "heat-all-probes",
        "heat that reads all held-out probes at each evaluation",
        allocation=reading(None),
    ),
    _heat("heat-uniform", "heat, anchored to equal weights", prior={"type": "uniform"}),
    _heat("heat-tau-2", "heat, anchored to rows to the power 1/2", prior={"type": "temperature", "tau": 2.0}),
    _heat("heat-no-patience", "heat that gives a task up as soon as it is in doubt", heat__stall_give_up_ratio=0.0),
)
PARTS = (
    _heat("heat-no-decay", "heat without the decay rate", heat__decay_weight=0.0),
    _heat("heat-no-variance", "heat without the output variance", heat__variance_weight=0.0),
    _heat("heat-no-rejection", "heat without the rejection rate", heat__rejection_weight=0.0),
    _heat("heat-no-gap", "heat without the gap to the target", heat__gap_weight=0.0, policy__long_tail_boost=0.0),
    _heat("heat-no-long-tail", "heat without the boost of long-tail tasks", policy__long_tail_boost=0.0),
    _heat("heat-no-learnability", "heat that never damps a task that makes no progress", heat__min_learnability=1.0),
    _heat("heat-no-core-hold", "heat without the hold on core tasks", guards__hold_core=False),
    _heat("heat-no-overfit", "heat without the overfit guard", guards__overfit_patience=1_000_000),
    _heat("heat-no-floor", "heat without the floor", guards__floor_ratio=0.0),
    _heat("heat-no-step-limit", "heat without the step limit", guards__max_change=1.0, guards__late_max_change=1.0),
)
CONTROL_ARMS = (
    Arm("random-walk", "walk", "moves as far as heat at each update, at random"),
    Arm("time-average", "replay", "heat's mean weights, held from the start"),
)
ARMS: Mapping[str, Arm] = {arm.name: arm for arm in (*STATICS, *DIRICHLET, *BASELINES, *HEATS, *PARTS, *CONTROL_ARMS)}


def nested(paths: Mapping[str, Any], *, over: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping `over` with the values at dotted `paths` replaced; neither is changed."""
    result: dict[str, Any] = {
        key: nested({}, over=value) if isinstance(value, Mapping) else value for key, value in over.items()
    }
    for path, value in paths.items():
        *sections, last = path.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return result


def static_weights(arm: str, num_rows: Sequence[int], *, total_samples: int) -> Array:
    """Weights [K] of a static arm for pools of `num_rows`, in a run of `total_samples`; they sum to one."""
    sizes = np.array(num_rows, dtype=np.float64)
    match arm.partition("-"):
        case ("uniform", *_):
            weights = np.ones_like(sizes)
        case ("proportional", *_):
            weights = sizes
        case ("temperature", *_):
            weights = sizes ** (1.0 / _TEMPERATURE)
        case ("unimax", *_):
            weights = unimax(sizes, budget=float(total_samples), max_epochs=_UNIMAX_EPOCHS)
        case ("dirichlet", _, number):
            weights = np.random.default_rng([int(number), len(sizes)]).dirichlet(np.ones(len(sizes)))
        case _:
            raise ValueError(f"{arm!r} is no static arm")
    return weights / weights.sum()


def unimax(sizes: Array, *, budget: float, max_epochs: float) -> Array:
    """Samples per task [K]: even shares of the budget, the smallest pools first, none more than `max_epochs` of it.

    Source: Chung et al., UniMax (arXiv 2304.09151), algorithm 1, with rows for characters. Where the caps cannot take
    the whole budget, they are the answer.
    """
    samples = np.zeros_like(sizes)
    left = budget
    order = np.argsort(sizes, kind="stable")
    for place, task in enumerate(order.tolist()):
        samples[task] = min(left / (len(order) - place), max_epochs * sizes[task])
        left -= samples[task]
    return samples


def random_walk(start: Array, moves: Sequence[float], *, num_plans: int, floor: float, seed: int) -> list[Array]:
    """Plans [K] that begin at `start`, each as far from the one before (total variation) as `moves` says.

    A direction is a normal draw without drift; it is drawn again until it fits above `floor`, and if none does, the
    last is followed as far as it goes. Where there are more plans than moves, the last move is repeated.
    """
    rng = np.random.default_rng([seed, 3])
    plans = [start]
    for place in range(num_plans - 1):
        move = moves[min(place, len(moves) - 1)] if moves else 0.0
        plans.append(_stepped(plans[-1], move, floor=floor, rng=rng))
    return plans


def _stepped(weights: Array, move: float, *, floor: float, rng: np.random.Generator) -> Array:
    moved = weights
    for _ in range(100):
        direction = rng.standard_normal(len(weights))
        direction -= direction.mean()
        direction *= 2.0 * move / np.abs(direction).sum()
        moved = weights + direction
        if moved.min() >= floor:
            return moved
    room = np.min(np.where(moved < weights, (weights - floor) / np.maximum(weights - moved, 1e-300), np.inf))
    return weights + min(1.0, max(0.0, float(room))) * (moved - weights)
