"""Converts the return value of a tool to the output that the model reads."""

import base64
import json
from collections.abc import Iterator, Sequence
from typing import cast

import msgspec
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from treadle.domain.items import InputImage, InputText, OutputPart

_SCHEMES = ("https://", "http://", "data:")


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


def to_output(value: object, max_chars: int) -> str | tuple[OutputPart, ...]:
    """Returns `value` as the output of a call.

    Text stays as it is; images, alone or in a list with text, become parts; anything else becomes
    JSON (None is `null`). Text beyond `max_chars` characters is cut, and a mark with the number of
    cut characters is appended. Raises `TypeError` for a value that cannot be represented as JSON.
    """
    parts = _parts(value)
    if parts is None:
        return truncated(_text(value), max_chars)
    return tuple(_bounded(parts, max_chars))


def truncated(text: str, max_chars: int) -> str:
    """Returns `text`, encodable as UTF-8 and cut after `max_chars` characters."""
    if len(text) > max_chars:
        text = f"{text[:max_chars]}\n{_mark(len(text) - max_chars)}"
    return _encodable(text)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _mark(cut: int) -> str:
    return f"… [{cut} more characters were cut]"


def _bounded(parts: Sequence[object], room: int) -> Iterator[OutputPart]:
    """Yields all images, and text as long as there is room for it."""
    cut = 0
    for part in parts:
        if isinstance(part, Image):
            yield InputImage(part.url)
        elif text := _text(part):
            if shown := text[:room]:
                yield InputText(_encodable(shown))
            room -= len(shown)
            cut += len(text) - len(shown)
    if cut:
        yield InputText(_mark(cut))


def _parts(value: object) -> Sequence[object] | None:
    if isinstance(value, Image):
        return [value]
    if isinstance(value, list | tuple):
        entries = cast("Sequence[object]", value)
        if any(isinstance(entry, Image) for entry in entries):
            return entries
    return None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("it returned bytes; return text, or Image(data, media_type) for an image")
    try:
        return _json(value)
    except Exception as error:  # a user's serializer may raise anything
        raise TypeError(
            f"it returned a value of type {type(value).__name__}, which cannot be represented as "
            "JSON; return text, numbers, lists, dicts or models"
        ) from error


def _json(value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_jsonable).decode()
    except UnicodeEncodeError:  # lone surrogates, as in file names that are not UTF-8
        plain = msgspec.to_builtins(value, enc_hook=_jsonable, str_keys=True)
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return to_jsonable_python(value)
