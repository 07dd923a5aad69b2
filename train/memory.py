"""Running out of memory: which errors say so, what to advise, and giving back what a broken step held.

Only what an allocator refuses can be caught. Where the system kills the process instead, as Linux does when main memory
is used up, the run goes on from its last checkpoint.
"""

import gc

import torch

from scheduler.errors import RunFailedError
from train.micro_batches import MicroBatchLimits

_ALLOCATOR_SAYS = ("DefaultCPUAllocator", "std::bad_alloc", "Cannot allocate memory")

ALLOCATION_ERRORS = (MemoryError, RuntimeError)
"""What an allocator may raise, `torch.OutOfMemoryError` included; `is_out_of_memory` tells it from the rest."""


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether an allocator raised it, on a GPU or on the host."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in _ALLOCATOR_SAYS)


def release(device: torch.device) -> None:
    """Return what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def out_of_memory(*, step: int, limits: MicroBatchLimits, longest: int, was_halved: bool) -> RunFailedError:
    """The error that ends the run, with what the person can do."""
    tried = "although micro-batches were halved once before" if was_halved else "and they cannot be halved"
    return RunFailedError(
        f"out of memory at step {step} with micro-batches of {limits} ({longest} tokens in the longest row), {tried}; "
        "lower train.micro_batch_size or train.micro_batch_tokens (of the stage, if it has its own), lower "
        "data.max_length or the stage's, set model.gradient_checkpointing: true, use model.lora or "
        "model.dtype: bfloat16, or share the model out with launch.parallelism: fsdp2"
    )
