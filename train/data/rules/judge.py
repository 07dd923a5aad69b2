"""What all the checkers share: the shape of a check, and how a message shows what it found."""

from collections.abc import Callable, Sequence

Judge = Callable[[str, str], str | None]
"""(text, prompt) -> what is wrong with the text, or None. The prompt is the turn the text replies to."""

_SHOWN = 5


def quoted(text: str) -> str:
    """The text in quotes on one line, cut off after 60 characters."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


def listed(values: Sequence[str]) -> str:
    """The first five values, quoted, and how many more there are."""
    shown = ", ".join(quoted(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"
