"""What the evaluation found and what the workers trained: the two kinds of evidence the engine reads."""

import math
import reprlib
from dataclasses import dataclass
from typing import Any, Self

from scheduler.fields import build, to_plain

_COUNTS = (
    "attempt",
    "step",
    "plan_version",
    "num_probes",
    "num_rejected",
    "num_reviewed",
    "num_human_rejected",
    "num_human_reviewed",
)
_RATIOS = ("score", "sampled_score", "format_compliance", "score_variance")
_MAX_COUNT = 2**53


@dataclass(frozen=True, slots=True)
class TaskSignal:
    """What one evaluation of one task at one step found.

    Attributes:
        task: Name of the task.
        attempt: Which start of the worker group produced the snapshot (0, 1, …; rises with every restart).
        step: Optimiser step whose weights were evaluated.
        plan_version: Plan under which that step was reached.
        num_probes: Number of held-out probes scored.
        score: Mean score of the probes by the task's checker, in [0, 1].
        loss: Mean held-out loss per supervised token, in nats.
        sampled_score: Mean score over repeated sampled outputs, in [0, 1].
        score_variance: Mean over probes of the variance of the score over repeated sampled outputs of that probe.
        num_rejected: Outputs the automatic reviewer rejected (broke any output rule).
        num_reviewed: Outputs the automatic reviewer read.
        format_compliance: Share of reviewed outputs that kept every rule of aspect `format`, in [0, 1].
        num_human_rejected: Verdicts "rejected" from people since the run started.
        num_human_reviewed: Verdicts from people since the run started.
        level_probes: Probes by difficulty level, easiest first; empty where the task has one level.
        level_successes: Sum of their scores by level; a count of right answers where scores are 0 or 1.
    """

    task: str
    attempt: int
    step: int
    plan_version: int
    num_probes: int
    score: float
    loss: float
    sampled_score: float
    score_variance: float
    num_rejected: int
    num_reviewed: int
    format_compliance: float
    num_human_rejected: int = 0
    num_human_reviewed: int = 0
    level_probes: tuple[int, ...] = ()
    level_successes: tuple[float, ...] = ()

    def fault(self) -> str | None:
        """Say why this signal cannot be used, or None. Never raises, whatever the fields hold."""
        if not isinstance(self.task, str):
            return f"task is {shown(self.task)}; expected a name"
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
                return f"{name} is {shown(value)}; expected a whole number from 0 to 2**53"
        if self.num_probes == 0:
            return "num_probes is 0: nothing was measured"
        for name in _RATIOS:
            if not _is_finite(getattr(self, name)) or not 0.0 <= getattr(self, name) <= 1.0:
                return f"{name} is {shown(getattr(self, name))}; expected a number in [0, 1]"
        if not _is_finite(self.loss) or self.loss < 0:
            return f"loss is {shown(self.loss)}; expected a finite number >= 0"
        if self.num_rejected > self.num_reviewed or self.num_human_rejected > self.num_human_reviewed:
            return "more outputs were rejected than reviewed"
        return self._fault_of_levels()

    def to_fields(self) -> dict[str, Any]:
        """All fields, as JSON gives them back."""
        return to_plain(self)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Inverse of `to_fields`."""
        return build(cls, fields)

    def _fault_of_levels(self) -> str | None:
        counts, sums = self.level_probes, self.level_successes
        for name, values in (("level_probes", counts), ("level_successes", sums)):
            if type(values) is not tuple or not all(_is_finite(value) and value >= 0 for value in values):
                return f"{name} is {shown(values)}; expected a tuple of finite numbers >= 0"
        if not all(isinstance(count, int) for count in counts):
            return "level_probes are not whole numbers"
        if len(counts) != len(sums) or any(total > count for count, total in zip(counts, sums, strict=True)):
            return "level_successes do not fit level_probes: one sum a level, at most its probes"
        if counts and sum(counts) != self.num_probes:
            return f"level_probes add up to {sum(counts)}; num_probes is {self.num_probes}"
        return None


@dataclass(frozen=True, slots=True)
class SkippedStep:
    """A step whose loss or gradient was not a finite number: its samples were served, and nothing was learnt from them.

    Attributes:
        step: The optimiser step.
        broken: `loss` or `gradient`: the first of the two that was not finite.
        tasks: Names of the tasks of `rows`, without repetition.
        rows: The rows whose loss was not finite, or all rows of the batch where every loss was, as "task: id (source,
            line)".
    """

    step: int
    broken: str
    tasks: tuple[str, ...]
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskGradient:
    """One task's gradient beside the update that was applied (`train.influence` measures it).

    Attributes:
        task: Name of the task.
        step: Optimiser step, from 0, whose update it is compared with.
        num_rows: Training rows it was measured on, an even number.
        norm: Norm of the gradient of the mean loss per supervised token over those rows.
        variance: Of the gradient of a single row, summed over the parameters; unbiased.
        cosine: Of the descent direction of the task and the update, in [-1, 1]; below 0 the update raises its loss.
    """

    task: str
    step: int
    num_rows: int
    norm: float
    variance: float
    cosine: float

    @property
    def squared_norm(self) -> float:
        """Squared norm of the expected gradient; unbiased, so it may be below 0."""
        return self.norm**2 - self.variance / self.num_rows

    @property
    def pull(self) -> float:
        """Fall of the task's loss per unit of the update's length, nats per token: norm times cosine."""
        return self.norm * self.cosine


@dataclass(frozen=True, slots=True)
class IntervalReport:
    """What the workers trained up to an interval boundary, from rank 0.

    Attributes:
        attempt: Which start of the worker group reports.
        step: The boundary: steps [0, step) are done.
        plan_version: Plan in force from this step on.
        num_samples: Samples served per task since step 0, in the order of the plan's tasks.
        num_tokens: Supervised tokens trained per task since step 0.
        train_loss: Mean training loss per supervised token per task over the last interval; None where none was seen.
        sequence_hash: Order-independent hash of every (step, slot, task, row, arrangement offered) trained since step
            0, modulo 2**63; gathered from what the ranks really trained.
        num_arranged: Samples trained alone, in a chain and in a contrast since step 0.
        num_own_answers: Of those in a chain, the ones trained after the model's own earlier answer.
        skipped_steps: Steps of the last interval that changed no weight.
        num_halvings: How often micro-batches were halved since step 0 because memory ran out.
        gradients: Of the tasks measured in the last interval.
    """

    attempt: int
    step: int
    plan_version: int
    num_samples: tuple[int, ...]
    num_tokens: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    sequence_hash: int
    num_arranged: tuple[int, int, int] = (0, 0, 0)
    num_own_answers: int = 0
    skipped_steps: tuple[SkippedStep, ...] = ()
    num_halvings: int = 0
    gradients: tuple[TaskGradient, ...] = ()


def shown(value: object) -> str:
    """`value` in a few words, whatever it is: short, printable, never raising."""
    if isinstance(value, int) and abs(value) > _MAX_COUNT:
        return f"a whole number of {value.bit_length()} bits"
    if value is None or isinstance(value, (str, int, float)):
        return reprlib.repr(value)
    return f"an object of type {type(value).__name__}"


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_COUNT
