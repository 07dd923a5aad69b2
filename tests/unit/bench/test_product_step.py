"""What the benchmarks train is what the product trains."""

import numpy as np
import torch

from bench.product_step import ProductStep, stored
from tests.unit.train.samples import random_samples, tiny
from train.config import PretrainedModel
from train.stream.batch import Batch


def test_a_store_made_for_a_benchmark_gives_its_rows_back() -> None:
    rows = [random_samples(5, seed=1), random_samples(3, seed=2)]
    store = stored(rows)
    assert store.task_names == ("task 0", "task 1")
    for task, own in enumerate(rows):
        assert store.num_rows(task) == len(own)
        assert store.supervised_lengths(task).tolist() == [int(np.diff(row.spans).sum()) for row in own]
        for number, row in enumerate(own):
            found = store.encoded(task, number)
            assert np.array_equal(found.input_ids, row.input_ids)
            assert np.array_equal(found.spans, row.spans)


def test_a_step_trains_the_rows_of_its_batch_and_enters_them_into_the_books() -> None:
    model, rows = tiny("llama"), [random_samples(4)]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    config = PretrainedModel(path="made", dtype="float32")
    step = ProductStep(model, rows, config=config, batch_size=4, packing=True)
    zeros = np.zeros(4, dtype=np.int32)
    step.train(Batch(0, zeros, np.arange(4), zeros.astype(np.int8)))
    assert not all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    totals = step.stepper.tally.gather()
    assert totals.tokens == (sum(int(np.diff(row.spans).sum()) for row in rows[0]),)
    assert abs(totals.loss[0] / totals.tokens[0] - step.stepper.last_loss) < 1e-5
