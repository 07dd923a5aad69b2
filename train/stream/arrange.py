"""Which arrangement each sample is offered: single, chain or contrast, dealt by share within every task.

Since the last change of the shares, each task's samples are offered each arrangement its share of times to within two
samples (`train.stream.interleave`). Offered, not given: a row without parents or relatives stands alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scheduler.errors import ConfigError, StateError
from scheduler.plan import SINGLE_ONLY
from train.stream.interleave import deal

_UNITS = 1 << 30
_SUM_TOLERANCE = 1e-6
_ARRANGE_STREAM = 5
_STATE_KEYS = frozenset({"shares", "begun_at"})


class ArrangementDeal:
    """Deals arrangement codes (0 single, 1 chain, 2 contrast) to each task's samples."""

    def __init__(self, num_tasks: int, *, seed: int) -> None:
        self._num_tasks, self._seed = num_tasks, seed ^ _ARRANGE_STREAM
        self.restart()

    def restart(self) -> None:
        """Offer every sample alone."""
        self._shares, self._begun_at = (_UNITS, 0, 0), np.zeros(self._num_tasks, dtype=np.int64)

    def follow(self, shares: tuple[float, float, float], *, num_samples: np.ndarray) -> bool:
        """Take new shares from sample `num_samples` [K] of each task on; answers whether they differ.

        Raises:
            ConfigError: The shares are not three numbers >= 0 that sum to one.
        """
        if shares == SINGLE_ONLY and self._shares[0] == _UNITS:
            return False
        if not all(share >= 0 for share in shares) or abs(sum(shares) - 1) > _SUM_TOLERANCE:
            raise ConfigError(f"arrangement shares are {shares}; give three numbers >= 0 that sum to one")
        chain = min(round(shares[1] * _UNITS), _UNITS)
        contrast = min(round(shares[2] * _UNITS), _UNITS - chain)
        units = (_UNITS - chain - contrast, chain, contrast)
        if units == self._shares:
            return False
        self._shares, self._begun_at = units, num_samples.copy()
        return True

    def codes(self, tasks: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """int8 [N]: what each task's sample `numbers` [N] is offered; numbers are not before the shares' first."""
        if self._shares[0] == _UNITS:
            return np.zeros(len(tasks), dtype=np.int8)
        cuts = np.broadcast_to(np.cumsum((0, *self._shares)), (self._num_tasks, 4))
        first, end = np.zeros(len(tasks), dtype=np.int64), np.full(len(tasks), 3)
        codes, _ = deal(cuts, tasks, numbers - self._begun_at[tasks], first=first, end=end, seed=self._seed)
        return codes.astype(np.int8)

    def state_dict(self) -> dict[str, Any] | None:
        """JSON-able; None while every sample is offered alone."""
        if self._shares[0] == _UNITS:
            return None
        return {"shares": list(self._shares), "begun_at": self._begun_at.tolist()}

    def load_state_dict(self, state: Mapping[str, Any] | None, *, num_samples: np.ndarray) -> None:
        """Inverse of `state_dict`.

        Raises:
            StateError: Keys are unknown or missing, or the numbers fit neither each other nor `num_samples` [K].
        """
        if state is None:
            self.restart()
            return
        if state.keys() != _STATE_KEYS:
            raise StateError(f"stream state: arrangement has the keys {sorted(state)}, expected {sorted(_STATE_KEYS)}")
        shares, begun_at = state["shares"], np.array(state["begun_at"], dtype=np.int64)
        if len(shares) != 3 or min(shares) < 0 or sum(shares) != _UNITS:
            raise StateError(f"stream state: arrangement shares are {shares}; expected three that sum to {_UNITS}")
        if begun_at.shape != num_samples.shape or (begun_at < 0).any() or (begun_at > num_samples).any():
            raise StateError("stream state: the arrangement begins after the samples already served")
        self._shares, self._begun_at = (shares[0], shares[1], shares[2]), begun_at
