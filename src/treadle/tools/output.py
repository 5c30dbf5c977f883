"""Converts the return value of a tool to the output that the model reads."""

import base64
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AnySet
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

import msgspec

from treadle.domain.files import InputFile, InputImage, Media, data_of
from treadle.domain.items import InputText, OutputPart
from treadle.tools import deferred_pydantic as pydantic
from treadle.tools.threads import in_thread

_SCHEMES = ("https://", "http://", "data:")

# What a value may hold to be encoded on the event loop: about a tenth of a millisecond of work.
_SMALL_VALUES = 1000
_SMALL_CHARS = 100_000
_MAX_DEPTH = 1000
_SCALARS = frozenset({bool, float, int, type(None), bytes})
_LEAVES = (Enum, date, datetime, time, timedelta, Decimal, PurePath, UUID)


class Image:
    """An image a tool returns: bytes with their media type, or an https or `data:` URL.

    Raises `ValueError` for anything else: a provider would refuse it, and the run would fail.
    """

    def __init__(
        self, data: bytes | None = None, media_type: str = "image/png", *, url: str | None = None
    ) -> None:
        if (data is None) == (url is None):
            raise ValueError("An Image takes either data or a url.")
        if not media_type.startswith("image/"):
            raise ValueError(f"{media_type!r} is not a media type of an image, such as image/png.")
        if url is not None and not url.startswith(_SCHEMES):
            raise ValueError("The url of an Image starts with https://, http:// or data:.")
        encoded = base64.b64encode(data or b"").decode()
        self.url = _encodable(url or f"data:{media_type};base64,{encoded}")


class File:
    """A file a tool returns, such as a PDF document or a text: bytes with a name.

    The media type is told from the bytes; `name` and `media_type` only choose between kinds of
    text. Raises `InvalidInput` without bytes, and for more than 50 MiB.
    """

    def __init__(self, data: bytes, name: str = "", media_type: str = "") -> None:
        self.part = InputFile.from_bytes(data, name, media_type)


def to_output(value: object, max_chars: int) -> str | tuple[OutputPart, ...]:
    """Returns `value` as the output of a call.

    Text stays as it is; images, files and parts of messages, alone or in a list with text, become
    parts; anything else becomes JSON (None is `null`, an iterator is a list). Text beyond
    `max_chars` characters is cut, and a mark is appended; it contains the number of cut characters
    if that is known. Of large values and of iterators, which may have no end, no more is read than
    is kept. Raises `TypeError` for a
    value that cannot be represented as JSON.
    """
    parts = _parts(value)
    if parts is None:
        text, is_whole = _text(value, max_chars)
        return truncated(text, max_chars) if is_whole else _beginning(text, max_chars)
    return tuple(_bounded(parts, max_chars))


async def encode_output(value: object, max_chars: int) -> str | tuple[OutputPart, ...]:
    """Returns the same as `to_output`; only small values are encoded on the event loop."""
    if type(value) is str or is_small(value):
        return to_output(value, max_chars)
    return await in_thread(functools.partial(to_output, value, max_chars))


def is_small(value: object) -> bool:
    """Returns whether encoding `value` takes a negligible time; False for unknown types."""
    stack, values, chars = [value], _SMALL_VALUES, _SMALL_CHARS
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind is str:
            chars -= len(cast("str", one))
        elif kind in _SCALARS:
            chars -= len(one) if isinstance(one, bytes) else 0
        elif isinstance(one, _LEAVES):
            pass
        else:
            inner = _inner(one)
            if inner is None:
                return False
            values -= len(inner)
            if values >= 0:
                stack.extend(inner)
        if values < 0 or chars < 0:
            return False
    return True


def _inner(value: object) -> Sequence[object] | None:
    """Returns what a value of a known type holds, or None."""
    if isinstance(value, Image):
        return (value.url,)
    if isinstance(value, File):
        return (value.part.file_data,)
    if isinstance(value, Media):
        return (data_of(value),)
    if isinstance(value, dict):
        entries = cast("dict[object, object]", value)
        return [*entries.keys(), *entries.values()] if len(entries) <= _SMALL_VALUES else None
    if isinstance(value, list | tuple | set | frozenset):
        several = cast("Sequence[object]", value)
        return list(several) if len(several) <= _SMALL_VALUES else None
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name, None) for name in value.__struct_fields__]
    if isinstance(value, pydantic.BaseModel):
        return [*vars(value).values(), *(value.__pydantic_extra__ or {}).values()]
    if is_dataclass(value) and hasattr(value, "__dict__"):
        return list(vars(value).values())
    return None


