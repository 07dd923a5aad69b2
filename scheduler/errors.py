"""Every error a user can meet.

    TaskheatError               base; the command line prints it and exits with code 2
    ├── ConfigError             a setting is unknown, of the wrong type, or impossible together with another
    ├── DataError               a source, a row or a task's pool cannot be trained on
    ├── ResourceError           the cluster cannot give what the launch asks for
    ├── RunDirectoryError       the run directory belongs to another run, or is not a run
    ├── StateError              a saved state does not fit the object it is loaded into
    │   └── DamagedCheckpointError   a checkpoint is not what was written
    ├── LedgerError             a ledger is damaged or does not say what it must
    ├── ReplayMismatchError     recomputing a ledger gave another plan than the one recorded
    ├── PreemptedError          a worker was told to end; its group goes on elsewhere
    └── RunFailedError          the workers failed more often than allowed (exit code 1, not 2)

A message names the value, the place and the remedy. Assertions are kept for what cannot happen.
"""


class TaskheatError(Exception):
    """Base of every error a user can meet. `exit_code` is the command's: 2 says that the user must change something."""

    exit_code = 2


class ConfigError(TaskheatError):
    """A setting is unknown, of the wrong type, or impossible together with another."""


class DataError(TaskheatError):
    """A source, a row or a task's pool cannot be trained on."""


class ResourceError(TaskheatError):
    """The cluster cannot give what the launch asks for."""


class RunDirectoryError(TaskheatError):
    """The run directory belongs to another run, or is not a run."""


class StateError(TaskheatError):
    """A saved state does not fit the object it is loaded into."""


class DamagedCheckpointError(StateError):
    """A checkpoint is incomplete, truncated, altered or cannot be read; an older one may serve."""


class LedgerError(TaskheatError):
    """A ledger is damaged or does not say what it must."""


class ReplayMismatchError(TaskheatError):
    """Recomputing a ledger gave another plan than the one recorded."""


class PreemptedError(TaskheatError):
    """A worker was told to end; its group goes on elsewhere, from the checkpoint it took."""

    exit_code = 1


class RunFailedError(TaskheatError):
    """The workers failed more often than `launch.max_failures` allows, or training diverged."""

    exit_code = 1
