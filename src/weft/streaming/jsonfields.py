"""A JSON object that is still being written: the growth of chosen string fields, and its end.

A structural scanner of RFC 8259: it follows strings, brackets and escapes, and leaves the grammar
of numbers and literals to whoever parses the finished text. Each character is looked at once, so a
delta costs the same however much came before.
"""

import re
from collections.abc import Collection
from typing import ClassVar, Literal, NamedTuple

from weft.errors import StreamInvalid

_Mode = Literal["start", "key?", "key", "colon", "value", "field", "string", "nested", "scalar",
                "comma", "end"]  # fmt: skip

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING_SPECIAL = re.compile(r'["\\]')
_NESTED_SPECIAL = re.compile(r'["{}\[\]]')
_SCALAR_END = re.compile(r"[,}\s]")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_CLOSING = {"{": "}", "[": "]"}
_UNICODE_LENGTH = 6
_REPLACEMENT = "\ufffd"


class FieldDelta(NamedTuple):
    """Growth of a chosen field, decoded; `done` with the field's last one."""

    field: str
    delta: str
    done: bool


class JsonFieldScanner:
    """Scans one JSON object from deltas cut anywhere.

    `fields` are the names of top-level string fields whose growth is wanted; of a name that comes
    twice, the first. A value that is no string yields nothing. A lone surrogate becomes U+FFFD.

    Text that is no JSON object sets `invalid`, after which nothing is yielded: whoever parses the
    whole text says what is wrong with it. Raises `StreamInvalid` beyond `max_chars` (8 Mi) or
    `max_depth` (128).
    """

    def __init__(
        self,
        fields: Collection[str] = (),
        *,
        max_chars: int = 8 * 1024 * 1024,
        max_depth: int = 128,
    ) -> None:
        self._wanted = set(fields)
        self._max_chars = max_chars
        self._max_depth = max_depth
        self._mode: _Mode = "start"
        self._after_string: _Mode = "comma"
        self._after_comma = False
        self._closers: list[str] = []
        self._key: list[str] = []
        self._field = ""
        self._escape = ""
        self._high = 0
        self._chars = 0
        self._pieces: list[str] = []
        self._deltas: list[FieldDelta] = []
        self.complete = False
        self.empty = False
        self.invalid = False
        self.trailing = False

    def feed(self, delta: str) -> list[FieldDelta]:
        """Returns the growth of the chosen fields that `delta` brings."""
        self._chars += len(delta)
        if self._chars > self._max_chars:
            raise StreamInvalid(
                f"The JSON exceeds {self._max_chars} characters; ask the model for less."
            )
        if self.invalid:
            return []
        scan = self._SCAN
        at, end = 0, len(delta)
        while at < end and not self.invalid:
            at = scan[self._mode](self, delta, at)
        if self._mode == "field" and self._pieces:
            self._emit(done=False)
        if not self._deltas:
            return []
        deltas, self._deltas = self._deltas, []
        return deltas

    def _emit(self, *, done: bool) -> None:
        self._deltas.append(FieldDelta(self._field, "".join(self._pieces), done))
        self._pieces.clear()

    def _fail(self, end: int) -> int:
        self.invalid = True
        return end

    def _start(self, delta: str, at: int) -> int:
        at = _skip_space(delta, at)
        if at == len(delta):
            return at
        if delta[at] != "{":
            return self._fail(at)
        self._mode = "key?"
        self.empty = True
        return at + 1

    def _key_or_end(self, delta: str, at: int) -> int:
        at = _skip_space(delta, at)
        if at == len(delta):
            return at
        if delta[at] == "}" and not self._after_comma:
            return self._close(at)
        if delta[at] != '"':
            return self._fail(at)
        self.empty = False
        self._mode = "key"
        return at + 1

    def _close(self, at: int) -> int:
        self._mode = "end"
        self.complete = True
        return at + 1

    def _in_key(self, delta: str, at: int) -> int:
        at, closed = self._decode(delta, at, self._key)
        if closed:
            self._mode = "colon"
        return at

    def _colon(self, delta: str, at: int) -> int:
        at = _skip_space(delta, at)
        if at == len(delta):
            return at
        if delta[at] != ":":
            return self._fail(at)
        self._mode = "value"
        return at + 1

    def _value(self, delta: str, at: int) -> int:
        at = _skip_space(delta, at)
        if at == len(delta):
            return at
        key = "".join(self._key)
        self._key.clear()
        wanted = key in self._wanted
        self._wanted.discard(key)
        first = delta[at]
        if first == '"':
            self._mode, self._after_string = ("field" if wanted else "string"), "comma"
            self._field = key
            return at + 1
        if first in _CLOSING:
            self._open(first)
            return at + 1
        if first in ",}]:":
            return self._fail(at)
        self._mode = "scalar"
        return at

    def _open(self, bracket: str) -> None:
        self._closers.append(_CLOSING[bracket])
        if len(self._closers) >= self._max_depth:
            raise StreamInvalid(f"The JSON is nested deeper than {self._max_depth}.")
        self._mode = "nested"

    def _in_field(self, delta: str, at: int) -> int:
        at, closed = self._decode(delta, at, self._pieces)
        if closed:
            self._emit(done=True)
            self._mode = "comma"
        return at

    def _in_string(self, delta: str, at: int) -> int:
        if self._escape:
            self._escape = ""
            return at + 1
        found = _STRING_SPECIAL.search(delta, at)
        if found is None:
            return len(delta)
        if found[0] == "\\":
            self._escape = "\\"
        else:
            self._mode = self._after_string
        return found.end()

    def _in_nested(self, delta: str, at: int) -> int:
        found = _NESTED_SPECIAL.search(delta, at)
        if found is None:
            return len(delta)
        mark = found[0]
        if mark == '"':
            self._mode, self._after_string = "string", "nested"
        elif mark in _CLOSING:
            self._open(mark)
        elif mark != self._closers.pop():
            return self._fail(at)
        elif not self._closers:
            self._mode = "comma"
        return found.end()

    def _in_scalar(self, delta: str, at: int) -> int:
        found = _SCALAR_END.search(delta, at)
        if found is None:
            return len(delta)
        self._mode = "comma"
        return found.start()

    def _comma(self, delta: str, at: int) -> int:
        at = _skip_space(delta, at)
        if at == len(delta):
            return at
        if delta[at] == "}":
            return self._close(at)
        if delta[at] != ",":
            return self._fail(at)
        self._after_comma = True
        self._mode = "key?"
        return at + 1

    def _end(self, delta: str, at: int) -> int:
        at = _skip_space(delta, at)
        if at < len(delta):
            self.trailing = True
        return len(delta)

    def _decode(self, delta: str, at: int, pieces: list[str]) -> tuple[int, bool]:
        """Decodes a string up to its end or an escape; returns where, and whether it ended."""
        if self._escape:
            return self._continue_escape(delta, at, pieces), False
        found = _STRING_SPECIAL.search(delta, at)
        stop = len(delta) if found is None else found.start()
        if stop > at:
            self._settle_surrogate(pieces)
            pieces.append(delta[at:stop])
        if found is None:
            return stop, False
        if found[0] == "\\":
            self._escape = "\\"
            return found.end(), False
        self._settle_surrogate(pieces)
        return found.end(), True

    def _continue_escape(self, delta: str, at: int, pieces: list[str]) -> int:
        if len(self._escape) == 1 and delta[at] != "u":
            plain = _ESCAPES.get(delta[at])
            if plain is None:
                return self._fail(at)
            self._escape = ""
            self._settle_surrogate(pieces)
            pieces.append(plain)
            return at + 1
        taken = delta[at : at + _UNICODE_LENGTH - len(self._escape)]
        self._escape += taken
        if len(self._escape) == _UNICODE_LENGTH:
            if not _HEX.fullmatch(self._escape, 2):
                return self._fail(at)
            self._code_unit(int(self._escape[2:], 16), pieces)
            self._escape = ""
        return at + len(taken)

    def _code_unit(self, unit: int, pieces: list[str]) -> None:
        if self._high and 0xDC00 <= unit < 0xE000:
            pieces.append(chr(0x10000 + ((self._high - 0xD800) << 10) + (unit - 0xDC00)))
            self._high = 0
            return
        self._settle_surrogate(pieces)
        if 0xD800 <= unit < 0xDC00:
            self._high = unit
        else:
            pieces.append(_REPLACEMENT if 0xDC00 <= unit < 0xE000 else chr(unit))

    def _settle_surrogate(self, pieces: list[str]) -> None:
        if self._high:
            self._high = 0
            pieces.append(_REPLACEMENT)

    _SCAN: ClassVar = {
        "start": _start,
        "key?": _key_or_end,
        "key": _in_key,
        "colon": _colon,
        "value": _value,
        "field": _in_field,
        "string": _in_string,
        "nested": _in_nested,
        "scalar": _in_scalar,
        "comma": _comma,
        "end": _end,
    }


def _skip_space(delta: str, at: int) -> int:
    found = _SPACE.match(delta, at)
    return at if found is None else found.end()
