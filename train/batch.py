"""Micro-batches: rows padded to the longest of the batch, loss positions listed explicitly.

Shapes: B rows, T tokens of the longest row, N supervised tokens in all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from train.data.store import EncodedRow


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """One micro-batch on a device.

    Attributes:
        input_ids: [B, T] int64, right-padded.
        attention_mask: [B, T] int64, 1 on real tokens.
        positions: [N] int64, flat index (row · T + t) of the logits that predict a supervised token.
        labels: [N] int64, the supervised tokens, row by row.
        rows: [N] int64, row of each supervised token.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor


def collate(encoded: Sequence[EncodedRow], *, pad_id: int, device: torch.device) -> TokenBatch:
    """Pad rows into a micro-batch. The loss is on every token from `answer_start` on, the stop token included."""
    lengths = [len(row.input_ids) for row in encoded]
    width = max(lengths)
    ids = np.full((len(encoded), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(encoded), width), dtype=np.int64)
    positions, labels, rows = [], [], []
    for index, row in enumerate(encoded):
        ids[index, : lengths[index]] = row.input_ids
        mask[index, : lengths[index]] = 1
        positions.append(np.arange(row.answer_start - 1, lengths[index] - 1) + index * width)
        labels.append(row.input_ids[row.answer_start :])
        rows.append(np.full(lengths[index] - row.answer_start, index))
    arrays = (ids, mask, *(np.concatenate(part).astype(np.int64) for part in (positions, labels, rows)))
    return TokenBatch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))
