"""Whether an expression in a text stands free, or is only a part of something this package cannot reckon with."""

from collections.abc import Sequence

from train.data.rules.expression import Token

_RECKONING = frozenset(
    {"of", "times", "plus", "minus", "over", "by", "per", "twice", "thrice", "half", "double", "triple", "quarter"}
    | {"third", "divided", "multiplied"}
)
"""Words before an expression that make it a part of what is reckoned: half of 10 + 2."""
_NUMBERED = frozenset({"day", "week", "month", "year", "quarter", "step", "part", "option", "page", "chapter", "case"})
"""Things that are called by number: day 1 * 2."""
_RECKONING_ENDS = tuple("加减乘除以")
_REMAINDER = frozenset({"r", "rem", "remainder", "mod", "余"})
_UNITS = frozenset("kmglhstKMB")
_BINDING = frozenset("^√±~≈<>≤≥∑∫")
_JOINTS = frozenset(":,._'")


def starts_free(tokens: Sequence[Token], start: int, equals: int) -> bool:
    """Whether nothing before `tokens[start]` belongs to the expression from there to `tokens[equals]`.

    Not free: after an operator (unless it is a list's bullet), another number (a mixed one, 1 1/2), an unclosed
    bracket of a longer expression, a variable, words such as `half of`, a function's name, a power or root, the hour of
    a clock time. A lone number after a word is that thing's number: week 2 = 35 + 35.
    """
    if start == 0:
        return True
    before, earlier = tokens[start - 1], tokens[start - 2] if start > 1 else None
    is_attached = before.end == tokens[start].start
    match before.kind:
        case "equals" | "line":
            return True
        case "open":
            return earlier is None or earlier.kind not in ("operator", "number", "close")
        case "operator":
            is_first_on_line = earlier is None or earlier.kind == "line"
            return is_first_on_line and before.text in "-*–" and not is_attached
        case "close":
            return not is_attached
        case "word":
            return equals - start > 1 and _may_precede(before.text, earlier, is_attached)
        case "sign" if before.text in _JOINTS and earlier is not None:
            is_joint = is_attached and _is_number(earlier) and earlier.end == before.start
            is_grouped = before.text == "," and _is_number(earlier) and len(tokens[start].text) == 3  # 14, 400 / 80
            return not is_joint and not is_grouped and earlier.kind != "operator"
        case "sign":
            return before.text not in _BINDING
    return False


def _may_precede(word: str, earlier: Token | None, is_attached: bool) -> bool:
    """Whether an expression may begin after this word."""
    if not word.isascii():
        return not word.endswith(_RECKONING_ENDS)
    folded = word.lower()
    if folded == "and" and earlier is not None and _is_number(earlier):
        return False
    is_reckoning = folded in _RECKONING or folded.removesuffix("s") in _NUMBERED
    return not is_attached and len(word) > 1 and not is_reckoning


def ends_free(tokens: Sequence[Token], end: int) -> bool:
    """Whether nothing from `tokens[end]` on belongs to the expression that ends before it.

    Not free: before an operator with more to come (a rate as in 3/hour and a dash before words are free), another
    number, a bracket that touches it, a variable, a remainder (3 R 1), `and a half`, the minutes of a clock time.
    """
    if end == len(tokens):
        return True
    after, following = tokens[end], tokens[end + 1] if end + 1 < len(tokens) else None
    is_attached = tokens[end - 1].end == after.start
    match after.kind:
        case "operator":
            is_before_word = following is not None and following.kind == "word" and len(following.text) > 1
            return is_before_word and (after.text == "/" or (after.text in "-–−" and not is_attached))
        case "open":
            return not is_attached
        case "word":
            is_variable = len(after.text) == 1 and after.text.isascii() and is_attached
            is_unit = after.text in _UNITS and tokens[end - 2].kind == "equals"
            return _may_follow(after.text, following) and (is_unit or not is_variable)
        case "sign" if after.text in _JOINTS:
            is_joint = following is not None and _is_number(following) and after.end == following.start
            return not (is_joint and is_attached)
        case "sign":
            return after.text not in _BINDING
        case "number" | "percent" | "other":
            return False
    return True


def _may_follow(word: str, following: Token | None) -> bool:
    """Whether an expression may end before this word."""
    if word.lower() == "and" and following is not None:
        return following.kind not in ("number", "open") and following.text not in ("a", "one", "half")
    return word.lower() not in _REMAINDER


def _is_number(token: Token) -> bool:
    return token.kind in ("number", "other")
