"""What a run costs, in units of one token's forward and backward pass; a forward pass alone is a third.

    budget     tokens that the suite's steps train under equal weights
    steps      of an arm that is steered by probes: as many as the budget leaves after its evaluations are paid

The budget is worked out from lengths of rows before a run; what was really computed is counted during it (`Meter`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evalsvc.config import EvaluationConfig
from scheduler.task import ExactChecker, TaskSpec
from train.data.store import TokenStore

FORWARD = 1.0 / 3.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Units of one optimiser step under equal weights, and of one evaluation of all tasks."""

    step: float
    evaluation: float


def costs(
    store: TokenStore,
    tasks: Sequence[TaskSpec],
    *,
    batch_size: int,
    evaluation: EvaluationConfig,
    probes_per_task: int | None = None,
) -> Costs:
    """Expected costs on prepared data; a generated answer is taken to be as long as the right one.

    `probes_per_task`: those an evaluation reads; None: all.
    """
    row_means = [float(store.lengths(task).mean()) for task in range(len(tasks))]
    tokens = 0
    for number, task in enumerate(tasks):
        lengths = store.lengths(number, "probe")[:probes_per_task]
        tokens += int(lengths.sum())
        tokens += int(lengths[: evaluation.sampled_probes].sum()) * evaluation.samples_per_probe
        if not isinstance(task.checker, ExactChecker):
            tokens += int(lengths.sum())
    return Costs(step=batch_size * sum(row_means) / len(row_means), evaluation=tokens * FORWARD)


def affordable_steps(found: Costs, *, steps: int, interval: int) -> int:
    """Most steps whose training and evaluations, one at every boundary, cost no more than `steps` of training alone."""
    budget = steps * found.step
    affordable = steps
    while affordable > 1 and affordable * found.step + math.ceil(affordable / interval) * found.evaluation > budget:
        affordable -= 1
    return affordable


class Meter:
    """Counts the tokens that pass through a model's embedding, padding included."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        self.paused = False
        model.get_input_embeddings().register_forward_pre_hook(self._count)

    def _count(self, _module: Any, inputs: tuple[Any, ...]) -> None:
        if not self.paused:
            self.tokens += inputs[0].numel()
