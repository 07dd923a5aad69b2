"""Evidence written out by hand, for the arithmetic of single policies: one task a column, the rest unremarkable."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scheduler.policies import Evidence, Memory, Rule, Target
from scheduler.policies.base import Answer


def evidence(num_tasks: int, *, step: int = 100, progress: float = 0.5, **columns: Any) -> Evidence:
    """`num_tasks` tasks with equal priors, all measured now and one evaluation ago; `columns` say what is different."""
    equal = np.full(num_tasks, 1.0 / num_tasks)
    usual: dict[str, Any] = {
        "prior": equal,
        "previous": equal,
        "num_rows": np.full(num_tasks, 100.0),
        "learnability": np.ones(num_tasks),
        "given_up": np.zeros(num_tasks, dtype=bool),
        "long_tail": np.zeros(num_tasks, dtype=bool),
        "measured": np.ones(num_tasks, dtype=bool),
        "fresh": np.ones(num_tasks, dtype=bool),
        "span": np.ones(num_tasks),
        "exposure": 100.0 * equal,
        "total_exposure": np.full(num_tasks, 100.0),
        "served": np.full(num_tasks, 100.0),
    }
    for name in ("heat", "gap", "score", "first_score", "best_score", "previous_score"):
        usual[name] = np.full(num_tasks, 0.5)
    for name in ("loss", "first_loss", "best_loss", "previous_loss", "train_loss"):
        usual[name] = np.ones(num_tasks)
    for name in ("previous_train_loss", "first_train_loss"):
        usual[name] = np.ones(num_tasks)
    for name in ("gradient_squared", "gradient_variance", "gradient_pull"):
        usual[name] = np.ones(num_tasks)
    usual["gradient_fresh"] = np.ones(num_tasks, dtype=bool)
    usual |= {name: np.array(values) for name, values in columns.items()}
    return Evidence(**usual, step=step, progress=progress)


def asked(answer: Answer) -> np.ndarray:
    """The shares [K] asked for."""
    assert isinstance(answer.outcome, Target)
    odds = np.exp(answer.outcome.logits - answer.outcome.logits.max())
    return odds / odds.sum()


def last_asked(rule: Rule, seen: Sequence[Evidence]) -> tuple[np.ndarray, Memory]:
    """Shares asked for on the last of several evaluations, and the memory after it."""
    memory = rule.first_memory(len(seen[0].prior))
    shares = seen[0].prior
    for one in seen:
        answer = rule.step(one, memory)
        shares, memory = asked(answer), answer.memory
    return shares, memory
