"""What a stage says of its samples besides their weights: context arrangement and difficulty windows."""

from collections.abc import Sequence
from typing import NamedTuple

from scheduler.curriculum import Curriculum
from scheduler.plan import Window
from scheduler.setup import EngineSetup


class Exposure(NamedTuple):
    """The fields of a `MixturePlan` that its stage decides."""

    arrangement: tuple[float, float, float]
    windows: tuple[Window, ...]
    replay_ratio: float
    own_answers: tuple[int, ...]
    level_orders: tuple[tuple[int, ...], ...] = ()


def stage_exposure(
    setup: EngineSetup, stage: int, scores: Sequence[float] = (), *, curriculum: Curriculum | None = None
) -> Exposure:
    """Arrangement, windows, replay and who answers in chains, of stage 1 or 2.

    A window that ends beyond a task's levels ends with them, and one that begins there is the task's last level. In a
    run with difficulty levels a stage without a window opens those that its `curriculum` says, all of them without one.
    `scores` are the latest per task, empty before the first evaluation.
    """
    arranged = setup.stage_arrangements[stage - 1]
    arrangement, at = arranged.shares(), arranged.own_answers_at
    own = () if at is None or not arrangement[1] else tuple(task for task, score in enumerate(scores) if score >= at)
    if curriculum is not None:
        levels = curriculum.windows(), curriculum.config.replay_ratio
        return Exposure(arrangement, *levels, own, curriculum.orders())
    window = setup.stage_difficulty[stage - 1]
    tops = [len(sizes) - 1 for sizes in setup.level_sizes]
    if window is None:
        return Exposure(arrangement, tuple((0, top) for top in tops), 0.0, own)
    windows = tuple((min(window.first - 1, top), min(window.last - 1, top)) for top in tops)
    return Exposure(arrangement, windows, window.replay_ratio, own)
