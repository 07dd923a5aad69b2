"""Array helpers of a decision, where numpy's own do more than the work needs. Results are the same, bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
