"""What training computes in: float32 or bfloat16, and where a device only emulates the latter."""

import logging
from contextlib import AbstractContextManager, nullcontext

import torch

from train.config import ModelConfig, PretrainedModel, TinyModel

logger = logging.getLogger(__name__)


def training_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """Dtype that forward and backward compute in, and that frozen weights are kept in."""
    if isinstance(config, TinyModel) or config.dtype == "float32":
        return torch.float32
    if config.dtype == "bfloat16":
        return torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" and has_bfloat16(device) else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; torch emulates it where there are none, many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return True


def compute_context(config: ModelConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward in training: autocast where `training_dtype` is not float32.

    With adapters the frozen weights are of that dtype already; autocast then keeps the float32 adapters' products from
    being computed in float32.
    """
    dtype = training_dtype(config, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def log_precision(config: ModelConfig, device: torch.device) -> None:
    """Say in the log what training computes in, and where bfloat16 would be cheaper or is only emulated."""
    dtype = training_dtype(config, device)
    shown = str(dtype).removeprefix("torch.")
    logger.info("forward and backward compute in %s, on %s; trained weights are kept in float32", shown, device.type)
    is_left_open = isinstance(config, PretrainedModel) and config.dtype == "auto" and device.type == "cpu"
    if is_left_open and has_bfloat16(device):
        logger.info("this CPU computes in bfloat16; model.dtype: bfloat16 makes a step cheaper, at lower precision")
    if dtype == torch.bfloat16 and not has_bfloat16(device):
        logger.warning(
            "this %s has no bfloat16 instructions: torch emulates them, and a step may take ten times as long as in "
            "float32; model.dtype: auto computes in float32 here",
            "GPU" if device.type == "cuda" else "CPU",
        )
