"""A small random llama, and one compute thread: sums come out the same on every machine."""

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.unit.small_models import random_llama


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def random_model() -> LlamaForCausalLM:
    return random_llama()
