"""Rows of random tokens with supervised spans, and tiny models of several families."""

import copy
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    JambaConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
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
_GROUPED: dict[str, Any] = _LLAMA | {"num_key_value_heads": 2, "head_dim": 8}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LATENT: dict[str, Any] = {
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
_OPT: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "init_std": 0.3,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 32,
    "dropout": 0.0,
}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**_LLAMA, num_key_value_heads=4),
    "llama, grouped heads": LlamaConfig(**_LLAMA, num_key_value_heads=2),
    "gpt-neox": GPTNeoXConfig(**_LLAMA),
    "gpt2": GPT2Config(**_GPT2, **_NO_DROPOUT),
    "qwen2": Qwen2Config(**_LLAMA, num_key_value_heads=2),
    "mistral, wide window": MistralConfig(**_LLAMA, num_key_value_heads=2, sliding_window=64),
    "mistral, narrow window": MistralConfig(**_LLAMA, num_key_value_heads=2, sliding_window=6),
    "qwen3": Qwen3Config(**_GROUPED),
    "gemma3, wide window": Gemma3TextConfig(**_GROUPED, sliding_window=64, query_pre_attn_scalar=8),
    "gemma3, narrow window": Gemma3TextConfig(**_GROUPED, sliding_window=6, query_pre_attn_scalar=8),
    "gemma2": Gemma2Config(**_GROUPED, sliding_window=64, query_pre_attn_scalar=8),
    "phi": PhiConfig(**_LLAMA),
    "phi3": Phi3Config(**_GROUPED),
    "opt": OPTConfig(**_OPT),
    "smollm3": SmolLM3Config(**_GROUPED, no_rope_layers=[1, 0]),
    "deepseek v3": DeepseekV3Config(**_LLAMA, **_EXPERTS, **_LATENT),
    "mixtral": MixtralConfig(**_GROUPED, num_local_experts=4),
    "qwen3-moe": Qwen3MoeConfig(**_GROUPED, **_EXPERTS, num_experts=4),
    "gpt-oss": GptOssConfig(**_GROUPED, num_local_experts=4),
    "llama4": Llama4TextConfig(**_GROUPED, num_local_experts=2, intermediate_size_mlp=48, attention_chunk_size=64),
    "jamba": JambaConfig(
        **_GROUPED,
        num_experts=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "lfm2": Lfm2Config(**_GROUPED, layer_types=["conv", "full_attention"]),
    "falcon": FalconConfig(**_COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True),
    "bloom": BloomConfig(**_COMMON, hidden_size=32, n_layer=2, n_head=4),
    "mamba": MambaConfig(**_COMMON, hidden_size=32, num_hidden_layers=1, state_size=4),
}


def tiny(family: str, *, seed: int = 0) -> Any:
    """A model of two small layers whose predictions differ from uniform; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(FAMILIES[family])).train()
