"""How far the stream may fall behind a task's cumulative share; the rule itself is `train.stream.apportion`'s."""

import numpy as np


def debt_bound(num_tasks: int) -> float:
    """No debt ever reaches this many samples, whatever the sequence of plans.

    Proof. Let A(j) be the mean of the j largest debts after a step. After a step that serves all that is due, debts
    lie in (-1, 1) and sum to zero: A(j) < min(1, (K-j)/j). In any other step the largest quota is served, sample by
    sample; let S be the j largest debts afterwards and U the u tasks outside S that were served. If u = 0, A(j) did not
    rise. Otherwise S and U together gained at most B and were served B, and each of U ended at most 1 below the top of
    S (it was the largest when served), so A(j) <= A'(j+u) + u/(j+u), A' being the means before. As
    u/(j+u) <= 1/(j+1) + ... + 1/(j+u), unrolling to the last step that served all that was due gives
    A(1) < max over j of min(1, (K-j)/j) + H(j) - 1, which is largest at j = K // 2. (The harmonic growth is that of the
    cup emptying game. A searching adversary reached 1.44 of 1.5 samples at K = 4, 3.7 of 4.5 at 100.)
    """
    return max(1.0, float(np.sum(1.0 / np.arange(1, num_tasks // 2 + 1))))
