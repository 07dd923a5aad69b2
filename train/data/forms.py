"""The forms a row may have, and how a record of each becomes messages and an answer.

    alpaca       instruction, input, output  [system, history: [[user, assistant], ...]]
    messages     messages: [{role, content}, ...]  [tools]
    sharegpt     conversations: [{from, value}, ...]  [system, tools]
    completion   prompt, completion  [system]
    instances    instruction, instances: [{input, output}, ...]  [system]     one row an instance
    prompt       prompt, or instruction and input  [system]                   no answer: for evaluation only

In a conversation the last assistant turn is the answer and all before it is context; what follows it is left out. A
call of tools is that turn's text, as JSON: `{"name": …, "arguments": {…}}`, several as a list. The definitions of the
tools (`tools`) stand at the end of the system turn, as they are.
"""

import datetime
import json
import math
from collections.abc import Iterator
from typing import Any, Literal

from train.data.row import DIFFICULTY_FACTORS, Message

Form = Literal["alpaca", "messages", "sharegpt", "completion", "instances", "prompt"]
Conversation = tuple[tuple[Message, ...], str]
"""Messages up to the answer, and the answer; the answer is "" in the form `prompt` and nowhere else."""

REQUIRED_COLUMNS: dict[Form, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "completion": ("prompt", "completion"),
    "instances": ("instruction", "instances"),
    "prompt": (),
}
"""Forms in the order they are looked for; `prompt` needs one of `PROMPT_COLUMNS`."""

OPTIONAL_COLUMNS: dict[Form, tuple[str, ...]] = {
    "messages": ("tools",),
    "sharegpt": ("system", "tools"),
    "alpaca": ("input", "system", "history"),
    "completion": ("system",),
    "instances": ("system",),
    "prompt": ("prompt", "instruction", "input", "system"),
}

PROMPT_COLUMNS = ("prompt", "instruction")
_ANSWER_NAMES = {"answer", "answers", "chosen", "completion", "completions", "output", "outputs", "reference"}
_ANSWER_NAMES |= {"response", "responses", "solution", "target", "targets"}
"""Names that an answer goes by elsewhere: with such a column the form `prompt` must be asked for by mapping."""

_ROLE_OF = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


