from collections.abc import Sequence
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
    LossOn,
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


CHATML = (
    "{% for m in messages %}{{ '<user>' + m['role'] + '\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<user>assistant\\n' }}{% endif %}"
)
"""ChatML as many models ship it, with the tiny tokenizer's own special tokens."""
FORGETFUL = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% if loop.last or m['role'] != 'assistant' %}{{ m['content'] }}"
    "{% else %}{{ m['content'].split('</think>')[-1] }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
"""Strips the thinking from earlier turns, as Qwen3's template does."""


def with_template(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = tiny()
    tokenizer.chat_template = template
    return tokenizer


TEMPLATES = {"tiny": TOKENIZER, "chatml": with_template(CHATML), "none": with_template(None)}
TALK = (
    ("system", "Be brief."),
    ("user", "What is 12 + 30?"),
    ("assistant", '{"name": "add"}'),
    ("tool", "42"),
    ("assistant", "It is 42. "),
    ("user", "And 1 more?"),
)


def encode(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[tuple[str, str]], answer: str, loss_on: LossOn
) -> Encoded:
    (encoded,) = encode_examples(tokenizer, [(messages, answer)], "auto", loss_on=loss_on)
    assert isinstance(encoded, Encoded), encoded
    return encoded


def supervised(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> list[str]:
    return [str(tokenizer.decode(encoded.input_ids[start:end])) for start, end in encoded.spans]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_answer_supervises_exactly_the_assistant_turns_each_with_its_stop_token(name: str) -> None:
    tokenizer = TEMPLATES[name]
    encoded = encode(tokenizer, TALK, "43", "every_answer")
    assert supervised(tokenizer, encoded) == ['{"name": "add"}<eos>', "It is 42. <eos>", "43<eos>"]
    assert encoded.spans[-1] == (encoded.answer_start, len(encoded.input_ids))
    last = encode(tokenizer, TALK, "43", "last_answer")
    assert supervised(tokenizer, last) == ["43<eos>"]
    if name != "none":
        assert tokenizer.decode(encoded.input_ids) == tokenizer.decode(last.input_ids)


@pytest.mark.parametrize("name", ["tiny", "chatml"])
def test_the_pieces_of_every_answer_spell_what_the_template_writes(name: str) -> None:
    tokenizer = TEMPLATES[name]
    turns = [{"role": role, "content": content} for role, content in (*TALK, ("assistant", "43"))]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert isinstance(whole, str)
    assert tokenizer.decode(encode(tokenizer, TALK, "43", "every_answer").input_ids) == whole.removesuffix("\n")


def test_each_answer_is_tokenised_as_if_it_were_generated() -> None:
    encoded = encode(TOKENIZER, TALK, "43", "every_answer")
    for (start, end), place in zip(encoded.spans, (2, 4, 6), strict=True):
        prompt, answer = TALK[:place], (*TALK, ("assistant", "43"))[place][1]
        alone = encode(TOKENIZER, prompt, answer, "last_answer")
        assert encoded.input_ids[start:end].tolist() == alone.input_ids[alone.answer_start :].tolist()


@pytest.mark.parametrize("name", TEMPLATES)
def test_with_one_answer_it_makes_no_difference_where_the_loss_is(name: str) -> None:
    one, other = (encode(TEMPLATES[name], MESSAGES, "42", loss_on) for loss_on in ("last_answer", "every_answer"))
    assert (one.input_ids.tolist(), one.spans) == (other.input_ids.tolist(), other.spans)


def test_a_greeting_before_any_question_and_an_empty_turn_are_context() -> None:
    talk = (("assistant", "Hello."), ("user", "a"), ("assistant", " "), ("user", "b"))
    for tokenizer in TEMPLATES.values():
        encoded = encode(tokenizer, talk, "c", "every_answer")
        assert supervised(tokenizer, encoded) == ["c<eos>"]
        assert encoded.answer_start >= 1


def test_a_template_that_rewrites_earlier_turns_is_a_fault_only_where_that_matters() -> None:
    tokenizer = with_template(FORGETFUL)
    thinking = (("user", "a"), ("assistant", "<think>hm</think>b"), ("user", "c"))
    plain = (("user", "a"), ("assistant", "b"), ("user", "c"))
    examples = [(thinking, "d"), (plain, "d"), (thinking[:1], "<think>x</think>b")]
    fault, *good = encode_examples(tokenizer, examples, "auto", loss_on="every_answer")
    assert isinstance(fault, EncodingFault)
    assert fault.rule == "chat_template"
    assert "set data.loss_on: last_answer" in fault.reason
    assert all(isinstance(result, Encoded) for result in good)
    assert all(isinstance(result, Encoded) for result in encode_examples(tokenizer, examples, "auto"))


turn_texts = st.text(st.sampled_from("ab 1\n{é☃"), min_size=1, max_size=6).filter(str.strip)


@given(st.lists(st.tuples(turn_texts, turn_texts), min_size=1, max_size=4), st.sampled_from([*TEMPLATES]))
def test_spans_of_any_talk_decode_to_its_answers(pairs: list[tuple[str, str]], name: str) -> None:
    turns = [turn for asked, said in pairs for turn in (("user", asked), ("assistant", said))]
    encoded = encode(TEMPLATES[name], turns[:-1], turns[-1][1], "every_answer")
    assert supervised(TEMPLATES[name], encoded) == [f"{said}<eos>" for _, said in pairs]
    ends = [0, *(end for _, end in encoded.spans)]
    assert all(before < start < end for before, (start, end) in zip(ends, encoded.spans, strict=False))
