"""The ledger as Parquet, for analysis with any tool: one row a signal, one row a task and decision."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scheduler.records import DecisionRecord, Record, SignalRecord


def write_ledger_tables(records: Iterable[Record], directory: Path) -> None:
    """Write signals.parquet and decisions.parquet into `directory`; what restarts undid is in them too."""
    signals, decisions = [], []
    for record in records:
        if isinstance(record, SignalRecord):
            signals.append(asdict(record.signal))
        elif isinstance(record, DecisionRecord):
            plan = record.plan
            head = {
                "version": plan.version,
                "source_step": plan.source_step,
                "stage": plan.stage,
                "state": record.state,
            }
            head |= {"effective_from_step": plan.effective_from_step, "held": record.held}
            decisions += [head | asdict(task) for task in record.tasks]
    pq.write_table(pa.Table.from_pylist(signals), directory / "signals.parquet")
    pq.write_table(pa.Table.from_pylist(decisions), directory / "decisions.parquet")
