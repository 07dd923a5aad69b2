"""Whether a model may be fed packed micro-batches, found out once, when training starts.

Padding wastes most of a batch of short rows; packing lays rows end to end and keeps them apart by attention and
positions. A model takes part only if (1) its own flags say that its attention can be replaced and that nothing else
carries information along the line, and (2) a numerical check agrees: short sequences, packed, get the losses they get
padded, and not those of one joined text. Everything else is padded, with a warning that says why; the results are the
same, only slower to come by.
"""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from scheduler.errors import ConfigError
from train.attention import SPLIT, VARLEN, available_implementations, register
from train.batch import collate
from train.model import SupervisedLoss
from train.supervised_logits import base_of

logger = logging.getLogger(__name__)

_CHECK_LENGTHS = (5, 11, 8)
_TOLERANCE_NATS = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
_PLAIN_LAYERS = {"full_attention", "sliding_attention", "attention"}


def accepts_packed(
    model: PreTrainedModel | PeftModel, *, setting: Literal["auto", "on", "off"], max_length: int
) -> bool:
    """Prepare `model` for packed micro-batches where that is safe; say once in the log what was chosen.

    Call it under the autocast context that training uses. The model's attention is replaced by one that also does
    padded rows; where packing is not possible the model is left as it was.

    Args:
        model: On its device, adapters attached.
        setting: `off` never packs; `on` raises where `auto` falls back to padding.
        max_length: Tokens of the longest row that will be trained on.

    Returns:
        Whether micro-batches are to be collated with `packed=True`.

    Raises:
        ConfigError: The setting is `on` and the model cannot be fed packed sequences.
    """
    if setting == "off":
        return False
    base = base_of(model)
    assert isinstance(base, PreTrainedModel)
    reason = _obstacle(base, max_length) or _install(model, base, max_length)
    if reason is None:
        logger.info("micro-batches are packed, attention by %s", base.config._attn_implementation)
        return True
    name = type(base).__name__
    if setting == "on":
        raise ConfigError(f"train.packing is on, but {name} cannot be fed packed rows: {reason}; set it to auto or off")
    logger.warning("micro-batches are padded, which is slower: %s cannot be fed packed rows: %s", name, reason)
    return False


def _obstacle(base: PreTrainedModel, max_length: int) -> str | None:
    """Why the model's own flags forbid packing, or None."""
    config = base.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if not (base._supports_attention_backend and base._can_set_attn_implementation()):
        return "its attention cannot be replaced"
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return "it takes no position_ids"
    if base._is_stateful or kinds - _PLAIN_LAYERS:
        return f"a state or a pattern runs along its tokens {sorted(kinds - _PLAIN_LAYERS)}"
    if base.config._attn_implementation not in ("sdpa", SPLIT, VARLEN):
        return f"its attention is {base.config._attn_implementation}, not sdpa"
    window = getattr(config, "sliding_window", None)
    if window is not None and window < max_length and (not kinds or "sliding_attention" in kinds):
        return f"its sliding window of {window} tokens is shorter than the longest row, {max_length}"
    return None


def _install(model: PreTrainedModel | PeftModel, base: PreTrainedModel, max_length: int) -> str | None:
    """Give the model the fastest attention that passes the check; where none does, say why and restore it."""
    register()
    before, reason = str(base.config._attn_implementation), None
    dtype = _activation_dtype(base)
    for implementation in available_implementations(base.device, dtype):
        base.set_attn_implementation(implementation)
        reason = _disagreement(model, base, dtype, max_length)
        if reason is None:
            return None
    base.set_attn_implementation(before)
    return reason


def _activation_dtype(base: PreTrainedModel) -> torch.dtype:
    kind = base.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.dtype


class _Sequence(NamedTuple):
    input_ids: np.ndarray
    spans: np.ndarray


def _disagreement(
    model: PreTrainedModel | PeftModel, base: PreTrainedModel, dtype: torch.dtype, max_length: int
) -> str | None:
    """How packed and padded losses of some short sequences differ, or None where they agree."""
    rows, joined_row = _check_rows(base.config.get_text_config().vocab_size, max_length)
    loss = SupervisedLoss(model)
    with _reading(model):
        try:
            padded, packed, joined = (
                loss(collate(some, pad_id=0, device=base.device, packed=form)).double()
                for some, form in ((rows, False), (rows, True), ([joined_row], False))
            )
        except (TypeError, ValueError, RuntimeError) as error:
            return f"a packed forward fails ({error})"
    difference, distance_to_joined = (float((packed - other).abs().max()) for other in (padded, joined))
    if not difference <= _TOLERANCE_NATS[dtype]:
        return f"packed and padded losses differ by {difference:.2g} nats"
    if difference > distance_to_joined:
        return "packed sequences get the losses of one joined text"
    return None


def _check_rows(vocab_size: int, max_length: int) -> tuple[list[_Sequence], _Sequence]:
    """Some sequences supervised from their second token on, and the same as one text."""
    rng = np.random.default_rng(0)
    lengths = [min(length, max_length) for length in _CHECK_LENGTHS]
    rows = [
        _Sequence(rng.integers(vocab_size, size=length, dtype=np.int32), np.array([[1, length]], dtype=np.int32))
        for length in lengths
    ]
    starts = np.cumsum([0, *lengths[:-1]])
    spans = np.concatenate([row.spans + start for row, start in zip(rows, starts, strict=True)])
    return rows, _Sequence(np.concatenate([row.input_ids for row in rows]), spans.astype(np.int32))


@contextmanager
def _reading(model: torch.nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
