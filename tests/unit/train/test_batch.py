"""What a micro-batch marks, and that nothing but the rows themselves reaches the loss."""

import numpy as np
import pytest
import torch

from tests.unit.train.made import llama, random_rows
from train.batch import TokenBatch, collate
from train.data.store import EncodedRow
from train.model import SupervisedLoss

CPU = torch.device("cpu")


def widened(batch: TokenBatch, *, extra: int, fill: int) -> TokenBatch:
    """The same rows, `extra` columns wider, other tokens in the padding."""
    shape = (batch.input_ids.shape[0], batch.input_ids.shape[1] + extra)
    ids = torch.full(shape, fill)
    mask = torch.zeros(shape, dtype=torch.int64)
    predicts = torch.zeros(shape, dtype=torch.bool)
    width = batch.input_ids.shape[1]
    ids[:, :width] = torch.where(batch.attention_mask.bool(), batch.input_ids, fill)
    mask[:, :width], predicts[:, :width] = batch.attention_mask, batch.predicts_answer
    return TokenBatch(ids, mask, predicts, batch.labels, batch.rows)


def test_every_supervised_token_is_predicted_from_the_position_before_it() -> None:
    rows = [EncodedRow(np.array([5, 6, 7, 8], np.int32), 2), EncodedRow(np.array([9, 1], np.int32), 1)]
    batch = collate(rows, pad_id=0, device=CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [9, 1, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.predicts_answer.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert batch.labels.tolist() == [7, 8, 1]
    assert batch.rows.tolist() == [0, 0, 1]


def test_a_row_that_uses_the_padding_token_is_still_supervised_on_it() -> None:
    batch = collate([EncodedRow(np.array([3, 0, 0], np.int32), 1)], pad_id=0, device=CPU)
    assert batch.labels.tolist() == [0, 0]
    assert batch.attention_mask.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(("extra", "fill"), [(0, 7), (9, 0), (5, 33)])
def test_neither_the_padding_token_nor_its_amount_reaches_the_loss_or_the_gradient(extra: int, fill: int) -> None:
    batch = collate(random_rows(), pad_id=0, device=CPU)
    results = []
    for one in (batch, widened(batch, extra=extra, fill=fill)):
        model = llama()
        losses = SupervisedLoss(model)(one)
        losses.sum().backward()
        results.append((losses.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (loss, gradients), (other_loss, other_gradients) = results
    torch.testing.assert_close(other_loss, loss, rtol=0, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-5, atol=1e-5)
