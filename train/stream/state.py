"""The stream's state as JSON: whole numbers only, checked before anything is changed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scheduler.errors import StateError
from train.stream.blocks import Standing

SETTINGS = ("seed", "batch_size", "num_rows", "level_sizes", "repetition", "supervised_lengths")
_PROGRESS = ("step", "num_samples", "debts", "weights", "left", "levels", "arrangement")
_KEYS = frozenset({*SETTINGS, *_PROGRESS})


def check_settings(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse the state of another stream, or one of another form.

    Args:
        state: What is to be loaded.
        own: The settings of the stream it is loaded into, by the names in `SETTINGS`.

    Raises:
        StateError: Keys are unknown or missing, or a setting differs.
    """
    if state.keys() != _KEYS:
        missing, unknown = sorted(_KEYS - state.keys()), sorted(state.keys() - _KEYS)
        raise StateError(f"stream state: missing keys {missing}, unknown keys {unknown}")
    if len(state["num_rows"]) != len(own["num_rows"]):
        raise StateError(f"stream state has {len(state['num_rows'])} tasks, this stream {len(own['num_rows'])}")
    for key in SETTINGS:
        if state[key] != own[key]:
            found, expected = (_shorten(value) for value in (state[key], own[key]))
            raise StateError(
                f"stream state: {key} is {found}, this stream has {expected}; "
                "resume with the data and settings it was saved with"
            )


def read_standing(state: Mapping[str, Any], *, num_tasks: int, batch_size: int) -> Standing:
    """Samples served, debts and who has left.

    Raises:
        StateError: They contradict each other.
    """
    served = np.array(state["num_samples"], dtype=np.int64)
    if served.shape != (num_tasks,) or (served < 0).any() or served.sum() != state["step"] * batch_size:
        raise StateError(f"stream state: num_samples do not add up to {state['step']} steps of {batch_size} samples")
    left = np.zeros(num_tasks, dtype=bool)
    if not all(0 <= task < num_tasks for task in state["left"]):
        raise StateError(f"stream state: left is {state['left']}; the stream has {num_tasks} tasks")
    left[state["left"]] = True
    debts = read_units(state, "debts", num_tasks=num_tasks, total=0)
    if (debts[left] != 0).any():
        raise StateError("stream state: a task that left the mixture has a debt")
    return Standing(served, debts, left)


def read_units(state: Mapping[str, Any], key: str, *, num_tasks: int, total: int) -> np.ndarray:
    """int64 [K] whole units that sum to `total`.

    Raises:
        StateError: They are not whole numbers, or not so many, or sum to something else.
    """
    values = np.array(state[key])
    if values.shape != (num_tasks,) or values.dtype != np.int64:
        raise StateError(f"stream state: {key} are not {num_tasks} whole numbers")
    if values.sum() != total:
        raise StateError(f"stream state: {key} sum to {values.sum()}, expected {total}")
    return values


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
