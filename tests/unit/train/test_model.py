"""The loss against the one transformers computes, snapshots, and what is trained in which precision."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from scheduler.errors import ConfigError
from tests.unit.train.made import llama
from tests.unit.train.odd_models import AllLogitsLlama, FullLogitsLlama, LastLogitsLlama
from tests.unit.train.samples import random_samples
from train.batch import TokenBatch, collate
from train.config import LoraConfig, PretrainedModel, TinyModel
from train.data.store import EncodedRow
from train.model import SupervisedLoss, build_model, load_snapshot, pad_id, snapshot, trainable_parameters
from train.model_path import load_tokenizer
from train.packing import accepts_packed
from train.precision import training_dtype
from train.tokenizer import train_byte_tokenizer

CPU = torch.device("cpu")
TOKENIZER = train_byte_tokenizer(["copy a b c", "the sum of 12 and 345"] * 20, vocab_size=300)


def with_adapters(model: LlamaForCausalLM) -> Any:
    """LoRA whose second factor is not zero, so that the adapters count."""
    wrapped = get_peft_model(model, PeftLoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return wrapped


def reference_loss(model: Any, rows: list[EncodedRow]) -> torch.Tensor:
    """Mean loss as transformers computes it, with the prompt and the padding labelled -100."""
    batch = collate(rows, pad_id=0, device=CPU)
    labels = torch.full_like(batch.input_ids, -100)
    for index, row in enumerate(rows):
        for start, end in row.spans:
            labels[index, start:end] = batch.input_ids[index, start:end]
    return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in trainable_parameters(model).items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adapters", [False, True], ids=["all weights", "LoRA"])
def test_loss_and_gradient_are_those_transformers_computes(adapters: bool) -> None:
    model = with_adapters(llama()) if adapters else llama()
    rows = random_samples()
    expected = reference_loss(model, rows)
    expected.backward()
    expected_gradients = gradients(model)
    losses = SupervisedLoss(model)(collate(rows, pad_id=0, device=CPU))
    losses.mean().backward()
    torch.testing.assert_close(losses.mean(), expected, rtol=1e-6, atol=1e-6)
    assert_close(expected_gradients, gradients(model))


def test_losses_come_row_by_row_and_do_not_depend_on_the_company_of_a_row() -> None:
    loss, rows = SupervisedLoss(llama()), random_samples()
    together = collate(rows, pad_id=0, device=CPU)
    losses = loss(together)
    for index, row in enumerate(rows):
        alone = loss(collate([row], pad_id=0, device=CPU))
        torch.testing.assert_close(losses[together.rows == index], alone, rtol=0, atol=1e-5)


def test_micro_batches_weighted_by_the_tokens_of_the_whole_batch_add_up_to_its_gradient() -> None:
    model, rows = llama(), random_samples(8)
    loss = SupervisedLoss(model)
    whole = loss(collate(rows, pad_id=0, device=CPU))
    whole.mean().backward()
    expected = gradients(model)
    for start in (0, 2, 4, 6):
        losses = loss(collate(rows[start : start + 2], pad_id=0, device=CPU))
        (losses.sum() / len(whole)).backward()
    assert_close(expected, gradients(model))


def test_a_model_that_cannot_skip_positions_takes_the_full_path_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch: TokenBatch = collate(random_samples(), pad_id=0, device=CPU)
    expected = SupervisedLoss(llama())(batch)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        full = SupervisedLoss(llama(FullLogitsLlama))
    assert "FullLogitsLlama computes logits at every position" in caplog.text
    torch.testing.assert_close(full(batch), expected, rtol=0, atol=1e-5)


def test_a_model_whose_logits_to_keep_is_a_number_only_computes_them_all_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = collate(random_samples(), pad_id=0, device=CPU)
    with caplog.at_level(logging.WARNING):
        losses = SupervisedLoss(llama(LastLogitsLlama))(batch)
    assert "LastLogitsLlama computes logits at every position" in caplog.text
    torch.testing.assert_close(losses, SupervisedLoss(llama())(batch), rtol=0, atol=1e-5)


def test_a_model_that_can_only_compute_all_logits_is_packed_all_the_same() -> None:
    rows = random_samples()
    expected = SupervisedLoss(llama())(collate(rows, pad_id=0, device=CPU))
    model = llama(AllLogitsLlama)
    assert accepts_packed(model, setting="on", max_length=64)
    losses = SupervisedLoss(model)(collate(rows, pad_id=0, device=CPU, packed=True))
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("adapters", [False, True], ids=["all weights", "LoRA"])
def test_a_snapshot_makes_another_model_compute_the_same_and_is_not_touched_by_training(
    tied: bool, adapters: bool
) -> None:
    first, second = llama(tied=tied), llama(tied=tied)
    if adapters:
        first, second = with_adapters(first), with_adapters(second)
    with torch.no_grad():
        for parameter in trainable_parameters(first).values():
            parameter.add_(0.1)
    weights = snapshot(first)
    kept = {name: value.clone() for name, value in weights.items()}
    expected = first(torch.arange(10)[None]).logits
    with torch.no_grad():
        for parameter in trainable_parameters(first).values():
            parameter.zero_()
    assert all(torch.equal(weights[name], value) for name, value in kept.items())
    assert not torch.equal(second(torch.arange(10)[None]).logits, expected)
    load_snapshot(second, weights)
    assert torch.equal(second(torch.arange(10)[None]).logits, expected)


def test_tied_weights_travel_once_and_stay_tied() -> None:
    model = llama()
    assert not [name for name in snapshot(model) if "lm_head" in name]
    load_snapshot(model, snapshot(llama(seed=1)))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_snapshot_of_another_model_is_refused_by_name_and_changes_nothing() -> None:
    model = llama()
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"1 names differ, first \['lm_head.weight'\]"):
        load_snapshot(model, snapshot(llama(tied=False, seed=1)))
    assert all(torch.equal(value, before[name]) for name, value in snapshot(model).items())


def test_equal_arguments_build_equal_models_whatever_was_drawn_before() -> None:
    config = TinyModel(hidden_size=16, num_layers=1, num_heads=2)
    first = snapshot(build_model(config, TOKENIZER, device=CPU, seed=3))
    torch.rand(7)
    second = snapshot(build_model(config, TOKENIZER, device=CPU, seed=3))
    other = snapshot(build_model(config, TOKENIZER, device=CPU, seed=4))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    llama().save_pretrained(folder)
    return str(folder)


def test_equal_seeds_give_equal_adapters(model_folder: str) -> None:
    config = PretrainedModel(path=model_folder)
    one, two = (snapshot(build_model(config, TOKENIZER, device=CPU, seed=5)) for _ in range(2))
    assert one
    assert all("lora_" in name and torch.equal(value, two[name]) for name, value in one.items())


def test_without_lora_every_weight_is_trained_in_float32(model_folder: str) -> None:
    model = build_model(PretrainedModel(path=model_folder, lora=None, dtype="bfloat16"), TOKENIZER, device=CPU, seed=0)
    assert trainable_parameters(model).keys() == dict(model.named_parameters()).keys()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_in_bfloat16_the_frozen_weights_shrink_and_the_adapters_stay_float32(model_folder: str) -> None:
    model = build_model(PretrainedModel(path=model_folder, dtype="bfloat16"), TOKENIZER, device=CPU, seed=0)
    dtypes = {(parameter.requires_grad, parameter.dtype) for parameter in model.parameters()}
    assert dtypes == {(False, torch.bfloat16), (True, torch.float32)}
    losses = SupervisedLoss(model)(collate(random_samples(), pad_id=0, device=CPU))
    assert losses.dtype == torch.float32
    losses.mean().backward()
    assert all(parameter.grad is not None for parameter in trainable_parameters(model).values())


def test_adapters_sit_on_the_modules_asked_for(model_folder: str) -> None:
    config = PretrainedModel(path=model_folder, lora=LoraConfig(rank=2, target_modules=("q_proj",)))
    names = trainable_parameters(build_model(config, TOKENIZER, device=CPU, seed=0)).keys()
    assert names
    assert all("q_proj" in name for name in names)
    everywhere = trainable_parameters(build_model(PretrainedModel(path=model_folder), TOKENIZER, device=CPU, seed=0))
    assert not any("lm_head" in name for name in everywhere)


def test_gradient_checkpointing_changes_no_gradient(model_folder: str) -> None:
    found = []
    for recompute in (False, True):
        config = PretrainedModel(path=model_folder, gradient_checkpointing=recompute)
        model = build_model(config, TOKENIZER, device=CPU, seed=0).train()
        SupervisedLoss(model)(collate(random_samples(), pad_id=0, device=CPU)).mean().backward()
        found.append(gradients(model))
    assert any(value.abs().max() > 0 for value in found[0].values())
    assert_close(*found)


def test_precision_follows_the_config_and_auto_the_device() -> None:
    assert training_dtype(TinyModel(), CPU) == torch.float32
    assert training_dtype(PretrainedModel(path="x"), CPU) == torch.float32
    assert training_dtype(PretrainedModel(path="x", dtype="bfloat16"), CPU) == torch.bfloat16
    assert training_dtype(PretrainedModel(path="x", dtype="float32"), torch.device("cuda")) == torch.float32


def test_a_missing_or_empty_model_folder_is_a_config_error_that_names_it(tmp_path: Path) -> None:
    missing = PretrainedModel(path=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"model\.path: .*nothing is not a folder"):
        build_model(missing, TOKENIZER, device=CPU, seed=0)
    with pytest.raises(ConfigError, match=r"model\.path: .* cannot be loaded as a causal LM"):
        build_model(PretrainedModel(path=str(tmp_path)), TOKENIZER, device=CPU, seed=0)
    with pytest.raises(ConfigError, match=r"model\.path: no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_a_padding_token_pads_with_any() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=TOKENIZER.backend_tokenizer)
    assert bare.pad_token_id is None
    assert pad_id(bare) == 0
    assert pad_id(TOKENIZER) == TOKENIZER.pad_token_id
