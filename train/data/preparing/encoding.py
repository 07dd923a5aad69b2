"""Pass 3: rows into tokens, shard by shard; a row that cannot be encoded, or is too long, becomes a refusal.

`tokens-00003.arrow` holds, for the rows of shard 3 that could be encoded: `row` (place in the shard), `input_ids`, and
`spans` flattened to start, end, start, end, ...
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from transformers.utils.hub import TRANSFORMERS_DYNAMIC_MODULE_NAME

from train.data.preparing.index import RefusalCounts
from train.data.preparing.spill import (
    REFUSAL_SCHEMA,
    ArrowFile,
    ParquetFile,
    Text,
    iterate_batches,
    part,
)
from train.data.row import Refusal, parse_messages
from train.tokenizer import ChatTemplate, Encoded, EncodingFault, LossOn, encode_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK_ROWS = 1024
_COLUMNS = ["task", "source", "line", "messages", "answer"]
TOKEN_SCHEMA = pa.schema(
    [("row", pa.int32()), ("input_ids", pa.large_list(pa.int32())), ("spans", pa.large_list(pa.int32()))]
)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer on disk and how it is used; small, so that it travels with every shard.

    Attributes:
        path: File or folder that `save` wrote.
        chat_template: How prompts are rendered.
        loss_on: Which assistant turns are supervised.
        max_length: Tokens of a row at most.
    """

    path: Path
    chat_template: ChatTemplate
    loss_on: LossOn
    max_length: int

    def save(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Write the tokenizer where every process finds it, together with its code where it has any of its own.

        A pickle names the module of that code, which other processes and machines have not loaded.
        """
        if not _has_own_code(tokenizer):
            self.path.write_bytes(pickle.dumps(tokenizer))
            return
        tokenizer.save_pretrained(self.path)
        _tokenizer(self.path)  # before several processes at once put that code into this machine's one place for it

    def encode(self, texts: Sequence[Text], *, loss_on: LossOn | None = None) -> list[Encoded | EncodingFault]:
        """Encode conversations, those that are too long included; `loss_on` replaces the encoder's own."""
        examples = [(text.messages, text.answer) for text in texts]
        return encode_examples(_tokenizer(self.path), examples, self.chat_template, loss_on=loss_on or self.loss_on)


@lru_cache(maxsize=2)
def _tokenizer(path: Path) -> "PreTrainedTokenizerBase":
    if path.is_file():
        return pickle.loads(path.read_bytes())
    from train.model_path import load_tokenizer

    return load_tokenizer(path, trust_remote_code=True)  # the code has run before, or it would not be there


def _has_own_code(tokenizer: "PreTrainedTokenizerBase") -> bool:
    return type(tokenizer).__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}.")


@dataclass(frozen=True, slots=True)
class ShardToEncode:
    """One shard: its number, its source's, and which of its rows are wanted, bool [rows of the shard]."""

    number: int
    source: int
    wanted: np.ndarray


@dataclass(frozen=True, slots=True)
class ShardTokens:
    """What encoding one shard gave, beside its file.

    Attributes:
        lengths: int32 [rows of the shard]; tokens of each row, 0 where it was not wanted or is refused.
        refusals: The wanted rows that are refused.
    """

    lengths: np.ndarray
    refusals: RefusalCounts


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """Encodes shards of the spill."""

    encoder: Encoder
    spill: Path

    def __call__(self, item: ShardToEncode) -> ShardTokens:
        """Encode one shard."""
        lengths, counts = np.zeros(len(item.wanted), dtype=np.int32), RefusalCounts()
        start = 0
        with (
            ArrowFile(part(self.spill, "tokens", item.number), TOKEN_SCHEMA) as tokens,
            ParquetFile(part(self.spill, "faults", item.number), REFUSAL_SCHEMA) as faults,
        ):
            for batch in iterate_batches(part(self.spill, "rows", item.number)):
                wanted = np.flatnonzero(item.wanted[start : start + batch.num_rows])
                for chunk in np.split(wanted, range(_CHUNK_ROWS, len(wanted), _CHUNK_ROWS)):
                    texts = batch.select(_COLUMNS).take(pa.array(chunk))
                    good = self._encode_chunk(texts, chunk + start, item.source, counts, faults)
                    if good:
                        tokens.write(token_batch(good))
                        for row, encoded in good:
                            lengths[row] = len(encoded.input_ids)
                start += batch.num_rows
        return ShardTokens(lengths, counts)

    def _encode_chunk(
        self, batch: pa.RecordBatch, rows: np.ndarray, source: int, counts: RefusalCounts, faults: ParquetFile
    ) -> list[tuple[int, Encoded]]:
        columns = (batch.column(name).to_pylist() for name in ("messages", "answer"))
        texts = [Text(parse_messages(messages), answer) for messages, answer in zip(*columns, strict=True)]
        good: list[tuple[int, Encoded]] = []
        for place, (row, found) in enumerate(zip(rows.tolist(), self.encoder.encode(texts), strict=True)):
            if isinstance(found, EncodingFault):
                rule, reason = found.rule, found.reason
            elif len(found.input_ids) > self.encoder.max_length:
                rule, limit = "too_long", self.encoder.max_length
                reason = f"{len(found.input_ids)} tokens of prompt and answer, more than max_length {limit}"
            else:
                good.append((row, found))
                continue
            task, file, line = (batch.column(name)[place].as_py() for name in ("task", "source", "line"))
            refusal = Refusal(task, file, line, rule, reason)
            counts.add(source, refusal)
            faults.add({name: getattr(refusal, name) for name in REFUSAL_SCHEMA.names})
        return good


def token_batch(rows: Sequence[tuple[int, Encoded]]) -> pa.RecordBatch:
    """Rows with their tokens as a batch of `TOKEN_SCHEMA`."""
    spans = [np.array(encoded.spans, dtype=np.int32).ravel() for _, encoded in rows]
    return pa.record_batch(
        [
            pa.array([row for row, _ in rows], pa.int32()),
            int_lists([encoded.input_ids for _, encoded in rows]),
            int_lists(spans),
        ],
        schema=TOKEN_SCHEMA,
    )


def int_lists(lists: Sequence[np.ndarray | None]) -> pa.LargeListArray:
    """Arrays of int32 as a column, None as null."""
    sizes = [0 if item is None else len(item) for item in lists]
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    full = [item for item in lists if item is not None]
    values = np.concatenate(full).astype(np.int32, copy=False) if full else np.empty(0, dtype=np.int32)
    missing = pa.array([item is None for item in lists]) if len(full) < len(lists) else None
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values), mask=missing)
