"""What an evaluation computes beside training, in units of one token's forward and backward pass.

A forward pass alone is a third of a unit. All is worked out from lengths of rows, before anything runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evalsvc.config import EvaluationConfig
from scheduler.task import ExactChecker, TaskSpec
from train.data.store import TokenStore

FORWARD = 1.0 / 3.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Units of one optimiser step under equal weights, and of one evaluation of all tasks."""

    step: float
    evaluation: float

    def evaluation_ratio(self, interval_steps: int) -> float:
        """An evaluation against the training between two of them."""
        return self.evaluation / (interval_steps * self.step)


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
