"""What a run leaves behind loads with plain transformers and peft, and computes the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, dynamic_module_utils

from tests.unit.train.made import llama
from train.config import LoraConfig, PretrainedModel, TinyModel
from train.export import export_merged, export_model, load_export
from train.model import build_model, trainable_parameters
from train.tokenizer import fingerprint, train_byte_tokenizer

CPU = torch.device("cpu")
TOKENIZER = train_byte_tokenizer(["copy a b c", "the sum of 12 and 345"] * 20, vocab_size=300)
PROMPT = torch.arange(3, 12)[None]


def moved(model: Any) -> Any:
    """The model with every trained weight away from where it began."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@torch.no_grad()
def test_full_weights_and_tokenizer_load_with_transformers(tmp_path: Path) -> None:
    config = TinyModel(hidden_size=16, num_layers=1, num_heads=2)
    model = moved(build_model(config, TOKENIZER, device=CPU, seed=0))
    export_model(model, TOKENIZER, tmp_path / "new" / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new" / "model")
    assert torch.equal(loaded(PROMPT).logits, model(PROMPT).logits)
    assert loaded.config.eos_token_id == tokenizer.eos_token_id == TOKENIZER.eos_token_id
    assert tokenizer.chat_template == TOKENIZER.chat_template
    assert fingerprint(tokenizer) == fingerprint(AutoTokenizer.from_pretrained(tmp_path / "new" / "model"))
    assert list((tmp_path / "new" / "model").glob("*.safetensors"))
    assert not list((tmp_path / "new" / "model").glob("*.bin"))


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}, {"rslora": True, "dora": True}], ids=str)
def test_an_adapter_loads_with_peft_onto_the_base_it_names(kind: Any, dtype: Any, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    config = PretrainedModel(path=str(tmp_path / "base"), dtype=dtype, lora=LoraConfig(rank=4, **kind))
    model = moved(build_model(config, TOKENIZER, device=CPU, seed=0))
    export_model(model, TOKENIZER, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=getattr(torch, dtype))
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert loaded.peft_config["default"].base_model_name_or_path == str(tmp_path / "base")
    untouched = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=getattr(torch, dtype))
    assert torch.equal(loaded(PROMPT).logits, model(PROMPT).logits)
    assert not torch.equal(loaded(PROMPT).logits, untouched(PROMPT).logits)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()


@torch.no_grad()
def test_a_merged_model_loads_with_plain_transformers_and_the_adapter_is_left_as_it_was(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    model = moved(build_model(PretrainedModel(path=str(tmp_path / "base")), TOKENIZER, device=CPU, seed=0))
    before = model(PROMPT).logits
    export_merged(model, TOKENIZER, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    torch.testing.assert_close(merged(PROMPT).logits, before)
    assert torch.equal(model(PROMPT).logits, before)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_what_was_exported_can_be_put_back_into_a_model_bit_for_bit(kind: str, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    config = PretrainedModel(path=str(tmp_path / "base"), lora=None if kind == "whole" else LoraConfig(rank=2))
    model = moved(build_model(config, TOKENIZER, device=CPU, seed=0))
    export_model(model, TOKENIZER, tmp_path / "result")
    fresh = build_model(config, TOKENIZER, device=CPU, seed=0).eval()
    load_export(fresh, tmp_path / "result")
    assert torch.equal(fresh(PROMPT).logits, model(PROMPT).logits)


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def own_code(folder: Path) -> None:
    """A model folder whose code lies in it."""
    llama().save_pretrained(folder)
    (folder / "own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own_llama", "architectures": ["OwnModel"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))


@torch.no_grad()
def test_a_whole_model_with_code_of_its_own_is_put_back_if_that_code_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    own_code(tmp_path / "base")
    config = PretrainedModel(path=str(tmp_path / "base"), lora=None, trust_remote_code=True)
    model = moved(build_model(config, TOKENIZER, device=CPU, seed=0))
    assert type(model) is not LlamaForCausalLM
    export_model(model, TOKENIZER, tmp_path / "result")
    fresh = build_model(config, TOKENIZER, device=CPU, seed=0).eval()
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_export(fresh, tmp_path / "result")
    load_export(fresh, tmp_path / "result", trust_remote_code=True)
    assert torch.equal(fresh(PROMPT).logits, model(PROMPT).logits)
