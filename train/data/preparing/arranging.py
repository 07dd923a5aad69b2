"""Rows in context: after the rows they continue (chain), or after a related row (contrast).

The conversation is the context rows' turns and answers, then the row's own; its own system message stands before all of
it, a context row's is left out. Context that the row's own turns already begin with is not repeated. Only what the row
itself has supervised is supervised: its last tokens must come out the same as alone, token for token, or the row is not
stored in that arrangement. So it trains the same supervised tokens in every arrangement.

A chain too long for `max_length` loses its furthest ancestors one by one; a row too long with any context has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from train.data.preparing.encoding import Encoder
from train.data.preparing.spill import Text
from train.tokenizer import Encoded, EncodingFault

MAX_ANCESTORS = 16
"""A chain's context is its nearest so many ancestors at most."""


@dataclass(frozen=True, slots=True)
class Arranged:
    """A row in context.

    Attributes:
        input_ids: int32 [T].
        context: The context rows that fitted, furthest first.
        answer: Where the last context row's answer stands, stop token included; None where the row repeats that answer
            itself.
    """

    input_ids: np.ndarray
    context: tuple[int, ...]
    answer: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Alone:
    """A row by itself: what it says, its tokens, and where its supervised part begins."""

    text: Text
    input_ids: np.ndarray
    first_supervised: int


def arrange(
    encoder: Encoder,
    rows: Sequence[Alone],
    contexts: Sequence[tuple[int, ...]],
    texts: Mapping[int, Text],
) -> list[Arranged | None]:
    """Encode rows after their context.

    Args:
        encoder: How rows are encoded.
        rows: The rows alone.
        contexts: For every row the rows to stand before it, furthest first; empty for none.
        texts: Texts of all context rows.

    Returns:
        None where a row has no context, or none that it can be put after.
    """
    found: list[Arranged | None] = [None] * len(rows)
    left = {place: context for place, context in enumerate(contexts) if context}
    while left:
        places = list(left)
        conversations = [_conversation(rows[place].text, [texts[row] for row in left[place]]) for place in places]
        shorter: dict[int, tuple[int, ...]] = {}
        whole = encoder.encode([text for text, _ in conversations], loss_on="every_answer")
        for place, encoded, (_, num_before) in zip(places, whole, conversations, strict=True):
            if isinstance(encoded, EncodingFault):
                continue
            if len(encoded.input_ids) > encoder.max_length:
                if len(left[place]) > 1:
                    shorter[place] = left[place][1:]
            elif _ends_alike(encoded, rows[place]):
                answer = encoded.spans[num_before - 1] if num_before else None
                found[place] = Arranged(encoded.input_ids, left[place], answer)
        left = shorter
    return found


def _conversation(own: Text, context: Sequence[Text]) -> tuple[Text, int]:
    """The row after its context, and the number of answers that stand before its own turns."""
    system = tuple(message for message in own.messages if message[0] == "system")
    turns = tuple(message for message in own.messages if message[0] != "system")
    before = tuple(turn for text in context for turn in text.turns)
    for text in context:
        if turns[: len(text.turns)] == text.turns:  # the row repeats that conversation itself
            before = tuple(turn for other in context[: context.index(text)] for turn in other.turns)
            break
    is_last = before and before[-1] == context[-1].turns[-1]
    num_answers = sum(role == "assistant" for role, _ in before) if is_last else 0
    return Text((*system, *before, *turns), own.answer), num_answers


def _ends_alike(encoded: Encoded, alone: Alone) -> bool:
    tail = alone.input_ids[alone.first_supervised :]
    return len(encoded.input_ids) > len(alone.input_ids) and bool(np.array_equal(encoded.input_ids[-len(tail) :], tail))
