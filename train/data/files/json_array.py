"""A JSON array of objects, element by element, in bounded memory.

The text is read through a window that always reaches at least one longest permitted element ahead, so an element that
does not parse there is broken or too long, never merely cut off. What is broken costs only itself: reading goes on at
the next object that begins as this array's objects do. That is one whose first key is the first key of an earlier
element (of the broken one, where none came before) and, where the array's first element begins a line, one that begins
a line with the same indentation. So an object nested in a broken element passes for an element only if it meets that
too; or if the very first element is broken before its first key is read, for then every object does. A missing,
doubled or trailing comma costs nothing.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from train.data.files.record import BadRecord, Record, as_record, too_long

_BLOCK_BYTES = 1 << 20
_KEPT_CHARS = 4096
_MAX_FIRST_KEYS = 16
_SPACE = re.compile(r"[ \t\r\n]*")
_SEPARATORS = re.compile(r"[ \t\r\n,]*")
_FIRST_KEY = re.compile(r'\{\s*("(?:[^"\\]|\\.){0,200}")')
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_DECODER = json.JSONDecoder()


def read_array(file: BinaryIO, *, max_bytes: int) -> Iterator[tuple[int, Record]]:
    """`(line, record)` of every element; the line is the one on which it begins.

    Args:
        file: Open at its beginning; its first character that is not white space is `[`.
        max_bytes: A longer element is refused unread.
    """
    window = _Window(file, ahead=max_bytes)
    window.skip(_SPACE)
    window.advance(window.position + 1)
    resync = _Resync(before_first=window.skip(_SEPARATORS))
    while True:
        line, char = window.line, window.char
        if char == "":
            yield line, BadRecord("malformed_json", "the file ends before its JSON array does; there is no ']'")
            return
        if char == "]":
            window.advance(window.position + 1)
            window.skip(_SPACE)
            if window.char == "":
                return
            resync.skip(window)
            yield line, BadRecord("malformed_json", "the JSON array ends here, but the file goes on")
        else:
            yield line, _element(window, resync, max_bytes)
        if resync.is_at_end:
            return
        window.skip(_SEPARATORS)


def _element(window: "_Window", resync: "_Resync", max_bytes: int) -> Record:
    line = window.line
    try:
        value, end = _DECODER.raw_decode(window.text, window.position)
    except (ValueError, RecursionError) as error:
        what = str(error)
        if isinstance(error, json.JSONDecodeError):
            what = f"{error.msg} at line {line + window.text.count(chr(10), window.position, error.pos)}"
        return _broken(*resync.skip(window), what, max_bytes)
    text = window.text[window.position : end]
    window.advance(end)
    if len(text) * 4 > max_bytes and (size := _num_bytes(text)) > max_bytes:
        return too_long(size, max_bytes)
    if not text.isascii() and _NOT_UTF8.search(text):
        return BadRecord("invalid_utf8", "not UTF-8; save the file as UTF-8")
    resync.learn(value)
    return as_record(value)


def _broken(size: int, head: str, what: str, max_bytes: int) -> Record:
    if size > max_bytes:
        return too_long(size, max_bytes)
    if "\0" in head:
        return BadRecord("nul_byte", f"NUL byte at position {head.index(chr(0))} of the element")
    if _NOT_UTF8.search(head):
        return BadRecord("invalid_utf8", "not UTF-8; save the file as UTF-8")
    return BadRecord("malformed_json", f"not JSON: {what}; skipped to the next element")


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


class _Window:
    """The text around the position: `ahead` characters and more from it on, or all that is left of the file.

    A byte that is not UTF-8 becomes a lone surrogate (`surrogateescape`), so it harms only the element it stands in.
    """

    def __init__(self, file: BinaryIO, *, ahead: int) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._ahead = ahead
        self._block_bytes = max(_BLOCK_BYTES, ahead)
        self.text = ""
        self.position = 0
        self.line = 1
        self.is_last = False
        self._fill()

    @property
    def char(self) -> str:
        return self.text[self.position : self.position + 1]

    def advance(self, position: int) -> None:
        """Go to `position` of the text, count the lines on the way, and read on where that leaves too little."""
        self.line += self.text.count("\n", self.position, position)
        self.position = position
        self._fill()

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Advance over what matches, and give its last part."""
        skipped = ""
        while match := pattern.match(self.text, self.position):
            if not match[0]:
                break
            skipped = match[0]
            self.advance(match.end())
        return skipped

    def _fill(self) -> None:
        if self.is_last or len(self.text) - self.position > self._ahead:
            return
        parts = [self.text[self.position :]]
        num_chars = len(parts[0])
        while num_chars <= self._ahead + self._block_bytes // 2 and not self.is_last:
            raw = self._file.read(self._block_bytes)
            parts.append(self._decoder.decode(raw, final=not raw))
            num_chars += len(parts[-1])
            self.is_last = not raw
        self.text = "".join(parts)
        self.position = 0


class _Resync:
    """Finds where to go on after something broken."""

    def __init__(self, *, before_first: str) -> None:
        self._indent = before_first.rpartition("\n")[2] if "\n" in before_first else None
        self._first_keys: dict[str, None] = {}
        self.is_at_end = False

    def learn(self, value: object) -> None:
        if isinstance(value, dict) and value and len(self._first_keys) < _MAX_FIRST_KEYS:
            key = next(iter(value))
            self._first_keys[json.dumps(key)] = self._first_keys[json.dumps(key, ensure_ascii=False)] = None

    def skip(self, window: _Window) -> tuple[int, str]:
        """Advance to the next element or the end; how many bytes were skipped, and the first of them as text."""
        pattern = self._pattern(window)
        size, head = 0, ""
        start = window.position
        while True:
            match = pattern.search(window.text, start)
            last = match is not None or window.is_last
            end = match.end() if match else len(window.text)
            if not last:
                end = max(window.position, end - _KEPT_CHARS)
            skipped = window.text[window.position : end]
            size, head = size + _num_bytes(skipped.rstrip(", \t\r\n") if last else skipped), head or skipped
            window.advance(end)
            if last:
                self.is_at_end = match is None
                return size, head
            start = window.position

    def _pattern(self, window: _Window) -> re.Pattern[str]:
        keys = list(self._first_keys)
        if not keys and (found := _FIRST_KEY.match(window.text, window.position)):
            keys = [found[1]]
        first_key = "|".join(map(re.escape, keys)) or '"'
        before = r"[,\[\]}]\s*" if self._indent is None else r"\n" + re.escape(self._indent)
        return re.compile(rf"{before}(?=\{{\s*(?:{first_key}))")
