"""From what a tool returned to what the model reads."""

import base64
from collections.abc import Sequence
from typing import cast

import msgspec
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from weft.items import InputImage, InputText, OutputPart


class Image:
    """An image a tool returns: bytes with their media type, or an https or `data:` URL."""

    def __init__(
        self, data: bytes | None = None, media_type: str = "image/png", *, url: str | None = None
    ) -> None:
        if (data is None) == (url is None):
            raise ValueError("An Image takes either data or a url.")
        encoded = base64.b64encode(data or b"").decode()
        self.url = url or f"data:{media_type};base64,{encoded}"


def to_output(value: object, max_chars: int) -> str | tuple[OutputPart, ...]:
    """Returns `value` as the output of a call.

    Text stays as it is; images, alone or in a list with text, become parts; anything else becomes
    JSON (None is `null`). Text beyond `max_chars` is cut, with a mark that says how much. Raises
    `TypeError` for a value that JSON cannot say.
    """
    parts = _parts(value)
    if parts is None:
        return truncated(_text(value), max_chars)
    room, found = max_chars, list[OutputPart]()
    for part in parts:
        if isinstance(part, Image):
            found.append(InputImage(part.url))
        else:
            text = truncated(_text(part), room)
            room = max(0, room - len(text))
            found.append(InputText(text))
    return tuple(found)


def truncated(text: str, max_chars: int) -> str:
    """Returns `text`, encodable as UTF-8 and cut after `max_chars` characters."""
    if len(text) > max_chars:
        cut = len(text) - max_chars
        text = f"{text[:max_chars]}\n… [{cut} more characters were cut]"
    return text.encode("utf-8", "replace").decode("utf-8")


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
        return msgspec.json.encode(value, enc_hook=_jsonable).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise TypeError(
            f"it returned a value of type {type(value).__name__} that JSON cannot say ({error}); "
            "return text, numbers, lists, dicts or models"
        ) from error


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return to_jsonable_python(value)
