"""One way to build the stream of a run: worker, audit, trace and bench all ask here, so they all get the same one."""

from collections.abc import Sequence

import numpy as np

from scheduler.errors import ConfigError
from scheduler.setup import EngineSetup
from train.stream.mixture import MixtureStream


def open_stream(setup: EngineSetup, *, supervised_lengths: Sequence[np.ndarray] | None = None) -> MixtureStream:
    """The stream of the run `setup` describes, at step 0 and without a plan.

    Args:
        setup: The run's setup, from its job or its ledger.
        supervised_lengths: int [rows] per task, the store's; needed with `mixture.weight_unit: tokens`, else ignored.

    Raises:
        ConfigError: Weights are shares of tokens and no lengths were given.
        DataError: See `MixtureStream`.
    """
    in_tokens = setup.mixture.weight_unit == "tokens"
    if in_tokens and supervised_lengths is None:
        raise ConfigError(
            "mixture.weight_unit is tokens: the stream needs the supervised lengths of every training row "
            "(TokenStore.supervised_lengths of the run's prepared data), and none were given"
        )
    return MixtureStream(
        num_rows=setup.num_rows,
        batch_size=setup.global_batch_size,
        seed=setup.seed,
        level_sizes=setup.level_sizes,
        repetition=[task.repetition for task in setup.tasks],
        supervised_lengths=supervised_lengths if in_tokens else None,
    )
