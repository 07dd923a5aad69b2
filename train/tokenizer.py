"""Text to token ids: how a prompt is rendered, where the answer begins, which token ends it; and the tiny tokenizer.

One example is `prompt ids + answer ids + stop id`. Prompt and answer are tokenised apart, so the boundary is the same
one generation has: the model reads exactly the prompt ids and continues. The stop id is the tokenizer's end-of-sequence
token, which for chat models is the one that closes a turn. Which positions are supervised follows from `spans` alone,
never from a comparison with the padding token (which is often the stop token itself).

With `loss_on: every_answer` a conversation is pieced together turn by turn, `prompt ids + answer ids + stop id + ids of
the text up to the next answer + ...`, so that each answer is again tokenised as generation would write it. The pieces
must spell what the template makes of the whole; a template that rewrites earlier turns is an EncodingFault.

A chat template is used as it is: one that inserts a default system message does so here too. This module does not pad,
truncate or mask.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import jinja2
import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from scheduler.errors import ConfigError, DataError
from train.fast_tokenizing import Message, chat_text, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ChatTemplate = Literal["auto", "none"]
LossOn = Literal["last_answer", "every_answer"]
Span = tuple[int, int]

PAD, BOS, EOS, USER, ASSISTANT, SYSTEM = SPECIAL_TOKENS = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<user>",
    "<assistant>",
    "<system>",
)
_MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
_MAX_TRAINING_CHARS = 4_000_000
_TINY_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<assistant>' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ '<system>' + message['content'] }}"
    "{% else %}{{ '<user>' + message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def train_byte_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with its own chat template; equal texts give an equal tokenizer.

    Any text can be encoded and comes back unchanged; every digit is a token of its own. The vocabulary is smaller than
    `vocab_size` where the texts offer fewer merges.

    Args:
        texts: What to learn the merges from; the first four million characters are read, more would change little.
        vocab_size: Upper bound of the vocabulary, special tokens and the 256 bytes included.

    Raises:
        ConfigError: `vocab_size` cannot hold the bytes and the special tokens.
    """
    if vocab_size < _MIN_VOCAB_SIZE:
        raise ConfigError(f"vocab_size {vocab_size} is too small: bytes and special tokens take {_MIN_VOCAB_SIZE}")
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_first_chars(texts, _MAX_TRAINING_CHARS), trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=_TINY_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _first_chars(texts: Iterable[str], max_chars: int) -> Iterator[str]:
    num_chars = 0
    for text in texts:
        yield text
        num_chars += len(text)
        if num_chars >= max_chars:
            return


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens.

    Attributes:
        input_ids: int32 [T].
        spans: The supervised positions, [start, end) each, ascending and disjoint, every start at least 1, each with
            the stop token that ends it. The answer is the last span, which ends at T.
    """

    input_ids: np.ndarray
    spans: tuple[Span, ...]

    @property
    def answer_start(self) -> int:
        """Where the answer begins."""
        return self.spans[-1][0]


def render_prompt(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], chat_template: ChatTemplate
) -> list[int]:
    """Token ids of everything the model reads before it answers.

    With "auto" and a tokenizer that has a chat template: the template, with its generation prompt. Otherwise each
    content on a line of its own, after the tokenizer's leading special token where it sets one (roles are not written).

    Raises:
        DataError: The template does not accept these messages.
    """
    text = _prompt_text(tokenizer, messages, chat_template)
    return _leading_ids(tokenizer, chat_template) + token_ids(tokenizer, [text])[0]


def encode_example(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], answer: str, chat_template: ChatTemplate
) -> tuple[list[int], int]:
    """Token ids of prompt, answer and stop token, and the position at which the answer begins.

    Raises:
        DataError: The template does not accept these messages, or a text holds a control token.
        ConfigError: The tokenizer has no end-of-sequence token.
    """
    (encoded,) = encode_examples(tokenizer, [(messages, answer)], chat_template)
    if isinstance(encoded, EncodingFault):
        raise DataError(encoded.reason)
    return encoded.input_ids.tolist(), encoded.answer_start


@dataclass(frozen=True, slots=True)
class EncodingFault:
    """Why an example cannot be encoded."""

    rule: str
    reason: str


def encode_examples(
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[tuple[Sequence[Message], str]],
    chat_template: ChatTemplate,
    *,
    loss_on: LossOn = "last_answer",
) -> list[Encoded | EncodingFault]:
    """`encode_example` for many (messages, answer) at once, about four times as fast; a bad one costs only itself.

    Args:
        tokenizer: With its chat template.
        examples: (messages, answer) each.
        chat_template: See `render_prompt`.
        loss_on: "every_answer" supervises the assistant turns among the messages too, but for empty ones and those
            that no turn precedes. Without a template, each of these is then followed by the stop token, which
            `render_prompt` does not write.

    Raises:
        ConfigError: The tokenizer has no end-of-sequence token.
    """
    stop = stop_id(tokenizer)
    leading = _leading_ids(tokenizer, chat_template)
    control_tokens = _control_tokens(tokenizer, chat_template)
    rendered = [
        _rendered(tokenizer, messages, answer, chat_template, control_tokens, loss_on) for messages, answer in examples
    ]
    good = [item for item in rendered if isinstance(item, _Turns)]
    before = iter(token_ids(tokenizer, [text for turns in good for text in turns.before]))
    answers = iter(token_ids(tokenizer, [text for turns in good for text in turns.answers]))
    return [
        item if isinstance(item, EncodingFault) else _pieced_together(item, before, answers, leading, stop)
        for item in rendered
    ]


@dataclass(frozen=True, slots=True)
class _Turns:
    """An example as text: `before[i]` stands before `answers[i]`; but for the first it begins with the stop token."""

    before: tuple[str, ...]
    answers: tuple[str, ...]


def _pieced_together(
    turns: _Turns, before: Iterator[list[int]], answers: Iterator[list[int]], leading: list[int], stop: int
) -> Encoded:
    ids = [*leading, *next(before)]
    spans: list[Span] = []
    for number in range(len(turns.answers)):
        if number:
            between = next(before)
            ids += between[between.index(stop) + 1 :]
        start = len(ids)
        ids += next(answers)
        ids.append(stop)
        spans.append((start, len(ids)))
    return Encoded(input_ids=np.array(ids, dtype=np.int32), spans=tuple(spans))


def stop_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Id of the token that ends an answer.

    Raises:
        ConfigError: The tokenizer has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} has no eos_token, so no answer could "
            "ever end; set eos_token in its tokenizer_config.json"
        )
    return cast(int, tokenizer.eos_token_id)


def fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash of all that decides the ids: vocabulary and pipeline, special tokens, chat template."""
    parts: list[object] = [tokenizer.special_tokens_map, tokenizer.chat_template]
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        pipeline = json.loads(tokenizer.backend_tokenizer.to_str())
        parts.append({name: part for name, part in pipeline.items() if name not in ("truncation", "padding")})
    else:
        parts.append([type(tokenizer).__name__, tokenizer.get_vocab()])
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _uses_template(tokenizer: "PreTrainedTokenizerBase", chat_template: ChatTemplate) -> bool:
    return chat_template == "auto" and tokenizer.chat_template is not None


