"""A JSON object that is still being written: the growth of chosen string fields, and its end.

A structural scanner for RFC 8259: it follows strings, brackets and escapes, and leaves the grammar
of numbers and literals, and control characters in strings, to the parser of the finished text.
Each character is read a bounded number of times, and only an unfinished escape is kept for the next
delta: the cost of a delta does not depend on how much came before.
"""

import json
import re
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec

from treadle.errors import StreamInvalid

_ESCAPE = r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
_STRING = rf'"[^"\\]*+(?:{_ESCAPE}[^"\\]*+)*+"'
_HIGH = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_BEGUN_ESCAPE = r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?"

_SPACE = re.compile(r"[ \t\n\r]*+")
_KEY_AND_COLON = re.compile(rf"({_STRING})[ \t\n\r]*+:[ \t\n\r]*+")
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*+")
# Up to a bracket, or to the quote of a string that does not end here.
_UP_TO_BRACKET = re.compile(rf'[^"{{}}\[\]]*+(?:{_STRING}[^"{{}}\[\]]*+)*+(["{{}}\[\]]?)')
# The decodable part of a string, and its quote or an escape that the next delta has to finish. A
# high surrogate is decodable only once the escape after it is complete, because the two are one
# character.
_TEXT = re.compile(
    rf'([^"\\]*+(?:(?!{_HIGH}{_BEGUN_ESCAPE}\Z){_ESCAPE}[^"\\]*+)*+)'
    rf'(?:(")|((?:{_HIGH})?{_BEGUN_ESCAPE})\Z|)'
)
_CLOSED, _OPEN = 2, 3
_SURROGATE = re.compile("[\ud800-\udfff]")

_CLOSING = {"{": "}", "[": "]"}
_decode_json = json.JSONDecoder(strict=False).raw_decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_REPLACEMENT = "\ufffd"


MAX_DEPTH = 128
"""How deep JSON may be nested by default."""


class FieldGrowth(NamedTuple):
    """Growth of a chosen field, decoded; `done` with the field's last one."""

    field: str
    delta: str
    done: bool


_new_delta = tuple[str, str, bool].__new__
"""Makes a `FieldGrowth` from a tuple, without a call into Python."""


