"""The four forms a row may have, and how a record of each becomes messages and an answer.

    alpaca       instruction, input, output  [system, history: [[user, assistant], ...]]
    messages     messages: [{role, content}, ...]
    sharegpt     conversations: [{from, value}, ...]  [system]
    completion   prompt, completion  [system]

In a conversation the last assistant turn is the answer and all before it is context; what follows it is left out.
"""

import json
import math
from typing import Any, Literal

from train.data.row import Message

Form = Literal["alpaca", "messages", "sharegpt", "completion"]

REQUIRED_COLUMNS: dict[Form, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "completion": ("prompt", "completion"),
}
"""Forms in the order they are looked for."""

OPTIONAL_COLUMNS: dict[Form, tuple[str, ...]] = {
    "messages": (),
    "sharegpt": ("system",),
    "alpaca": ("input", "system", "history"),
    "completion": ("system",),
}

_ROLE_OF = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}


class BadRowError(Exception):
    """Why a record is not a row; caught where the record's place is known and turned into a refusal."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


def detect_form(columns: set[str]) -> Form | None:
    """The first form whose required columns are all there, or None."""
    for form, required in REQUIRED_COLUMNS.items():
        if columns.issuperset(required):
            return form
    return None


def to_conversation(form: Form, record: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    """Messages up to the answer, and the answer.

    Args:
        form: The source's form.
        record: Values under our column names; a required column may still be missing in this record.

    Raises:
        BadRowError: The record breaks a rule of its form.
    """
    match form:
        case "alpaca":
            messages, answer = _alpaca(record)
        case "completion":
            messages = (*_system(record), ("user", text_of(record, "prompt")))
            answer = text_of(record, "completion")
        case "messages" | "sharegpt":
            messages, answer = _conversation(record, form)
    if not answer.strip():
        raise BadRowError("empty_output", "the answer is empty")
    if not messages[-1][1].strip():
        raise BadRowError("empty_prompt", "the turn to answer is empty")
    return messages, answer


def text_of(record: dict[str, Any], column: str) -> str:
    """The column's string. Raises BadRowError when it is missing or not a string."""
    if column not in record:
        raise BadRowError("missing_column", f"no column {column!r} in this row")
    value = record[column]
    if not isinstance(value, str):
        raise BadRowError("non_string", f"column {column!r} is {_shown(value)}, not a string")
    return value


def optional_text_of(record: dict[str, Any], column: str) -> str | None:
    """The column's string; None where it is missing, null or empty."""
    return text_of(record, column) or None if record.get(column) is not None else None


DIFFICULTY_FACTORS = ("knowledge_breadth", "reasoning_steps", "constraints", "ambiguity")


def difficulty_of(record: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The four numbers of `difficulty_factors`, by name or in the order of `DIFFICULTY_FACTORS`; None without them."""
    value = _decoded(record.get("difficulty_factors"), "difficulty_factors")
    if value is None or value == "":
        return None
    if isinstance(value, dict) and value.keys() == set(DIFFICULTY_FACTORS):
        value = [value[name] for name in DIFFICULTY_FACTORS]
    if (
        not isinstance(value, list)
        or len(value) != 4
        or any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in value)
        or not all(map(math.isfinite, value))
    ):
        raise BadRowError(
            "bad_difficulty",
            f"difficulty_factors is {_shown(value)}, not four finite numbers ({', '.join(DIFFICULTY_FACTORS)})",
        )
    first, second, third, fourth = map(float, value)
    return first, second, third, fourth


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"


def _decoded(value: Any, column: str) -> Any:
    """CSV has no lists: there a list is written as JSON."""
    if not isinstance(value, str) or not value:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRowError("malformed_json", f"column {column!r} holds neither a list nor JSON: {error}") from error


def _system(record: dict[str, Any]) -> tuple[Message, ...]:
    system = optional_text_of(record, "system")
    return (("system", system),) if system else ()


def _alpaca(record: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    instruction = text_of(record, "instruction")
    extra = optional_text_of(record, "input")
    prompt = "\n".join(part for part in (instruction, extra) if part)
    messages: list[Message] = [*_system(record)]
    history = _decoded(record.get("history"), "history") or []
    if not isinstance(history, list):
        raise BadRowError("bad_history", f"history is {_shown(history)}, not a list of [user, assistant] pairs")
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(turn, str) for turn in pair):
            raise BadRowError("bad_history", f"history holds {_shown(pair)}, not a pair of strings [user, assistant]")
        messages += [("user", pair[0]), ("assistant", pair[1])]
    return (*messages, ("user", prompt)), text_of(record, "output")


def _conversation(record: dict[str, Any], form: Literal["messages", "sharegpt"]) -> tuple[tuple[Message, ...], str]:
    column, role_key, content_key = (
        ("messages", "role", "content") if form == "messages" else ("conversations", "from", "value")
    )
    if column not in record:
        raise BadRowError("missing_column", f"no column {column!r} in this row")
    turns = _decoded(record[column], column)
    if not isinstance(turns, list):
        raise BadRowError("non_list", f"column {column!r} is {_shown(turns)}, not a list of turns")
    messages = [_turn(turn, role_key, content_key) for turn in turns]
    last = max((place for place, (role, _) in enumerate(messages) if role == "assistant"), default=None)
    if last is None:
        raise BadRowError("no_answer", f"no assistant turn among {len(messages)} turns")
    context = (*_system(record), *messages[:last])
    if not any(role == "user" for role, _ in context):
        raise BadRowError("no_prompt", "no user turn before the last assistant turn")
    if context[-1][0] not in ("user", "tool"):
        raise BadRowError(
            "turn_order", f"the last assistant turn follows a turn of role {context[-1][0]!r}, not of a user"
        )
    return context, messages[last][1]


def _turn(turn: Any, role_key: str, content_key: str) -> Message:
    if not isinstance(turn, dict) or role_key not in turn or content_key not in turn:
        raise BadRowError("bad_turn", f"a turn is {_shown(turn)}, not an object with {role_key!r} and {content_key!r}")
    role, content = turn[role_key], turn[content_key]
    if not isinstance(role, str) or role not in _ROLE_OF:
        raise BadRowError("unknown_role", f"a turn's {role_key!r} is {_shown(role)}; known: {', '.join(_ROLE_OF)}")
    if not isinstance(content, str):
        raise BadRowError("non_string", f"the {content_key!r} of a {role} turn is {_shown(content)}, not a string")
    return _ROLE_OF[role], content