def _leading_ids(tokenizer: "PreTrainedTokenizerBase", chat_template: ChatTemplate) -> list[int]:
    """A template writes its own first token; plain text gets the one the tokenizer would put there."""
    if _uses_template(tokenizer, chat_template) or tokenizer.bos_token_id is None:
        return []
    bos = cast(int, tokenizer.bos_token_id)
    return [bos] if token_ids(tokenizer, ["a"], add_special_tokens=True)[0][:1] == [bos] else []


def _prompt_text(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], chat_template: ChatTemplate) -> str:
    if not _uses_template(tokenizer, chat_template):
        return "".join(f"{content}\n" for _, content in messages)
    try:
        return chat_text(tokenizer, messages)
    except jinja2.TemplateError as error:
        roles = ", ".join(role for role, _ in messages)
        raise DataError(
            f"the chat template does not accept turns {roles} ({error}); reorder them or set chat_template: none"
        ) from error


def _control_tokens(tokenizer: "PreTrainedTokenizerBase", chat_template: ChatTemplate) -> re.Pattern[str]:
    """What may not stand in a text. Without a template only the stop token: plain text may spell out its own format."""
    special = tokenizer.all_special_tokens if _uses_template(tokenizer, chat_template) else [tokenizer.eos_token]
    tokens = cast(list[str], special)
    return re.compile("|".join(re.escape(token) for token in tokens if token and token != tokenizer.unk_token))


def _rendered(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    answer: str,
    chat_template: ChatTemplate,
    control_tokens: re.Pattern[str],
    loss_on: LossOn,
) -> _Turns | EncodingFault:
    for role, content in (*messages, ("answer", answer)):
        if found := control_tokens.search(content):
            return EncodingFault(
                "control_token",
                f"the {role} text holds {found[0]!r}, which this tokenizer reads as a control token; reword it",
            )
    try:
        whole = _prompt_text(tokenizer, messages, chat_template)
        if loss_on == "last_answer":
            return _Turns(before=(whole,), answers=(answer,))
        earlier = _supervised_turns(messages)
        prompts = [_prompt_text(tokenizer, messages[:place], chat_template) for place in earlier]
    except DataError as error:
        return EncodingFault("chat_template", str(error))
    contents = [messages[place][1] for place in earlier]
    if _uses_template(tokenizer, chat_template):
        return _cut_at_answers([*prompts, whole], [*contents, answer], cast(str, tokenizer.eos_token))
    return _plain_turns([*prompts, whole], [*contents, answer], cast(str, tokenizer.eos_token))


def _supervised_turns(messages: Sequence[Message]) -> list[int]:
    """Places of the assistant turns that answer something."""
    asked = next((place for place, (role, _) in enumerate(messages) if role in ("user", "tool")), len(messages))
    return [
        place
        for place, (role, content) in enumerate(messages)
        if place > asked and role == "assistant" and content.strip()
    ]


def _cut_at_answers(prompts: Sequence[str], answers: Sequence[str], stop: str) -> _Turns | EncodingFault:
    """The last prompt, which holds all earlier turns, cut at the answers: each must stand there as it was written."""
    before = [prompts[0]]
    for number, (prompt, answer, longer) in enumerate(zip(prompts, answers, prompts[1:], strict=False), start=1):
        if not longer.startswith(f"{prompt}{answer}{stop}"):
            return EncodingFault(
                "chat_template",
                f"the chat template does not write assistant turn {number} as its prompt, its text and {stop!r} once "
                "other turns follow (it strips or rewrites earlier turns), so data.loss_on: every_answer would train "
                "on what the model never reads; set data.loss_on: last_answer",
            )
        before.append(longer[len(prompt) + len(answer) :])
    return _Turns(before=tuple(before), answers=tuple(answers))


def _plain_turns(prompts: Sequence[str], answers: Sequence[str], stop: str) -> _Turns:
    pairs = zip(prompts, answers, prompts[1:], strict=False)
    between = [stop + longer[len(prompt) + len(answer) :] for prompt, answer, longer in pairs]
    return _Turns(before=(prompts[0], *between), answers=tuple(answers))
