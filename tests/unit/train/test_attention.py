"""Packed micro-batches compute what padded ones do, and models that cannot take part are padded with a reason."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import PreTrainedModel

from scheduler.errors import ConfigError
from tests.unit.train.samples import random_samples, sample, tiny
from train.attention import SPLIT, VARLEN, available_implementations, register
from train.batch import collate
from train.data.store import EncodedRow
from train.model import SupervisedLoss, trainable_parameters
from train.packing import accepts_packed

CPU = torch.device("cpu")
PACKABLE = [
    "llama",
    "llama, grouped heads",
    "gpt-neox",
    "gpt2",
    "qwen2",
    "qwen3",
    "mistral, wide window",
    "gemma3, wide window",
    "phi",
    "phi3",
    "opt",
    "smollm3",
    "deepseek v3",
    "mixtral",
    "qwen3-moe",
]
PADDED = {
    "mistral, narrow window": "sliding window of 6 tokens is shorter than the longest row, 30",
    "gemma3, narrow window": "sliding window of 6 tokens is shorter than the longest row, 30",
    "gemma2": "its attention is eager, not sdpa",
    "gpt-oss": "its attention is eager, not sdpa",
    "llama4": "a state or a pattern runs along its tokens ['chunked_attention']",
    "lfm2": "a state or a pattern runs along its tokens ['conv']",
    "jamba": "its attention cannot be replaced",
    "falcon": "its attention cannot be replaced",
    "bloom": "its attention cannot be replaced",
    "mamba": "its attention cannot be replaced",
}


def with_adapters(model: PreTrainedModel) -> Any:
    """LoRA whose second factor is not zero, so that the adapters count."""
    wrapped = get_peft_model(model, PeftLoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return wrapped


def losses_and_gradients(
    model: Any, rows: list[EncodedRow], *, packed: bool, autocast: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = SupervisedLoss(model)(collate(rows, pad_id=0, device=CPU, packed=packed))
    losses.mean().backward()
    found = {name: p.grad.clone() for name, p in trainable_parameters(model).items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return losses.detach(), found


def assert_packed_equals_padded(model: Any, rows: list[EncodedRow]) -> None:
    """Against the model's own attention on padded rows, before anything is replaced."""
    expected, expected_gradients = losses_and_gradients(model, rows, packed=False)
    assert accepts_packed(model, setting="on", max_length=64)
    losses, gradients = losses_and_gradients(model, rows, packed=True)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adapters", [False, True], ids=["all weights", "LoRA"])
@pytest.mark.parametrize("family", PACKABLE)
def test_packed_losses_and_gradients_are_the_padded_ones(family: str, adapters: bool) -> None:
    model = tiny(family)
    assert_packed_equals_padded(with_adapters(model) if adapters else model, random_samples(8))


@pytest.mark.parametrize("family", ["llama, grouped heads", "gpt2"])
def test_gradient_checkpointing_keeps_sequences_apart_in_the_second_forward_too(family: str) -> None:
    model = tiny(family)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_packed_equals_padded(model, random_samples(8))


def test_under_bfloat16_autocast_packed_and_padded_agree_as_far_as_bfloat16_does() -> None:
    model, rows = tiny("llama, grouped heads"), random_samples(8)
    exact, _ = losses_and_gradients(model, rows, packed=False)
    padded, padded_gradients = losses_and_gradients(model, rows, packed=False, autocast=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert accepts_packed(model, setting="on", max_length=64)
    packed, gradients = losses_and_gradients(model, rows, packed=True, autocast=True)
    assert (packed - exact).abs().max() <= 2 * (padded - exact).abs().max()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, padded_gradients[name], rtol=0.1, atol=0.02)


def test_in_bfloat16_weights_with_float32_adapters_packing_passes_its_own_check() -> None:
    model = with_adapters(tiny("llama").to(torch.bfloat16))
    assert accepts_packed(model, setting="on", max_length=64)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=6), data=st.data())
def test_a_row_gets_the_losses_it_gets_alone_whatever_it_is_packed_with(
    lengths: list[int], data: st.DataObject
) -> None:
    model = tiny("llama, grouped heads")
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = [sample(rng.integers(1, 50, size=length).tolist(), (1, length)) for length in lengths]
    assert accepts_packed(model, setting="on", max_length=64)
    loss = SupervisedLoss(model)
    batch = collate(rows, pad_id=0, device=CPU, packed=True)
    losses = loss(batch)
    for index, row in enumerate(rows):
        alone = loss(collate([row], pad_id=0, device=CPU, packed=True))
        torch.testing.assert_close(losses[batch.rows == index], alone, rtol=0, atol=2e-5)


def test_a_prepared_model_still_computes_padded_unpadded_and_cached_forwards() -> None:
    model, other = tiny("llama, grouped heads").eval(), tiny("llama, grouped heads").eval()
    assert accepts_packed(model, setting="on", max_length=64)
    rows, ids = random_samples(5), torch.arange(1, 11)[None]
    for one in (collate(rows, pad_id=0, device=CPU), collate(rows[:1], pad_id=0, device=CPU)):
        torch.testing.assert_close(SupervisedLoss(model)(one), SupervisedLoss(other)(one), rtol=0, atol=1e-5)
    torch.testing.assert_close(model(ids).logits, other(ids).logits, rtol=0, atol=1e-5)
    continued = [m(ids[:, 6:], past_key_values=m(ids[:, :6]).past_key_values).logits for m in (model, other)]
    torch.testing.assert_close(*continued, rtol=0, atol=1e-5)
    assert torch.equal(*(m.generate(ids, max_new_tokens=5, do_sample=False) for m in (model, other)))


