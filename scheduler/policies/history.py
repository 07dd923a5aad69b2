"""What has been measured and trained so far, task by task: the memory behind the columns of `Evidence`.

Kept by the engine whatever the policy, so that a policy that takes over in stage 2 begins with all that is known. NaN
stands for what was never measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from scheduler.arrays import packed, unpacked
from scheduler.evaluation import Evaluation
from scheduler.policies.base import Array
from scheduler.signals import TaskGradient


@dataclass(slots=True)
class History:
    """Arrays [K]. Losses are nats per supervised token; `counted` are samples or supervised tokens since step 0.

    `measured_at` is the number of the evaluation that measured a task last (1, 2, …) and `served_then`, `total_then`
    what had been served of it and of all tasks by then; `evaluations` is the same number for every task. `gradient_new`
    is 1 for a task whose gradient has been measured since the last evaluation, and 2 while that one is decided on.
    """

    evaluations: Array
    measured_at: Array
    span: Array
    score: Array
    first_score: Array
    previous_score: Array
    loss: Array
    first_loss: Array
    previous_loss: Array
    reported_train_loss: Array
    train_loss: Array
    first_train_loss: Array
    previous_train_loss: Array
    last_train_loss: Array
    gradient_squared: Array
    gradient_variance: Array
    gradient_pull: Array
    gradient_new: Array
    counted: Array
    served_then: Array
    total_then: Array
    exposure: Array
    total_exposure: Array

    @classmethod
    def new(cls, num_tasks: int) -> Self:
        """Nothing measured, nothing served."""
        history = cls(*(np.full(num_tasks, np.nan) for _ in fields(cls)))
        history.evaluations = np.zeros(num_tasks)
        history.counted = np.zeros(num_tasks)
        history.gradient_new = np.zeros(num_tasks)
        return history

    def observe_interval(self, *, counted: Sequence[int], train_loss: Sequence[float | None]) -> None:
        """Take in a boundary report. A training loss that is no finite number >= 0 counts as none."""
        self.counted = np.array(counted, dtype=np.float64)
        losses = np.array([np.nan if loss is None else loss for loss in train_loss], dtype=np.float64)
        self.reported_train_loss = np.where(np.isfinite(losses) & (losses >= 0.0), losses, np.nan)

    def observe_gradients(self, gradients: Mapping[int, TaskGradient]) -> None:
        """Take in what the workers measured of some tasks, by index. What holds no finite numbers counts as nothing."""
        for index, gradient in gradients.items():
            numbers = (gradient.squared_norm, gradient.variance, gradient.pull)
            if np.isfinite(numbers).all() and gradient.variance >= 0.0:
                self.gradient_squared[index], self.gradient_variance[index], self.gradient_pull[index] = numbers
                self.gradient_new[index] = 1.0

    def fold(self, evaluation: Evaluation) -> None:
        """Take in one evaluation; a training loss reported since the evaluation before counts for this one."""
        choose = evaluation.choice()
        self.gradient_new = np.where(self.gradient_new == 1.0, 2.0, 0.0)
        self.evaluations = self.evaluations + 1.0
        self.span = choose(self.evaluations - self.measured_at, self.span)
        self.measured_at = choose(self.evaluations, self.measured_at)
        self._fold_scores(evaluation)
        self._fold_exposure(evaluation)
        self._fold_train_loss()

    def _fold_scores(self, evaluation: Evaluation) -> None:
        fresh, score, loss = evaluation.measured, evaluation["score"], evaluation["loss"]
        first, choose = fresh & np.isnan(self.first_loss), evaluation.choice()
        self.first_score = np.where(first, score, self.first_score)
        self.first_loss = np.where(first, loss, self.first_loss)
        self.previous_score = choose(self.score, self.previous_score)
        self.previous_loss = choose(self.loss, self.previous_loss)
        self.score = choose(score, self.score)
        self.loss = choose(loss, self.loss)

    def _fold_exposure(self, evaluation: Evaluation) -> None:
        choose, total = evaluation.choice(), float(self.counted.sum())
        self.exposure = choose(np.maximum(self.counted - self.served_then, 0.0), self.exposure)
        self.total_exposure = choose(np.maximum(total - self.total_then, 0.0), self.total_exposure)
        self.served_then = choose(self.counted, self.served_then)
        self.total_then = choose(np.full(len(self.counted), total), self.total_then)

    def _fold_train_loss(self) -> None:
        newest = self.reported_train_loss
        trained = np.isfinite(newest)
        self.previous_train_loss = np.where(trained, self.last_train_loss, self.previous_train_loss)
        self.first_train_loss = np.where(trained & np.isnan(self.first_train_loss), newest, self.first_train_loss)
        self.last_train_loss = np.where(trained, newest, self.last_train_loss)
        self.train_loss = newest
        self.reported_train_loss = np.full_like(newest, np.nan)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy."""
        return {field.name: packed(getattr(self, field.name)) for field in fields(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError on unknown or missing keys or another number of tasks."""
        expected = {field.name: getattr(self, field.name).shape for field in fields(self)}
        for name, array in unpacked(state, expected, what="history").items():
            setattr(self, name, array)
