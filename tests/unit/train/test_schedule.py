"""Learning rate by step: a warm-up at each stage's start, under one decay over the whole run."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.micro_batches import MicroBatchLimits
from train.schedule import StageTraining, learning_rate

STAGE = StageTraining(learning_rate=1e-3, warmup_steps=4, max_grad_norm=1.0, micro_batches=MicroBatchLimits(4))


def rates(stage: StageTraining = STAGE, *, start: int = 0, total: int = 100, final: float = 0.1) -> list[float]:
    return [
        learning_rate(stage, step=step, stage_start_step=start, total_steps=total, final_lr_ratio=final)
        for step in range(start, total)
    ]


@pytest.mark.parametrize("start", [0, 40])
def test_each_stage_warms_up_in_equal_parts_from_its_first_step_on(start: int) -> None:
    decay = [1 - 0.9 * step / 100 for step in range(start, 100)]
    shares = [rate / (1e-3 * whole) for rate, whole in zip(rates(start=start), decay, strict=True)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == pytest.approx([1.0] * (len(shares) - 5))


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rates(replace(STAGE, learning_rate=2e-4, warmup_steps=0))[0] == 2e-4


def test_a_second_stage_continues_the_decay_of_the_first() -> None:
    assert rates(start=50)[10:] == rates()[60:]


def test_a_final_ratio_of_one_keeps_the_rate_constant_after_the_warm_up() -> None:
    assert set(rates(final=1.0)[4:]) == {1e-3}


@given(warmup=st.integers(0, 50), total=st.integers(1, 300), final=st.floats(0, 1), start=st.integers(0, 299))
def test_the_rate_is_positive_never_above_the_peak_and_falls_after_the_warm_up_to_the_final_ratio(
    warmup: int, total: int, final: float, start: int
) -> None:
    stage = replace(STAGE, learning_rate=1.0, warmup_steps=warmup)
    start = min(start, total - 1)
    found = rates(stage, start=start, total=total, final=final)
    assert all(0 < rate <= 1.0 for rate in found)
    after = found[warmup:]
    assert all(later <= earlier for earlier, later in itertools.pairwise(after))
    if after:
        assert after[-1] == pytest.approx(final + (1 - final) / total)
