"""Reads JSON of an unexpected shape, field by field, so that one odd field destroys no answer.

Decoders read into structs, which is fast and refuses a whole chunk for one value of another type.
What was refused is read again with these functions, which take of each value what can be used.
"""

import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import cast

_REPLACEMENT = "\ufffd"
_MAX_COUNT = 2**53


def read_json(data: bytes) -> object:
    """Decodes `data`, whose strings may contain halves of surrogate pairs and invalid UTF-8.

    Raises `ValueError` for what is not JSON, and `RecursionError` for very deep nesting.
    """
    # Not strict: line breaks and tabs inside of strings are accepted.
    return json.loads(data.decode(errors="replace"), strict=False)


def fields_of(value: object) -> Mapping[str, object]:
    """Returns a JSON object as it is, and no fields for any other value."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def list_of(value: object) -> Sequence[object]:
    """Returns a list as it is, nothing for null, and any other value as the only element."""
    if isinstance(value, list):
        return cast("list[object]", value)
    return () if value is None else (value,)


def string_of(value: object) -> str:
    """Returns a string or a number as a string without surrogates, and "" for anything else."""
    if type(value) is str:
        return value if value.isascii() else joined(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def count_of(value: object) -> int | None:
    """Returns a count, which may be a float or a string of digits; None for anything else."""
    if type(value) is int:
        return value if 0 <= value <= _MAX_COUNT else None
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= _MAX_COUNT else None


def joined(text: str) -> str:
    """Returns `text` with joined surrogate pairs; half a pair becomes U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()  # faster than a search, which counts for the text of a whole response
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def joined_all(value: object) -> object:
    """Returns a JSON value with `joined` applied to all of its strings."""
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, list):
        return [joined_all(one) for one in cast("list[object]", value)]
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {joined(name): joined_all(one) for name, one in fields.items()}
    return value


class HalfCharacters:
    """Joins the halves of surrogate pairs that a server sent in two pieces of a text.

    A server in a language of UTF-16 strings may cut an emoji, and writes `\\ud83d` at the end of
    one piece and `\\udd11` at the beginning of the next.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, str] = {}

    def join(self, key: Hashable, piece: str) -> str:
        """Returns the next `piece` of the text `key`, without a first half at its end.

        That half is put in front of the next piece.
        """
        if not piece:
            return ""
        piece = self._held.pop(key, "") + piece
        if "\ud800" <= piece[-1] <= "\udbff":
            self._held[key] = piece[-1]
            piece = piece[:-1]
        return joined(piece)

    def drop(self, key: Hashable) -> str:
        """Returns U+FFFD if the text `key` ended in a first half, which is forgotten, else ""."""
        return _REPLACEMENT if self._held.pop(key, "") else ""

    def rest(self) -> Iterator[tuple[Hashable, str]]:
        """Yields, with U+FFFD, the key of each text that ended in a first half."""
        for key in self._held:
            yield key, _REPLACEMENT
        self._held.clear()