class JsonFieldScanner:
    """Scans one JSON object from deltas cut anywhere.

    `fields` are the names of top-level string fields whose growth is returned; if a name occurs
    twice, only the first counts, because streamed text cannot be taken back. A value that is not a
    string yields nothing. A lone surrogate becomes U+FFFD as soon as no other half can follow.

    - `started`: the object has opened.
    - `complete`: it has closed; true from its closing brace on, never before.
    - `empty`: it has closed and had no members.
    - `trailing`: more than whitespace came after it.
    - `invalid`: the text is not a JSON object, and nothing more is returned; the parser of the
      finished text reports the error.

    Raises `StreamInvalid` beyond `max_chars` (default 8 Mi characters) or `max_depth` (default
    128 brackets, the object's own included); the scanner cannot be used after that.
    """

    def __init__(
        self,
        fields: Collection[str] = (),
        *,
        max_chars: int = 8 * 1024 * 1024,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        self._wanted = set(fields)
        self._max_chars = max_chars
        self._max_depth = max_depth
        self._chars = 0
        self._step: _Step = JsonFieldScanner._before_object
        self._closers: list[str] = []
        self._key: list[str] = []
        self._field: str | None = None
        self._in_text = False
        self._held = ""
        self._deltas: list[FieldGrowth] = []
        self.started = False
        self.complete = False
        self.empty = False
        self.trailing = False
        self.invalid = False

    def feed(self, delta: str) -> list[FieldGrowth]:
        """Returns the growth of the chosen fields that `delta` brings."""
        self._chars += len(delta)
        if self._chars > self._max_chars:
            raise StreamInvalid(
                f"The JSON exceeds {self._max_chars} characters; ask the model for less."
            )
        if self._in_text and '"' not in delta and "\\" not in delta:
            if self._field is None or not delta:
                return []
            return [_new_delta(FieldGrowth, (self._field, delta, False))]
        return self._scanned(self._held + delta)

    def _scanned(self, text: str) -> list[FieldGrowth]:
        self._held = ""
        at, end = 0, len(text)
        while at < end:
            at = self._step(self, text, at)
        self._in_text = self._step is JsonFieldScanner._text and not self._held
        deltas, self._deltas = self._deltas, []
        return deltas

    # Each step takes `text` from `at` on and returns how far it came; `at` is within `text`.

    def _before_object(self, text: str, at: int) -> int:
        if text[at] != "{":
            return self._space(text, at)
        self.started = True
        self._step = JsonFieldScanner._before_first_key
        return at + 1

    def _before_first_key(self, text: str, at: int) -> int:
        if text[at] != "}":
            return self._before_key(text, at)
        self.empty = True
        return self._close(at)

    def _before_key(self, text: str, at: int) -> int:
        if text[at] != '"':
            return self._space(text, at)
        found = _KEY_AND_COLON.match(text, at)
        if found is None:
            self._step = JsonFieldScanner._in_key
            return at + 1
        self._choose(found[1][1:-1])
        self._step = JsonFieldScanner._before_value
        return found.end()

    def _in_key(self, text: str, at: int) -> int:
        found = _TEXT.match(text, at)
        assert found is not None
        self._key.append(found[1])
        if found.lastindex != _CLOSED:
            return self._hold(found)
        self._choose("".join(self._key))
        self._key.clear()
        self._step = JsonFieldScanner._before_colon
        return found.end()

    def _choose(self, key: str) -> None:
        """Decides whether the value after `key`, which is not decoded yet, is returned."""
        self._field = None
        if self._wanted and (name := _decoded(key)) in self._wanted:
            self._wanted.remove(name)
            self._field = name

    def _before_colon(self, text: str, at: int) -> int:
        if text[at] != ":":
            return self._space(text, at)
        self._step = JsonFieldScanner._before_value
        return at + 1

    def _before_value(self, text: str, at: int) -> int:
        first = text[at]
        if first == '"':
            self._step = JsonFieldScanner._text
            return at + 1
        if first in _CLOSING:
            self._open(first)
            return at + 1
        end = _end(_SCALAR, text, at)
        if end == at:
            return self._space(text, at)
        self._step = JsonFieldScanner._scalar
        return end

    def _scalar(self, text: str, at: int) -> int:
        end = _end(_SCALAR, text, at)
        if end < len(text):
            self._step = JsonFieldScanner._after_value
        return end

    def _text(self, text: str, at: int) -> int:
        found = _TEXT.match(text, at)
        assert found is not None
        closed = found.lastindex == _CLOSED
        if self._field is not None and (found[1] or closed):
            growth = (self._field, _decoded(found[1]), closed)
            self._deltas.append(_new_delta(FieldGrowth, growth))
        if not closed:
            return self._hold(found)
        self._step = JsonFieldScanner._nested if self._closers else JsonFieldScanner._after_value
        return found.end()

    def _hold(self, found: re.Match[str]) -> int:
        """Keeps an unfinished escape for the next delta."""
        if found.lastindex == _OPEN:
            self._held = found[_OPEN]
        else:
            self._fail()
        return found.end()

    def _open(self, bracket: str) -> None:
        self._field = None
        self._closers.append(_CLOSING[bracket])
        if len(self._closers) >= self._max_depth:
            raise StreamInvalid(
                f"The JSON is nested deeper than {self._max_depth}; ask the model for a flatter "
                "object."
            )
        self._step = JsonFieldScanner._nested

    def _nested(self, text: str, at: int) -> int:
        found = _UP_TO_BRACKET.match(text, at)
        assert found is not None
        mark = found[1]
        if mark == '"':
            self._step = JsonFieldScanner._text
        elif mark in _CLOSING:
            self._open(mark)
        elif mark:
            self._close_nested(mark)
        return found.end()

    def _close_nested(self, bracket: str) -> None:
        if bracket != self._closers.pop():
            self._fail()
        elif not self._closers:
            self._step = JsonFieldScanner._after_value

    def _after_value(self, text: str, at: int) -> int:
        mark = text[at]
        if mark == "}":
            return self._close(at)
        if mark != ",":
            return self._space(text, at)
        self._step = JsonFieldScanner._before_key
        return at + 1

    def _close(self, at: int) -> int:
        self.complete = True
        self._step = JsonFieldScanner._after_object
        return at + 1

    def _after_object(self, text: str, at: int) -> int:
        if _end(_SPACE, text, at) < len(text):
            self.trailing = True
        return len(text)

    def _space(self, text: str, at: int) -> int:
        """Skips whitespace; anything else is invalid here."""
        end = _end(_SPACE, text, at)
        if end == at:
            self._fail()
        return end

    def _fail(self) -> None:
        self.invalid = True
        self._step = JsonFieldScanner._ignore

    def _ignore(self, text: str, at: int) -> int:
        return len(text)


_Step = Callable[[JsonFieldScanner, str, int], int]


def field_text(text: str, field: str) -> str:
    """Returns the text of a string field of a JSON object: what its growth adds up to."""
    scanner = JsonFieldScanner((field,), max_chars=len(text))
    try:
        return "".join(growth.delta for growth in scanner.feed(text))
    except StreamInvalid:  # nested too deeply: not from a model, whose text was scanned before
        return ""


def is_begun_object(text: str) -> bool:
    """Returns whether `text` is a JSON object that breaks off: the beginning of a valid one."""
    try:
        _decode_members(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    else:
        return False  # nearly all texts are whole, which costs a tenth of a scan
    scanner = JsonFieldScanner(max_chars=len(text))
    try:
        scanner.feed(text)
    except StreamInvalid:  # nested too deeply, which the parser of the whole reports
        return False
    return scanner.started and not scanner.complete and not scanner.invalid


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where a match of `pattern` at `at` ends; these patterns match the empty text too."""
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _decoded(text: str) -> str:
    """The value of a JSON string without its quotes."""
    if "\\" not in text:
        return text
    value: str = _decode_json(f'"{text}"')[0]
    return _SURROGATE.sub(_REPLACEMENT, value) if "\\u" in text else value
