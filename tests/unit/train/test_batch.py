"""What a micro-batch marks, and that nothing but the rows themselves reaches the loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.train.made import llama
from tests.unit.train.samples import random_samples, sample
from train.batch import TokenBatch, collate
from train.data.store import EncodedRow
from train.model import SupervisedLoss

CPU = torch.device("cpu")


def widened(batch: TokenBatch, *, extra: int, fill: int) -> TokenBatch:
    """The same rows, `extra` columns wider, other tokens in the padding."""
    assert batch.attention_mask is not None
    shape = (batch.input_ids.shape[0], batch.input_ids.shape[1] + extra)
    ids = torch.full(shape, fill)
    mask = torch.zeros(shape, dtype=torch.int64)
    predicts = torch.zeros(shape, dtype=torch.bool)
    width = batch.input_ids.shape[1]
    ids[:, :width] = torch.where(batch.attention_mask.bool(), batch.input_ids, fill)
    mask[:, :width], predicts[:, :width] = batch.attention_mask, batch.predicts_answer
    return TokenBatch(ids, mask, predicts, batch.labels, batch.rows)


def test_every_supervised_token_is_predicted_from_the_position_before_it() -> None:
    batch = collate([sample([5, 6, 7, 8], (2, 4)), sample([9, 1], (1, 2))], pad_id=0, device=CPU)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [9, 1, 0, 0]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.predicts_answer.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert batch.labels.tolist() == [7, 8, 1]
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.position_ids is None
    assert batch.sequences is None


def test_a_packed_batch_lays_rows_end_to_end_and_starts_the_positions_again() -> None:
    rows = [sample([5, 6, 7, 8], (2, 4)), sample([9, 1], (1, 2)), sample([2, 3, 4], (1, 2))]
    batch = collate(rows, pad_id=0, device=CPU, packed=True)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3, 4]]
    assert batch.attention_mask is None
    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 0, 1, 2]]
    assert batch.sequences is not None
    assert batch.sequences.lengths == (4, 2, 3)
    assert batch.sequences.cu_seqlens.tolist() == [0, 4, 6, 9]
    assert batch.sequences.cu_seqlens.dtype == torch.int32
    assert batch.predicts_answer.tolist() == [1, 2, 4, 6]
    assert batch.labels.tolist() == [7, 8, 1, 3]
    assert batch.rows.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("packed", [False, True])
def test_every_span_of_a_row_is_supervised_and_what_lies_between_is_not(packed: bool) -> None:
    rows = [sample([9, 8, 7], (2, 3)), sample([1, 2, 3, 4, 5, 6, 7], (1, 2), (3, 4), (5, 7))]
    batch = collate(rows, pad_id=0, device=CPU, packed=packed)
    assert batch.labels.tolist() == [7, 2, 4, 6, 7]
    assert batch.rows.tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_that_uses_the_padding_token_is_still_supervised_on_it(packed: bool) -> None:
    batch = collate([sample([3, 0, 0], (1, 3))], pad_id=0, device=CPU, packed=packed)
    assert batch.labels.tolist() == [0, 0]
    if not packed:
        assert batch.attention_mask is not None
        assert batch.attention_mask.tolist() == [[1, 1, 1]]


@st.composite
def samples(draw: st.DrawFn) -> EncodedRow:
    """A row with one to three spans, the last of which ends it."""
    length = draw(st.integers(2, 12))
    cuts = draw(st.lists(st.integers(1, length - 1), min_size=1, max_size=5, unique=True).map(sorted))
    edges = [*cuts, length] if len(cuts) % 2 else [*cuts[1:], length]
    tokens = draw(st.lists(st.integers(0, 49), min_size=length, max_size=length))
    return sample(tokens, *zip(edges[::2], edges[1::2], strict=True))


@given(st.lists(samples(), min_size=1, max_size=6))
def test_both_forms_supervise_the_same_tokens_in_the_same_order_each_after_its_own_predecessor(
    rows: list[EncodedRow],
) -> None:
    padded, packed = (collate(rows, pad_id=0, device=CPU, packed=form) for form in (False, True))
    expected = [
        (index, int(row.input_ids[place - 1]), int(row.input_ids[place]))
        for index, row in enumerate(rows)
        for start, end in row.spans
        for place in range(start, end)
    ]
    before = (padded.input_ids[padded.predicts_answer], packed.input_ids[0, packed.predicts_answer])
    for batch, previous in zip((padded, packed), before, strict=True):
        found = zip(batch.rows.tolist(), previous.tolist(), batch.labels.tolist(), strict=True)
        assert list(found) == expected


@pytest.mark.parametrize(("extra", "fill"), [(0, 7), (9, 0), (5, 33)])
def test_neither_the_padding_token_nor_its_amount_reaches_the_loss_or_the_gradient(extra: int, fill: int) -> None:
    batch = collate(random_samples(), pad_id=0, device=CPU)
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
