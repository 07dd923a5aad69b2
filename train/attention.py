"""Attention over packed sequences: rows laid end to end in one line of tokens, none of which sees another.

transformers lets a model's attention be replaced by name. The names registered here behave like its `sdpa`, except that
a call which carries `packed_sequences` attends within each sequence alone:

    SPLIT    one causal SDPA call a sequence; any device and dtype
    VARLEN   one kernel for all sequences (torch's varlen attention); CUDA, half precision, no dropout, else as SPLIT

The sequences travel as a keyword of the model's forward, so what is recomputed under gradient checkpointing sees them
too. What a kernel here cannot do (soft caps, sinks, a window shorter than a sequence) raises; nothing is left out in
silence. Which model may be fed packed sequences at all is decided in `train.packing`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch < 2.10
    varlen_attn = None

SPLIT = "taskheat_split"
VARLEN = "taskheat_varlen"

_HALF = (torch.bfloat16, torch.float16)
_OLDEST_VARLEN_CAPABILITY = (8, 0)
_NOT_SUPPORTED = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """Where the sequences of a packed line of T tokens lie.

    Attributes:
        lengths: Tokens of each of the B sequences; they add up to T. On the host, so that no kernel has to wait for it.
        cu_seqlens: [B + 1] int32 on the device, where each sequence starts, and T.
    """

    lengths: tuple[int, ...]
    cu_seqlens: torch.Tensor


def register(*, in_graphs: bool = True) -> None:
    """Make `SPLIT` and `VARLEN` known to transformers; again does no harm.

    Not `in_graphs`: torch.compile runs them as they are. With lengths that are never the same twice it would have to
    compile anew at every step.
    """
    for name, attention in ((SPLIT, _split_attention), (VARLEN, _varlen_attention)):
        AttentionInterface.register(name, attention if in_graphs else torch.compiler.disable(attention))
        AttentionMaskInterface.register(name, _mask)


def available_implementations(device: torch.device, dtype: torch.dtype) -> tuple[str, ...]:
    """Names that make sense for activations of `dtype` on `device`, the fastest first."""
    if device.type != "cuda" or dtype not in _HALF or varlen_attn is None:
        return (SPLIT,)
    is_recent = torch.cuda.get_device_capability(device) >= _OLDEST_VARLEN_CAPABILITY
    return (VARLEN, SPLIT) if is_recent else (SPLIT,)


def _mask(*, q_length: int, kv_length: int, attention_mask: Any = None, use_vmap: bool = False, **kwargs: Any) -> Any:
    """No mask where plain causality is meant: a packed line, or rows without padding. Else the mask of `sdpa`.

    A model that adds a pattern of its own asks for `use_vmap`.
    """
    if attention_mask is None and q_length == kv_length and not use_vmap:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, use_vmap=use_vmap, **kwargs)


def _split_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_sequences: PackedSequences | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The interface of transformers: query [B, H, T, D], key and value [B, H or fewer, T, D] -> [B, T, H, D]."""
    if packed_sequences is None:
        if attention_mask is None and query.shape[2] == key.shape[2]:
            _refuse_window(kwargs, longest=query.shape[2])
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    _refuse(attention_mask, kwargs, packed_sequences)
    lengths = list(packed_sequences.lengths)
    is_grouped = query.shape[1] != key.shape[1]
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    outputs = [
        functional.scaled_dot_product_attention(
            *part, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=is_grouped
        ).transpose(1, 2)
        for part in parts
    ]
    return torch.cat(outputs, 1), None


def _varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_sequences: PackedSequences | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As `_split_attention`."""
    dtype = _activation_dtype(query)
    if packed_sequences is None or dropout > 0 or dtype not in _HALF or not query.is_cuda:
        return _split_attention(
            module,
            query,
            key,
            value,
            attention_mask,
            packed_sequences=packed_sequences,
            dropout=dropout,
            scaling=scaling,
            **kwargs,
        )
    _refuse(attention_mask, kwargs, packed_sequences)
    assert varlen_attn is not None
    longest, starts = max(packed_sequences.lengths), packed_sequences.cu_seqlens
    query, key, value = (part[0].transpose(0, 1).to(dtype).contiguous() for part in (query, key, value))  # [T, H, D]
    output = varlen_attn(
        query,
        key,
        value,
        starts,
        starts,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output[None], None


def _activation_dtype(query: torch.Tensor) -> torch.dtype:
    """What autocast would make of `query`: a custom operator is not on its list."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def _refuse(attention_mask: torch.Tensor | None, kwargs: dict[str, Any], sequences: PackedSequences) -> None:
    """Raise ValueError for what the kernels here would leave out."""
    asked = [name for name in _NOT_SUPPORTED if kwargs.get(name) is not None]
    if attention_mask is not None:
        asked.append("a mask of its own")
    if asked or kwargs.get("is_causal") is False:
        raise ValueError(f"packed attention cannot do what the model asks for: {asked or 'attention to later tokens'}")
    _refuse_window(kwargs, longest=max(sequences.lengths))


def _refuse_window(kwargs: dict[str, Any], *, longest: int) -> None:
    window = kwargs.get("sliding_window")
    if window is not None and longest > window:
        raise ValueError(
            f"a sequence of {longest} tokens is longer than the sliding window of {window}; set train.packing to off"
        )