class BadRowError(Exception):
    """Why a record is not a row; caught where the record's place is known and turned into a refusal."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


def detect_form(columns: set[str]) -> Form | None:
    """The first form with answers whose required columns are all there, or None."""
    for form, required in REQUIRED_COLUMNS.items():
        if required and columns.issuperset(required):
            return form
    return None


def looks_answered(columns: set[str]) -> bool:
    """Whether a column is called as answers often are, so that it should be mapped rather than left unread."""
    return any(column.lower() in _ANSWER_NAMES for column in columns)


def to_conversations(form: Form, record: dict[str, Any]) -> Iterator[Conversation | BadRowError]:
    """The rows of a record: one, or in the form `instances` one an instance, a broken one costing only itself.

    Args:
        form: The source's form.
        record: Values under our column names; a required column may still be missing in this record.

    Raises:
        BadRowError: The record breaks a rule of its form.
    """
    match form:
        case "alpaca":
            yield _checked(*_alpaca(record))
        case "completion":
            yield _checked((*_system(record), ("user", text_of(record, "prompt"))), text_of(record, "completion"))
        case "messages" | "sharegpt":
            yield _checked(*_conversation(record, form))
        case "instances":
            yield from _instances(record)
        case "prompt":
            yield _prompt(record), ""


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


def lineage_text_of(record: dict[str, Any], column: str) -> str | None:
    """What the column says, as text: a number or a date as it is written, a list or an object as JSON."""
    value = record.get(column)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, datetime.date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, default=str)


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


def _checked(messages: tuple[Message, ...], answer: str) -> Conversation:
    if not answer.strip():
        raise BadRowError("empty_output", "the answer is empty")
    _require_prompt(messages)
    return messages, answer


def _require_prompt(messages: tuple[Message, ...]) -> None:
    if not messages[-1][1].strip():
        raise BadRowError("empty_prompt", "the turn to answer is empty")


def _system(record: dict[str, Any]) -> tuple[Message, ...]:
    system = optional_text_of(record, "system")
    return (("system", system),) if system else ()


def _instructed(record: dict[str, Any]) -> Message:
    parts = (text_of(record, "instruction"), optional_text_of(record, "input"))
    return "user", "\n".join(part for part in parts if part)


def _alpaca(record: dict[str, Any]) -> Conversation:
    prompt = _instructed(record)
    messages: list[Message] = [*_system(record)]
    history = _decoded(record.get("history"), "history") or []
    if not isinstance(history, list):
        raise BadRowError("bad_history", f"history is {_shown(history)}, not a list of [user, assistant] pairs")
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(turn, str) for turn in pair):
            raise BadRowError("bad_history", f"history holds {_shown(pair)}, not a pair of strings [user, assistant]")
        messages += [("user", pair[0]), ("assistant", pair[1])]
    return (*messages, prompt), text_of(record, "output")


def _instances(record: dict[str, Any]) -> Iterator[Conversation | BadRowError]:
    instances = _decoded(record["instances"], "instances")
    if not isinstance(instances, list):
        raise BadRowError("non_list", f"column 'instances' is {_shown(instances)}, not a list of input and output")
    if not instances:
        raise BadRowError("no_answer", "instances is empty")
    instruction, system = text_of(record, "instruction"), _system(record)
    for number, instance in enumerate(instances, start=1):
        if not isinstance(instance, dict):
            yield BadRowError("not_an_object", f"instance {number} is {_shown(instance)}, not an object")
            continue
        try:
            prompt = _instructed({"instruction": instruction, "input": instance.get("input")})
            yield _checked((*system, prompt), text_of(instance, "output"))
        except BadRowError as fault:
            yield BadRowError(fault.rule, f"instance {number}: {fault.reason}")


def _prompt(record: dict[str, Any]) -> tuple[Message, ...]:
    if "prompt" not in record and "instruction" not in record:
        raise BadRowError("missing_column", "no column 'prompt' or 'instruction' in this row")
    turn = ("user", text_of(record, "prompt")) if "prompt" in record else _instructed(record)
    messages = (*_system(record), turn)
    _require_prompt(messages)
    return messages


def _conversation(record: dict[str, Any], form: Literal["messages", "sharegpt"]) -> Conversation:
    column, role_key, content_key = (
        ("messages", "role", "content") if form == "messages" else ("conversations", "from", "value")
    )
    if column not in record:
        raise BadRowError("missing_column", f"no column {column!r} in this row")
    turns = _decoded(record[column], column)
    if not isinstance(turns, list):
        raise BadRowError("non_list", f"column {column!r} is {_shown(turns)}, not a list of turns")
    messages = [*_system(record), *(_turn(turn, role_key, content_key) for turn in turns)]
    last = max((place for place, (role, _) in enumerate(messages) if role == "assistant"), default=None)
    if last is None:
        raise BadRowError("no_answer", f"no assistant turn among {len(messages)} turns")
    context = messages[:last]
    if not any(role == "user" for role, _ in context):
        raise BadRowError("no_prompt", "no user turn before the last assistant turn")
    if context[-1][0] not in ("user", "tool"):
        raise BadRowError(
            "turn_order", f"the last assistant turn follows a turn of role {context[-1][0]!r}, not of a user"
        )
    return _with_tools(context, record.get("tools")), messages[last][1]


def _with_tools(messages: list[Message], tools: Any) -> tuple[Message, ...]:
    if not tools or tools in ("[]", "{}"):
        return tuple(messages)
    text = tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
    if messages[0][0] == "system":
        return ("system", f"{messages[0][1]}\n{text}"), *messages[1:]
    return ("system", text), *messages


def _turn(turn: Any, role_key: str, content_key: str) -> Message:
    calls = (turn.get("tool_calls") or turn.get("function_call")) if isinstance(turn, dict) else None
    if not isinstance(turn, dict) or role_key not in turn or (content_key not in turn and not calls):
        raise BadRowError("bad_turn", f"a turn is {_shown(turn)}, not an object with {role_key!r} and {content_key!r}")
    role, content = turn[role_key], turn.get(content_key)
    if not isinstance(role, str) or role not in _ROLE_OF:
        raise BadRowError("unknown_role", f"a turn's {role_key!r} is {_shown(role)}; known: {', '.join(_ROLE_OF)}")
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise BadRowError("non_string", f"the {content_key!r} of a {role} turn is {_shown(content)}, not a string")
    if calls:
        content = "\n".join(part for part in (content, _calls_text(calls)) if part)
    return _ROLE_OF[role], content


def _calls_text(calls: Any) -> str:
    rendered = [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    return json.dumps(rendered[0] if len(rendered) == 1 else rendered, ensure_ascii=False)


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRowError("bad_turn", f"a tool call is {_shown(call)}, not an object with a function's name")
    return {"name": function["name"], "arguments": _decoded(function.get("arguments"), "arguments")}
