"""What travels through the data plane: a row that can be trained on, or the refusal of one that cannot.

A file is read into rows and refusals; every later stage (verify, tokenise, split) may turn a row into a refusal, none
drops one in silence.
"""

import hashlib
import json
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted

Message = tuple[str, str]
"""(role, content); the role is system, user, assistant or tool."""

DIFFICULTY_FACTORS = ("knowledge_breadth", "reasoning_steps", "constraints", "ambiguity")

UNCOUNTED_RULES = frozenset({"duplicate", "near_duplicate", "leak"})
"""Refusals that say nothing against the row itself: they do not count towards `max_refused_ratio`."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a source says of a row beside its text; None where it says nothing.

    Attributes:
        sub_task: Part of the task the row belongs to.
        language: Code of its language.
        licence: Under which it may be used.
        annotator: Who wrote the answer.
        qualification: What entitles the annotator to.
        reviewer: Who reviewed the row.
        review_status: The review's outcome.
        reviewed_at: When.
        perturbation: How the row was made from its parent, for variants.
        business_impact: What a wrong answer costs, in the source's own words or figures.
        created_at: When the row was written.
        difficulty_factors: `DIFFICULTY_FACTORS`, finite numbers.
    """

    sub_task: str | None = None
    language: str | None = None
    licence: str | None = None
    annotator: str | None = None
    qualification: str | None = None
    reviewer: str | None = None
    review_status: str | None = None
    reviewed_at: str | None = None
    perturbation: str | None = None
    business_impact: str | None = None
    created_at: str | None = None
    difficulty_factors: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One example and its lineage.

    Attributes:
        id: The row's own id, or `file name:line`. Not necessarily unique across files.
        task: Name of the task.
        messages: Everything the model reads before it answers; the last turn is of a user or a tool.
        answer: What the model must write, exactly as in the source.
        source: The file, as configured.
        line: Where in the file, 1-based: the line a JSON or CSV row begins on, the row number of a columnar file.
        parent_id: Id of the row this one derives from or continues, or None.
        lineage: What else the source says of it.
        content_hash: Hash of messages and answer; equal content has an equal hash, whatever its lineage.
    """

    id: str
    task: str
    messages: tuple[Message, ...]
    answer: str
    source: str
    line: int
    parent_id: str | None
    lineage: Lineage
    content_hash: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not trained on, and why. `task` is "" where the row was refused before its task was known."""

    task: str
    source: str
    line: int
    rule: str
    reason: str

    @property
    def counts(self) -> bool:
        """Whether the refusal counts towards `max_refused_ratio`."""
        return self.rule not in UNCOUNTED_RULES


def refuse(row: Row, *, rule: str, reason: str) -> Refusal:
    """The refusal of a row that had been read."""
    return Refusal(task=row.task, source=row.source, line=row.line, rule=rule, reason=reason)


def hash_content(messages: tuple[Message, ...], answer: str) -> str:
    """128-bit hash (hex) of messages and answer.

    Raises:
        UnicodeEncodeError: The text holds a lone surrogate, so it is not writable as UTF-8.
    """
    text = f"[{messages_text(messages)},{_quoted(answer)}]"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def messages_text(messages: tuple[Message, ...]) -> str:
    """Messages as JSON: what `json.dumps` writes without spaces and escapes of its own, in half the time."""
    return "[" + ",".join([f"[{_quoted(role)},{_quoted(content)}]" for role, content in messages]) + "]"


def parse_messages(text: str) -> tuple[Message, ...]:
    """Inverse of `messages_text`."""
    return tuple([(role, content) for role, content in json.loads(text)])
