"""Array helpers of a decision, and arrays as they stand in a checkpoint.

`clip` and `chooser` give what numpy's own give, bit for bit, without what those do beyond the work.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.errors import StateError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Choose = Callable[[Any, Any], Any]


def clip(values: Any, low: Any, high: Any) -> Any:
    """`np.clip` without what it does around its two ufuncs, which on a thousand numbers costs more than they do."""
    return np.minimum(np.maximum(values, low), high)


def chooser(where: Mask, *, all_chosen: bool) -> Choose:
    """`np.where(where, new, old)` as a function of two arrays [K]; where all tasks are chosen it hands `new` back."""
    if all_chosen:
        return lambda new, _old: new
    return lambda new, old: np.where(where, new, old)


def packed(array: Array | Mask) -> str:
    """The numbers as text: 8 bytes each, little-endian, row by row, in base 64. NaN and infinity are numbers here."""
    return b64encode(np.ascontiguousarray(array, dtype="<f8").tobytes()).decode("ascii")


def unpacked(state: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], *, what: str) -> dict[str, Array]:
    """Inverse of `packed` for a mapping of arrays of the expected shapes.

    Raises:
        StateError: Unknown or missing keys, or an array of another size.
    """
    if state.keys() != expected.keys():
        raise StateError(f"{what} state has the keys {sorted(state)}; expected {sorted(expected)}")
    found: dict[str, Array] = {}
    for name, text in state.items():
        try:
            numbers = np.frombuffer(b64decode(text, validate=True), dtype="<f8").astype(np.float64)
            found[name] = numbers.reshape(expected[name])
        except (ValueError, TypeError) as error:
            raise StateError(f"{what}.{name} is no array of the shape {expected[name]} of this run: {error}") from error
    return found
