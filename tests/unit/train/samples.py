"""Rows of random tokens with supervised spans, and tiny models of several families."""

import copy
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
)

from train.data.store import EncodedRow

VOCAB_SIZE = 50


def sample(tokens: list[int], *spans: tuple[int, int]) -> EncodedRow:
    return EncodedRow(np.array(tokens, dtype=np.int32), np.array(spans, dtype=np.int32).reshape(-1, 2))


def random_samples(num_rows: int = 6, *, seed: int = 0, max_length: int = 14) -> list[EncodedRow]:
    """Rows of 2 to `max_length` tokens; the last span ends with the row, some rows have an earlier one too."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        length = int(rng.integers(2, max_length + 1))
        start = int(rng.integers(1, length))
        spans = [(start, length)]
        if start > 4:
            spans.insert(0, (2, 4))
        rows.append(sample(rng.integers(1, VOCAB_SIZE, size=length).tolist(), *spans))
    return rows


_COMMON: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "initializer_range": 0.3, "eos_token_id": 1, "pad_token_id": 0}
_LLAMA: dict[str, Any] = _COMMON | {
    "bos_token_id": None,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GPT2: dict[str, Any] = _COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_NO_DROPOUT: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**_LLAMA, num_key_value_heads=4),
    "llama, grouped heads": LlamaConfig(**_LLAMA, num_key_value_heads=2),
    "gpt-neox": GPTNeoXConfig(**_LLAMA),
    "gpt2": GPT2Config(**_GPT2, **_NO_DROPOUT),
    "qwen2": Qwen2Config(**_LLAMA, num_key_value_heads=2),
    "mistral, wide window": MistralConfig(**_LLAMA, num_key_value_heads=2, sliding_window=64),
    "mistral, narrow window": MistralConfig(**_LLAMA, num_key_value_heads=2, sliding_window=6),
    "bloom": BloomConfig(**_COMMON, hidden_size=32, n_layer=2, n_head=4),
    "mamba": MambaConfig(**_COMMON, hidden_size=32, num_hidden_layers=1, state_size=4),
}


def tiny(family: str, *, seed: int = 0) -> Any:
    """A model of two small layers whose predictions differ from uniform; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[family])).train()
