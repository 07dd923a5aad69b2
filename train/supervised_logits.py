"""The logits that predict supervised tokens: the head at those positions alone where the model's forward offers that.

Models of transformers leave positions out by `logits_to_keep`. Code from elsewhere may take a number there and no mask,
or know no such argument; of such a model all logits are computed and the others dropped: slower, the same result.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from transformers.modeling_utils import slice_logits_to_keep


def base_of(model: Any) -> Any:
    """The model itself, without its adapters' wrapping."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def last_logits_alone(model: Any) -> dict[str, int]:
    """What to call the model with for the logits of the last position; empty where it then gives all of them."""
    return {"logits_to_keep": 1} if _takes_logits_to_keep(base_of(model)) else {}


def keeps_marked_positions(model: Any) -> bool:
    """Whether `logits_to_keep` may be a mask [B, T]. Models of transformers take one; code from elsewhere is tried."""
    base = base_of(model)
    if not _takes_logits_to_keep(base):
        return False
    if type(base).__module__.startswith("transformers."):
        return True
    ids = torch.tensor([[0, 1], [1, 0]], device=base.device)
    mask = torch.tensor([[True, False], [True, True]], device=base.device)
    try:
        with torch.no_grad():
            logits = base(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=mask).logits
    except (IndexError, TypeError, ValueError, RuntimeError):
        return False
    return logits.shape[:-1].numel() == int(mask.sum())


def logits_at(model: Any, arguments: Mapping[str, Any], positions: torch.Tensor, *, head_is_sparse: bool) -> Any:
    """Logits at some positions of a batch.

    Args:
        model: A causal LM, with adapters or without.
        arguments: What to call it with.
        positions: `predicts_answer` of `train.batch.TokenBatch`.
        head_is_sparse: What `keeps_marked_positions` says of the model.

    Returns:
        [N, V], with an axis of length 1 before it where rows are packed.
    """
    if head_is_sparse:
        return model(**arguments, logits_to_keep=positions).logits
    return slice_logits_to_keep(model(**arguments).logits, positions)


def _takes_logits_to_keep(base: Any) -> bool:
    return "logits_to_keep" in inspect.signature(base.forward).parameters
