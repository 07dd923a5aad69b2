"""Lineage: one row of `lineage.parquet` for every row of the store, in store order.

What a preparation knows of a row beside its tokens: where it stood, what the source says of it, what judged it, and
with which other rows it is put before the model.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scheduler.errors import DataError
from train.data.preparing.spill import LINEAGE_COLUMNS
from train.data.row import DIFFICULTY_FACTORS

LINEAGE_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("split", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("source_hash", pa.string()),
        ("content_hash", pa.string()),
        ("parent_id", pa.string()),
        *((name, pa.string()) for name in LINEAGE_COLUMNS),
        *((name, pa.float64()) for name in DIFFICULTY_FACTORS),
        ("difficulty", pa.float64()),
        ("level", pa.int16()),
        ("flags", pa.list_(pa.string())),
        ("verification_version", pa.string()),
        ("ontology_version", pa.string()),
        ("num_tokens", pa.int32()),
        ("num_supervised_tokens", pa.int32()),
        ("chain_length", pa.int32()),
        ("contrast_with", pa.string()),
        ("prepared_with", pa.string()),
    ]
)
"""`row` is the row's number within its task and split, `level` its difficulty level from 0 (null but in training rows).

`source_hash` is that of the whole file; `verification_version` of the rules that judged the row and `ontology_version`
of its task's card. `chain_length` counts the rows put before it in the chain arrangement (0: none), `contrast_with` is
the content hash of the row put before it in the contrast arrangement, and `prepared_with` the program.
"""


def prepared_with() -> str:
    """Name and version of this program."""
    try:
        return f"taskheat {version('taskheat')}"
    except PackageNotFoundError:
        return "taskheat"


def read_lineage(path: Path, positions: Sequence[int]) -> list[dict[str, Any]]:
    """The lineage of the rows at these places of the store, in their order; reads only the row groups they lie in.

    Raises:
        DataError: The file cannot be read.
        IndexError: A place is beyond the last row.
    """
    try:
        with pq.ParquetFile(path) as file:
            return _read(file, np.asarray(positions, dtype=np.int64))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"no readable lineage at {path} ({error}); "
            f"delete the prepared folder {path.parent.parent} and prepare again"
        ) from error


def _read(file: pq.ParquetFile, positions: np.ndarray) -> list[dict[str, Any]]:
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if len(positions) and not 0 <= positions.min() <= positions.max() < starts[-1]:
        raise IndexError(f"the lineage has {starts[-1]} rows, not a row {positions.max()}")
    groups = np.searchsorted(starts, positions, side="right") - 1
    found: list[dict[str, Any]] = [{}] * len(positions)
    for group in np.unique(groups).tolist():
        places = np.flatnonzero(groups == group)
        records = file.read_row_group(group).take(pa.array(positions[places] - starts[group])).to_pylist()
        for place, record in zip(places.tolist(), records, strict=True):
            found[place] = record
    return found
