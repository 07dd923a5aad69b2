"""What a run costs, in units of one token's forward and backward pass; a forward pass alone is a third.

    budget     tokens that the suite's steps train under equal weights
    steps      of an arm that is steered by probes: as many as the budget leaves after its evaluations are paid

The budget is worked out from lengths of rows before a run (`evalsvc.cost`); what was really computed is counted during
it (`Meter`).
"""

import math
from typing import Any

from evalsvc.cost import Costs


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
