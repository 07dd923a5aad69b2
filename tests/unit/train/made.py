"""Tiny models and rows of random tokens."""

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from train.data.store import EncodedRow

VOCAB_SIZE = 50


def llama(model_class: type[LlamaForCausalLM] = LlamaForCausalLM, *, seed: int = 0, tied: bool = True) -> Any:
    """One layer, weights large enough that predictions differ from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return model_class(config)


def random_rows(num_rows: int = 6, *, seed: int = 0) -> list[EncodedRow]:
    """Rows of 2 to 14 tokens with 1 to 13 of them supervised."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        length = int(rng.integers(2, 15))
        tokens = rng.integers(1, VOCAB_SIZE, size=length).astype(np.int32)
        rows.append(EncodedRow(tokens, np.array([[rng.integers(1, length), length]], dtype=np.int32)))
    return rows
