import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from train.fast_tokenizing import Message, chat_text, token_ids
from train.tokenizer import train_byte_tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MESSAGES = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), min_size=1, max_size=5)
TEMPLATES = [
    None,
    "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}",
    "{%- set ns = namespace(n=0) %}{% for m in messages %}{% if loop.last and tools is none %}{{ m.content | tojson }}"
    "{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ undefined_name }}",
]


def tokenizer_with(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = train_byte_tokenizer(["a b c 12"], vocab_size=300)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


TOKENIZERS = [tokenizer_with(template) for template in TEMPLATES]


def by_transformers(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> object:
    conversation = [{"role": role, "content": content} for role, content in messages]
    return tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(conversations=st.lists(MESSAGES, min_size=1, max_size=4))
def test_the_text_is_what_transformers_renders(
    tokenizer: PreTrainedTokenizerFast, conversations: list[list[Message]]
) -> None:
    for messages in conversations:
        for _ in range(2):
            assert chat_text(tokenizer, messages) == by_transformers(tokenizer, messages)


def test_a_template_changed_or_refusing_is_noticed_at_once() -> None:
    tokenizer = tokenizer_with("{{ messages[0].content }}")
    assert [chat_text(tokenizer, [("user", "a")]) for _ in range(2)] == ["a", "a"]
    tokenizer.chat_template = (
        "{% if messages[0].content == 'b' %}{{ raise_exception('no b') }}{% endif %}!{{ eos_token }}"
    )
    assert [chat_text(tokenizer, [("user", "a")]) for _ in range(2)] == ["!<eos>", "!<eos>"]
    with pytest.raises(jinja2.TemplateError, match="no b"):
        chat_text(tokenizer, [("user", "b")])


def test_a_template_that_writes_something_else_each_time_is_left_to_transformers() -> None:
    tokenizer = tokenizer_with("{{ strftime_now('%f') }}{{ messages[0].content }}")
    assert chat_text(tokenizer, [("user", "a")]) != chat_text(tokenizer, [("user", "a")])


class Shouting(PreTrainedTokenizerFast):
    """A tokenizer with ways of its own."""

    def _encode_plus(self, text, *arguments, **keywords):
        return super()._encode_plus([item.upper() for item in text], *arguments, **keywords)

    def apply_chat_template(self, *_, **__):
        return "mine"


def test_a_tokenizer_with_ways_of_its_own_is_used_as_it_is() -> None:
    plain = train_byte_tokenizer(["a"], vocab_size=300)
    own = Shouting(tokenizer_object=plain.backend_tokenizer, eos_token="<eos>")
    assert token_ids(own, ["a", "b"]) == token_ids(plain, ["A", "B"])
    assert chat_text(own, [("user", "a")]) == "mine"


@given(st.lists(TEXTS, max_size=5), st.booleans())
def test_ids_are_those_of_transformers_neither_cut_nor_padded(texts: list[str], special: bool) -> None:
    tokenizer = TOKENIZERS[0]
    expected = [tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts]
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding()
    assert token_ids(tokenizer, texts, add_special_tokens=special) == expected
