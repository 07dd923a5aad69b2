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
    """A row in context: its tokens, int32 [T], and the context rows that fitted, furthest first."""

    input_ids: np.ndarray
    context: tuple[int, ...]


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
        for place, encoded in zip(places, encoder.encode(conversations), strict=True):
            if isinstance(encoded, EncodingFault):
                continue
            if len(encoded.input_ids) > encoder.max_length:
                if len(left[place]) > 1:
                    shorter[place] = left[place][1:]
            elif _ends_alike(encoded, rows[place]):
                found[place] = Arranged(encoded.input_ids, left[place])
        left = shorter
    return found


def _conversation(own: Text, context: Sequence[Text]) -> Text:
    system = tuple(message for message in own.messages if message[0] == "system")
    turns = tuple(message for message in own.messages if message[0] != "system")
    before = tuple(turn for text in context for turn in text.turns)
    for text in context:
        if turns[: len(text.turns)] == text.turns:  # the row repeats that conversation itself
            before = tuple(turn for other in context[: context.index(text)] for turn in other.turns)
            break
    return Text((*system, *before, *turns), own.answer)


def _ends_alike(encoded: Encoded, alone: Alone) -> bool:
    tail = alone.input_ids[alone.first_supervised :]
    return len(encoded.input_ids) > len(alone.input_ids) and bool(np.array_equal(encoded.input_ids[-len(tail) :], tail))