def test_attention_dropout_is_drawn_in_training_and_not_in_evaluation() -> None:
    model, rows = tiny("llama"), random_samples(4)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    assert accepts_packed(model, setting="on", max_length=64)
    loss, batch = SupervisedLoss(model), collate(rows, pad_id=0, device=CPU, packed=True)
    assert model.training
    assert not torch.equal(loss(batch), loss(batch))
    model.eval()
    assert torch.equal(loss(batch), loss(batch))


@pytest.mark.parametrize(("family", "reason"), PADDED.items(), ids=PADDED)
def test_a_model_that_cannot_be_packed_is_padded_with_the_reason_and_left_as_it_was(
    family: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny(family)
    before = model.config._attn_implementation
    with caplog.at_level(logging.WARNING):
        assert not accepts_packed(model, setting="auto", max_length=30)
    assert reason in caplog.text
    assert model.config._attn_implementation == before
    with pytest.raises(ConfigError, match="set it to auto or off"):
        accepts_packed(model, setting="on", max_length=30)


@pytest.mark.parametrize("family", PADDED)
def test_a_model_that_is_padded_gives_each_row_the_losses_it_gets_alone(family: str) -> None:
    model, rows = tiny(family), random_samples(5)
    assert not accepts_packed(model, setting="auto", max_length=30)
    loss = SupervisedLoss(model)
    alone = torch.cat([loss(collate([row], pad_id=0, device=CPU)) for row in rows])
    torch.testing.assert_close(loss(collate(rows, pad_id=0, device=CPU)), alone, rtol=0, atol=2e-5)


def test_the_varlen_name_does_on_a_cpu_what_the_split_name_does() -> None:
    register()
    batch = collate(random_samples(), pad_id=0, device=CPU, packed=True)
    found = []
    for implementation in (SPLIT, VARLEN):
        model = tiny("llama, grouped heads")
        model.set_attn_implementation(implementation)
        found.append(SupervisedLoss(model)(batch))
    assert torch.equal(*found)
    assert available_implementations(CPU, torch.bfloat16) == (SPLIT,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", ["llama", "llama, grouped heads", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cuda_device_packed_losses_are_the_padded_ones(family: str, dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    model, rows = tiny(family).to(device, dtype), random_samples(8)
    padded = SupervisedLoss(model)(collate(rows, pad_id=0, device=device))
    assert accepts_packed(model, setting="on", max_length=64)
    packed = SupervisedLoss(model)(collate(rows, pad_id=0, device=device, packed=True))
    packed.sum().backward()
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.1)


class _Unmoved(torch.nn.Module):
    """Positions are counted along the line, whatever the caller says."""

    def __init__(self, table: torch.nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        return self.table(torch.arange(position_ids.shape[1])[None])


class _Convolution(torch.nn.Module):
    """Mixes each token with the one before it, as a recurrent layer does."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.layer(hidden + 0.5 * torch.nn.functional.pad(hidden, (0, 0, 1, -1)))


def _ignores_positions() -> Any:
    model = tiny("gpt2")
    model.transformer.wpe = _Unmoved(model.transformer.wpe)
    return model


def _convolves() -> Any:
    model = tiny("llama")
    model.model.layers[0].mlp = _Convolution(model.model.layers[0].mlp)
    return model


def _drops_keywords() -> Any:
    model = tiny("llama")
    model.model.layers[0].self_attn.forward = _without_packing(model.model.layers[0].self_attn.forward)
    return model


def _without_packing(forward: Any) -> Any:
    return lambda *args, **kwargs: forward(*args, **{k: v for k, v in kwargs.items() if k != "packed_sequences"})


@pytest.mark.parametrize("make", [_ignores_positions, _convolves, _drops_keywords])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_no_flag_tells_the_numerical_check_finds(
    make: Any, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    model = make().to(dtype)
    with caplog.at_level(logging.WARNING):
        assert not accepts_packed(model, setting="auto", max_length=30)
    assert "losses" in caplog.text
    assert model.config._attn_implementation == "sdpa"
    assert model.training


def test_packing_can_be_switched_off_and_then_nothing_is_touched() -> None:
    model = tiny("llama")
    assert not accepts_packed(model, setting="off", max_length=30)
    assert model.config._attn_implementation == "sdpa"


def test_a_row_longer_than_the_window_is_an_error_and_never_silently_wrong() -> None:
    model = tiny("mistral, narrow window")
    assert accepts_packed(model, setting="on", max_length=6)
    long = [sample([1, 2, 3], (1, 3)), sample([1, 2, 3, 4, 5, 6, 7], (1, 7))]
    with pytest.raises(ValueError, match="7 tokens is longer than the sliding window of 6"):
        SupervisedLoss(model)(collate(long, pad_id=0, device=CPU, packed=True))
    with pytest.raises(ValueError, match="10 tokens is longer than the sliding window of 6"):
        model(torch.arange(10)[None])
    padded = collate(long, pad_id=0, device=CPU)
    other = SupervisedLoss(tiny("mistral, narrow window"))(padded)
    torch.testing.assert_close(SupervisedLoss(model)(padded), other, rtol=0, atol=1e-5)
