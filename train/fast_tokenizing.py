"""Two things that transformers does to a text, done to many in a fraction of the time, with the same result.

`chat_text` keeps the compiled chat template with its variables and puts only the messages in. The first conversation of
every sequence of roles is rendered by transformers too; a template that differs once is left to it from then on.

`token_ids` has the backend leave out the offsets that no one here reads.

A tokenizer that encodes or renders in a way of its own is used as it is.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, cast

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

Message = tuple[str, str]
"""(role, content)"""


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], *, add_special_tokens: bool = False
) -> list[list[int]]:
    """The token ids of every text, neither cut nor padded."""
    if not texts:
        return []
    encode = partial(tokenizer, add_special_tokens=add_special_tokens, verbose=False)
    encode = partial(encode, return_attention_mask=False, return_token_type_ids=False)
    if len(texts) == 1 or not _encodes_plainly(tokenizer):
        return cast(list[list[int]], encode(texts)["input_ids"])
    encode(texts[:1])  # has the backend neither cut nor pad
    backend = cast(PreTrainedTokenizerFast, tokenizer).backend_tokenizer
    return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]


def _encodes_plainly(tokenizer: PreTrainedTokenizerBase) -> bool:
    own, plain = type(tokenizer), PreTrainedTokenizerFast
    return isinstance(tokenizer, plain) and all(
        getattr(own, name) is getattr(plain, name) for name in ("__call__", "_encode_plus")
    )


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The conversation as the tokenizer's chat template writes it, with its generation prompt.

    Raises:
        jinja2.TemplateError: The template does not accept these messages.
    """
    conversation = [{"role": role, "content": content} for role, content in messages]
    template = _template_of(tokenizer)
    if template is None:
        return _by_transformers(tokenizer, conversation)
    roles = tuple(role for role, _ in messages)
    if roles in template.proven_roles:
        return template.render(conversation)
    text = _by_transformers(tokenizer, conversation)
    if template.is_exact and template.render(conversation) == text:
        template.proven_roles.add(roles)
    else:
        template.distrust()
    return text


def _by_transformers(tokenizer: PreTrainedTokenizerBase, conversation: list[dict[str, str]]) -> str:
    return cast(str, tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))


class _Template:
    """A compiled template with all its variables but the messages."""

    def __init__(self, compiled: Any, special_tokens: tuple[tuple[str, str], ...]) -> None:
        self._compiled = compiled
        self._variables = {**compiled.globals, "tools": None, "documents": None, "add_generation_prompt": True}
        self._variables |= dict(special_tokens)
        self.proven_roles: set[tuple[str, ...]] = set()
        self.is_exact = True

    def render(self, conversation: list[dict[str, str]]) -> str:
        context = self._compiled.new_context({**self._variables, "messages": conversation}, shared=True)
        return "".join(self._compiled.root_render_func(context))

    def distrust(self) -> None:
        self.is_exact = False
        self.proven_roles.clear()


def _template_of(tokenizer: PreTrainedTokenizerBase) -> _Template | None:
    """None where the tokenizer renders in a way of its own."""
    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return None
    special_tokens = cast(dict[str, str], tokenizer.special_tokens_map)
    return _compiled(tokenizer.get_chat_template(), tuple(special_tokens.items()))


@lru_cache(maxsize=8)
def _compiled(template: str, special_tokens: tuple[tuple[str, str], ...]) -> _Template | None:
    compile_template = getattr(chat_template_utils, "_compile_jinja_template", None)
    return None if compile_template is None else _Template(compile_template(template), special_tokens)
