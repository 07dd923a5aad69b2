"""Training in bfloat16: what is kept in float32, and that every path computes what the padded float32 one does."""

import logging
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from tests.unit.train.made import llama
from tests.unit.train.samples import random_samples
from train.batch import collate
from train.config import LoraConfig, PretrainedModel
from train.model import SupervisedLoss, build_model, trainable_parameters
from train.packing import accepts_packed
from train.precision import compute_context, log_precision, training_dtype
from train.tokenizer import train_byte_tokenizer

CPU = torch.device("cpu")
TOKENIZER = train_byte_tokenizer(["copy a b c", "the sum of 12 and 345"] * 20, vocab_size=300)
KINDS = {
    "all weights": None,
    "LoRA": LoraConfig(rank=4),
    "rsLoRA": LoraConfig(rank=4, rslora=True),
    "DoRA": LoraConfig(rank=4, dora=True),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    llama().to(torch.bfloat16).save_pretrained(folder)
    return str(folder)


def built(base: str, kind: str, dtype: Any) -> tuple[PretrainedModel, Any]:
    """A model of that kind whose adapters, if it has any, count."""
    config = PretrainedModel(path=base, dtype=dtype, lora=KINDS[kind])
    model = build_model(config, TOKENIZER, device=CPU, seed=0).train()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trainable_parameters(model).items():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return config, model


def losses_and_gradients(config: PretrainedModel, model: Any, *, packed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    batch = collate(random_samples(8), pad_id=0, device=CPU, packed=packed)
    with compute_context(config, CPU):
        losses = SupervisedLoss(model)(batch)
    losses.mean().backward()
    gradients = [parameter.grad for parameter in trainable_parameters(model).values()]
    return losses.detach(), torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_the_padded_float32_ones_as_far_as_bfloat16_goes(
    kind: str, packed: bool, base: str
) -> None:
    expected, expected_gradients = losses_and_gradients(*built(base, kind, "float32"), packed=False)
    config, model = built(base, kind, "bfloat16")
    with compute_context(config, CPU):
        assert not packed or accepts_packed(model, setting="on", max_length=64)
    losses, gradients = losses_and_gradients(config, model, packed=packed)
    eight_bits = 2.0**-8
    assert losses.dtype == gradients.dtype == torch.float32
    assert 0 < (losses - expected).abs().max() < 8 * eight_bits * expected.max()
    assert (losses - expected).mean().abs() < eight_bits * expected.mean()
    assert cosine_similarity(gradients, expected_gradients, dim=0) > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_is_kept_in_float32(kind: str, base: str) -> None:
    _, model = built(base, kind, "bfloat16")
    assert {parameter.dtype for parameter in trainable_parameters(model).values()} == {torch.float32}
    frozen = {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad}
    assert frozen == (set() if kind == "all weights" else {torch.bfloat16})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_log_says_what_training_computes_in(base: str, dtype: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_precision(PretrainedModel(path=base, dtype=dtype), CPU)
    assert f"forward and backward compute in {dtype}, on cpu" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "is_there", "warns"), [("bfloat16", False, True), ("bfloat16", True, False), ("auto", False, False)]
)
def test_bfloat16_that_is_only_emulated_is_warned_of(
    base: str,
    dtype: Any,
    is_there: bool,
    warns: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("train.precision.has_bfloat16", lambda _device: is_there)
    log_precision(PretrainedModel(path=base, dtype=dtype), CPU)
    assert ("model.dtype: auto computes in float32 here" in caplog.text) is warns


@pytest.mark.parametrize(("is_there", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_on_a_gpu_only_where_it_is_not_emulated(
    is_there: bool, expected: torch.dtype, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or is_there

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert training_dtype(PretrainedModel(path=base), torch.device("cuda", 0)) == expected


def test_in_float32_nothing_is_cast(base: str) -> None:
    config, model = built(base, "LoRA", "float32")
    with compute_context(config, CPU):
        assert not torch.is_autocast_enabled("cpu")
        assert model(torch.arange(5)[None]).logits.dtype == torch.float32
