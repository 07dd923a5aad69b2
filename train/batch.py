"""Micro-batches: rows laid end to end (packed), or padded to the longest; loss positions marked explicitly.

Shapes: B rows, T tokens of the longest row (padded) or of all rows (packed), N supervised tokens in all rows.
The order of rows and of their supervised tokens is the same in both forms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from train.attention import PackedSequences


class SupervisedTokens(Protocol):
    """One row, as `train.data.store.EncodedRow` has it.

    `input_ids` is int32 [T]; `spans` int32 [S, 2]: tokens of the half-open, ascending, disjoint spans are supervised,
    each of which starts at 1 or later.
    """

    @property
    def input_ids(self) -> np.ndarray: ...

    @property
    def spans(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """One micro-batch on a device.

    Attributes:
        input_ids: [B, T] int64, right-padded; packed: [1, T].
        attention_mask: [B, T] int64, 1 on real tokens; packed: None.
        predicts_answer: [B, T] bool, the N positions whose logits predict a supervised token; packed: those positions,
            [N] int64. Either is what `logits_to_keep` takes.
        labels: [N] int64, the supervised tokens, row by row.
        rows: [N] int64, row of each supervised token.
        position_ids: packed: [1, T] int64, from 0 in every row; padded: None.
        sequences: packed: where the rows lie; padded: None.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    predicts_answer: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    position_ids: torch.Tensor | None = None
    sequences: PackedSequences | None = None


def collate(
    encoded: Sequence[SupervisedTokens], *, pad_id: int, device: torch.device, packed: bool = False
) -> TokenBatch:
    """Make a micro-batch of rows. Position p - 1 predicts token p, for every p in a row's spans.

    Args:
        encoded: At least one row.
        pad_id: Token that fills up short rows where they are padded.
        device: Where the tensors go.
        packed: Lay the rows end to end; only for a model that `train.packing.accepts_packed` vouches for.
    """
    lengths = np.array([len(row.input_ids) for row in encoded])
    return _packed(encoded, lengths, device) if packed else _padded(encoded, lengths, pad_id, device)


def _packed(encoded: Sequence[SupervisedTokens], lengths: np.ndarray, device: torch.device) -> TokenBatch:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([row.input_ids for row in encoded]).astype(np.int64)
    targets, rows = _targets(encoded, row_starts=starts[:-1])

    def move(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return TokenBatch(
        input_ids=move(ids[None]),
        attention_mask=None,
        predicts_answer=move(targets - 1),
        labels=move(ids[targets]),
        rows=move(rows),
        position_ids=move(_ranges(np.zeros_like(lengths), lengths)[None]),
        sequences=PackedSequences(tuple(lengths.tolist()), move(starts.astype(np.int32))),
    )


def _padded(encoded: Sequence[SupervisedTokens], lengths: np.ndarray, pad_id: int, device: torch.device) -> TokenBatch:
    shape = (len(encoded), int(lengths.max()))
    ids = np.full(shape, pad_id, dtype=np.int64)
    for index, row in enumerate(encoded):
        ids[index, : lengths[index]] = row.input_ids
    mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    targets, rows = _targets(encoded, row_starts=np.arange(shape[0]) * shape[1])
    predicts = np.zeros(shape, dtype=bool)
    predicts.reshape(-1)[targets - 1] = True
    arrays = (ids, mask, predicts, ids.reshape(-1)[targets], rows)
    ids, mask, predicts, labels, rows = (torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
    return TokenBatch(ids, mask, predicts, labels, rows)


def _targets(encoded: Sequence[SupervisedTokens], *, row_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the supervised tokens in the flat batch, and their rows: both int64 [N], ascending."""
    span_rows = np.repeat(np.arange(len(encoded)), [len(row.spans) for row in encoded])
    spans = np.concatenate([row.spans for row in encoded]).astype(np.int64)
    lengths = spans[:, 1] - spans[:, 0]
    return _ranges(spans[:, 0] + row_starts[span_rows], lengths), np.repeat(span_rows, lengths)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranges [start, start + length) one after the other, int64."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())
