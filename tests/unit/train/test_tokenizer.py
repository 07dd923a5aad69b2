from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from scheduler.errors import ConfigError, DataError
from train.tokenizer import (
    Encoded,
    EncodingFault,
    encode_example,
    encode_examples,
    fingerprint,
    render_prompt,
    train_byte_tokenizer,
)

TEXTS = ["copy a b c", "the sum of 12 and 345 is 357", "reverse the words of the sentence"] * 20
MESSAGES = (("system", "Be brief."), ("user", "What is 12 + 30?"))


def tiny() -> PreTrainedTokenizerFast:
    return train_byte_tokenizer(TEXTS, vocab_size=320)


TOKENIZER = tiny()


def test_equal_texts_give_an_equal_tokenizer_and_other_texts_another() -> None:
    assert fingerprint(tiny()) == fingerprint(TOKENIZER)
    assert fingerprint(train_byte_tokenizer(["other words"] * 9, vocab_size=320)) != fingerprint(TOKENIZER)


def test_the_vocabulary_holds_to_its_bound_and_too_small_a_bound_is_refused() -> None:
    assert 262 < len(TOKENIZER) <= 320
    with pytest.raises(ConfigError, match="261"):
        train_byte_tokenizer(TEXTS, vocab_size=261)


@given(st.text())
def test_any_text_comes_back_unchanged(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert TOKENIZER.decode(ids) == text


def test_every_digit_is_a_token_of_its_own() -> None:
    assert TOKENIZER.tokenize("357") == ["3", "5", "7"]


def test_saved_and_loaded_it_gives_the_same_ids(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert len(loaded) == len(TOKENIZER)
    assert loaded.all_special_tokens == TOKENIZER.all_special_tokens
    for answer in ("42", " two  spaces\n", "né ☃", "the words of 357"):
        assert encode_example(loaded, MESSAGES, answer, "auto") == encode_example(TOKENIZER, MESSAGES, answer, "auto")
    assert fingerprint(loaded) == fingerprint(AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("chat_template", ["auto", "none"])
def test_an_example_is_prompt_then_answer_then_stop(chat_template: str) -> None:
    ids, answer_start = encode_example(TOKENIZER, MESSAGES, "It is 42.", chat_template)
    assert ids[:answer_start] == render_prompt(TOKENIZER, MESSAGES, chat_template)
    assert TOKENIZER.decode(ids[answer_start:-1]) == "It is 42."
    assert ids[-1] == TOKENIZER.eos_token_id


def test_with_its_template_the_example_is_what_the_template_writes_for_the_whole_conversation() -> None:
    ids, _ = encode_example(TOKENIZER, MESSAGES, "42", "auto")
    whole = [{"role": role, "content": content} for role, content in (*MESSAGES, ("assistant", "42"))]
    assert ids == TOKENIZER.apply_chat_template(whole, return_dict=False)
    assert TOKENIZER.decode(ids) == "<bos><system>Be brief.<user>What is 12 + 30?<assistant>42<eos>"


def test_without_a_template_the_prompt_is_plain_lines() -> None:
    assert TOKENIZER.decode(render_prompt(TOKENIZER, MESSAGES, "none")) == "Be brief.\nWhat is 12 + 30?\n"
    bare = tiny()
    bare.chat_template = None
    assert render_prompt(bare, MESSAGES, "auto") == render_prompt(TOKENIZER, MESSAGES, "none")


def test_plain_text_starts_with_the_token_the_tokenizer_itself_puts_first() -> None:
    llama_like = tiny()
    bos = llama_like.bos_token_id
    llama_like.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    assert render_prompt(llama_like, MESSAGES, "none") == [bos, *render_prompt(TOKENIZER, MESSAGES, "none")]
    assert render_prompt(llama_like, MESSAGES, "auto").count(bos) == 1


def test_the_stop_token_is_supervised_even_where_it_is_also_the_padding() -> None:
    padded_with_stop = tiny()
    padded_with_stop.pad_token = padded_with_stop.eos_token
    assert encode_example(padded_with_stop, MESSAGES, "42", "auto") == encode_example(TOKENIZER, MESSAGES, "42", "auto")


@pytest.mark.parametrize("text", ["a <eos> b", "<user>", "x<pad>"])
def test_control_tokens_in_a_text_are_refused_and_named(text: str) -> None:
    for messages, answer in ((MESSAGES, text), ((("user", text),), "42")):
        with pytest.raises(DataError, match="control token"):
            encode_example(TOKENIZER, messages, answer, "auto")


def test_without_a_template_only_the_stop_token_is_refused() -> None:
    encode_example(TOKENIZER, (("user", "<user>hi<assistant>"),), "42", "none")
    with pytest.raises(DataError, match="<eos>"):
        encode_example(TOKENIZER, MESSAGES, "4<eos>2", "none")


def test_many_at_once_equal_one_by_one_and_a_bad_one_costs_only_itself() -> None:
    examples = [((("user", f"say {n}"),), "<eos>" if n == 2 else f"{n} said") for n in range(5)]
    results = encode_examples(TOKENIZER, examples, "auto")
    assert isinstance(results[2], EncodingFault)
    for place in (0, 1, 3, 4):
        result = results[place]
        assert isinstance(result, Encoded)
        assert result.input_ids.dtype == np.int32
        assert (result.input_ids.tolist(), result.answer_start) == encode_example(TOKENIZER, *examples[place], "auto")


def test_a_template_that_refuses_the_roles_is_an_encoding_fault() -> None:
    strict = tiny()
    strict.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(DataError, match="no system turn"):
        encode_example(strict, MESSAGES, "42", "auto")


def test_a_tokenizer_without_a_stop_token_is_refused() -> None:
    endless = tiny()
    endless.eos_token = None
    with pytest.raises(ConfigError, match="eos_token"):
        encode_example(endless, MESSAGES, "42", "auto")
