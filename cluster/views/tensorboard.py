"""The run as TensorBoard scalars, see `cluster.views.scalars`.

After a restart the steps that are trained again replace their first telling (TensorBoard's purge step).
"""

from pathlib import Path

from tensorboardX import SummaryWriter

from cluster.views.scalars import ScalarStream
from scheduler.records import AttemptRecord, Record


class TensorBoardWriter:
    """Writes event files into `directory`, made if missing. Call `close` at the end of the run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._scalars = ScalarStream()
        self._writer = SummaryWriter(logdir=str(directory))

    def observe(self, record: Record) -> None:
        """Take in the next record of the ledger and write what it measures."""
        scalars = self._scalars.observe(record)
        if isinstance(record, AttemptRecord) and record.attempt > 0:
            self._writer.close()
            self._writer = SummaryWriter(
                logdir=str(self._directory), purge_step=record.step + 1, filename_suffix=f".attempt{record.attempt}"
            )
        if scalars is not None:
            for tag, value in scalars.values.items():
                self._writer.add_scalar(tag, value, scalars.step)

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._writer.close()