def truncated(text: str, max_chars: int) -> str:
    """Returns `text`, encodable as UTF-8 and cut after `max_chars` characters."""
    if len(text) > max_chars:
        text = f"{text[:max_chars]}\n{_mark(len(text) - max_chars)}"
    return _encodable(text)


def _beginning(text: str, max_chars: int) -> str:
    return _encodable(f"{text[:max_chars]}\n{_REST}")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


_REST = "… [the rest was cut]"


def _mark(cut: int) -> str:
    return f"… [{cut} more characters were cut]"


def _bounded(parts: Sequence[object], room: int) -> Iterator[OutputPart]:
    """Yields all images and files, and text as long as there is room for it."""
    cut, is_known = 0, True
    for part in parts:
        if isinstance(part, Image):
            yield InputImage(part.url)
            continue
        if isinstance(part, File | Media):
            yield part.part if isinstance(part, File) else part
            continue
        text, is_whole = _text(part, room)
        if shown := text[:room]:
            yield InputText(_encodable(shown))
        room -= len(shown)
        cut += len(text) - len(shown)
        is_known = is_known and is_whole
    if cut or not is_known:
        yield InputText(_mark(cut) if is_known else _REST)


_PARTS = (Image, File, Media)


def _parts(value: object) -> Sequence[object] | None:
    if isinstance(value, _PARTS):
        return [value]
    if isinstance(value, list | tuple):
        entries = cast("Sequence[object]", value)
        if any(isinstance(entry, _PARTS) for entry in entries):
            return entries
    return None


def _text(value: object, most: int) -> tuple[str, bool]:
    """Returns a value as text, and whether it is all of it; if not, it exceeds `most`."""
    if isinstance(value, str):
        return value, True
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(
            "it returned bytes; return text, Image(data, media_type) or File(data, name)"
        )
    try:
        if is_small(value):
            return _json(value, _jsonable), True
        return _beginning_of_json(value, most)
    except Exception as error:  # a user's serializer may raise anything
        raise TypeError(
            f"it returned a value of type {type(value).__name__}, which cannot be represented as "
            "JSON; return text, numbers, lists, dicts or models"
        ) from error


def _json(value: object, hook: Callable[[Any], object]) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=hook).decode()
    except UnicodeEncodeError:  # lone surrogates, as in file names that are not UTF-8
        plain = msgspec.to_builtins(value, enc_hook=hook, str_keys=True)
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _jsonable(value: object) -> object:
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return pydantic.to_jsonable_python(value)


def _beginning_of_json(value: object, most: int) -> tuple[str, bool]:
    """Returns the JSON of a value, up to a little more than `most` characters; see `_text`."""
    found: list[str] = []
    length = 0
    for fragment in _fragments(value, most):
        found.append(fragment)
        length += len(fragment)
        if length > most:
            return "".join(found), False
    return "".join(found), True


def _fragments(value: object, most: int) -> Iterator[str]:
    """Yields the JSON of a value piece by piece; a text beyond `most` characters only begins."""

    def hook(value: Any) -> object:
        if isinstance(value, Iterator):
            return list(islice(cast("Iterator[object]", value), most + 1))
        return _jsonable(value)

    stack: list[tuple[Iterator[tuple[str, object]], str, object]] = []
    inside: set[int] = set()
    while True:
        if isinstance(value, pydantic.BaseModel):
            value = _jsonable(value)
        entries = _entries(value, hook)
        if entries is None:
            yield _json(value[: most + 1] if isinstance(value, str) else value, hook)
        else:
            if id(value) in inside or len(stack) >= _MAX_DEPTH:
                raise ValueError("The value contains itself, or is nested too deeply.")
            opening, closing = _brackets(value)
            yield opening
            stack.append((entries, closing, value))
            inside.add(id(value))
        while stack:
            entries, closing, container = stack[-1]
            entry = next(entries, None)
            if entry is not None:
                yield entry[0]
                value = entry[1]
                break
            yield closing
            stack.pop()
            inside.discard(id(container))
        else:
            return


def _brackets(container: object) -> tuple[str, str]:
    return ("{", "}") if isinstance(container, dict) else ("[", "]")


def _entries(value: object, hook: Callable[[Any], object]) -> Iterator[tuple[str, object]] | None:
    """Yields what stands before each entry of a container, and the entry; None for other values."""
    if isinstance(value, dict):
        entries = cast("dict[object, object]", value).items()
        # The key as it stands in an object with nothing else: {"key":0}
        return (
            (("," if index else "") + _json({key: 0}, hook)[1:-2], entry)
            for index, (key, entry) in enumerate(entries)
        )
    if isinstance(value, list | tuple | AnySet | Iterator):
        several = cast("Iterable[object]", value)
        return (("," if index else "", entry) for index, entry in enumerate(several))
    return None
