"""Micro-batches: rows padded to the longest of the batch, loss positions marked explicitly.

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
        predicts_answer: [B, T] bool, the N positions whose logits predict a supervised token.
        labels: [N] int64, the supervised tokens, row by row.
        rows: [N] int64, row of each supervised token.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    predicts_answer: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor


def collate(encoded: Sequence[EncodedRow], *, pad_id: int, device: torch.device) -> TokenBatch:
    """Pad rows into a micro-batch. The loss is on every token from `answer_start` on, the stop token included."""
    shape = (len(encoded), max(len(row.input_ids) for row in encoded))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    predicts = np.zeros(shape, dtype=bool)
    for index, (tokens, answer_start) in enumerate(encoded):
        ids[index, : len(tokens)] = tokens
        mask[index, : len(tokens)] = 1
        predicts[index, answer_start - 1 : len(tokens) - 1] = True
    labels = np.concatenate([tokens[answer_start:] for tokens, answer_start in encoded]).astype(np.int64)
    rows = np.repeat(np.arange(len(encoded)), predicts.sum(axis=1))
    arrays = (ids, mask, predicts, labels, rows)
    return TokenBatch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))
