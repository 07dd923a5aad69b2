"""Files into raw records, in bounded memory: JSONL, JSON arrays, CSV, Parquet, Arrow.

    path ─ find_files ─► files ─ shards ─► shards ─ read_shard ─► (line, record or BadRecord)

A shard is a small value that travels between processes; shards read one after another give what the whole file gives.
What cannot be read is a `BadRecord` with the rule it breaks, and costs only itself; a file that cannot be read as a
whole (a Parquet footer, a text in UTF-16) is a DataError. Nothing here knows of tasks or of what a column means.
"""

from train.data.files.paths import EXTENSIONS, DataFile, find_files, is_url, open_binary
from train.data.files.record import BadRecord, Record
from train.data.files.shards import SHARD_BYTES, Shard, read_shard, shards

__all__ = [
    "EXTENSIONS",
    "SHARD_BYTES",
    "BadRecord",
    "DataFile",
    "Record",
    "Shard",
    "find_files",
    "is_url",
    "open_binary",
    "read_shard",
    "shards",
]
