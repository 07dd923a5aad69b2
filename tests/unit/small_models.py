"""A character tokenizer, one with code of its own, and a small random llama."""

import json
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 +-=.?"


def character_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<eos>": 1, **{character: 2 + index for index, character in enumerate(CHARACTERS)}}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    characters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=characters, pad_token="<pad>", eos_token="<eos>")


OWN_CODE = {
    "own_tokenizer.py": """
from transformers import PreTrainedTokenizerFast

from .own_letters import small


class OwnTokenizerFast(PreTrainedTokenizerFast):
    def __call__(self, text=None, **settings):
        return super().__call__(small(text), **settings)
""",
    "own_letters.py": """
def small(text):
    return text.lower() if isinstance(text, str) else [small(one) for one in text]
""",
}


def save_tokenizer_with_own_code(folder: Path) -> None:
    """The folder of a character tokenizer that reads capitals as small letters, by code that lies beside it."""
    character_tokenizer().save_pretrained(folder)
    for name, code in OWN_CODE.items():
        (folder / name).write_text(code, encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {
        "tokenizer_class": "OwnTokenizerFast",
        "auto_map": {"AutoTokenizer": [None, "own_tokenizer.OwnTokenizerFast"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def random_llama(vocab_size: int = 44, max_position_embeddings: int = 256) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=vocab_size,
        max_position_embeddings=max_position_embeddings,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()
