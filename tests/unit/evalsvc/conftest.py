"""A character tokenizer and a small random llama, on one thread."""

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.unit.small_models import character_tokenizer, random_llama


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer()


@pytest.fixture
def random_model() -> LlamaForCausalLM:
    return random_llama()
