"""Converts chunks from a provider's SDK or an HTTP client to server-sent events."""

import re
from collections.abc import Mapping
from typing import Protocol, cast, runtime_checkable

import msgspec
from msgspec import Struct

from treadle.errors import StreamInvalid


@runtime_checkable
class SdkModel(Protocol):
    """A chunk of a provider's SDK: a pydantic model."""

    def model_dump_json(self, *, by_alias: bool, exclude_unset: bool, warnings: bool) -> str:
        """Returns the JSON from which it was made."""
        ...


Chunk = SdkModel | Mapping[str, object] | str | bytes
"""One chunk: a model of an SDK, a dict, JSON, or a piece of the raw event stream."""


class _Head(Struct):
    type: str = ""


_head = msgspec.json.Decoder(_Head).decode
_LINE_ENDS = re.compile(rb"[\r\n]+")
_BOM = b"\xef\xbb\xbf"
_JSON = b"{"


class SdkChunks:
    """Turns the chunks of one stream into the bytes of its event stream.

    Text and bytes are JSON, one object per chunk, if the first chunk opens an object; otherwise
    they are pieces of the event stream, cut anywhere. Raises `StreamInvalid` for anything else.
    """

    def __init__(self) -> None:
        self._is_raw: bool | None = None

    def encode(self, chunk: Chunk) -> bytes:
        """Returns `chunk` as a part of the event stream."""
        if isinstance(chunk, str | bytes):
            return self._written(chunk.encode() if isinstance(chunk, str) else chunk)
        return _frame(_json_of(chunk))

    def _written(self, text: bytes) -> bytes:
        if self._is_raw is None:
            if not text.strip():
                return text
            self._is_raw = not text.removeprefix(_BOM).lstrip().startswith(_JSON)
        return text if self._is_raw else _frame(text)


def _json_of(chunk: object) -> bytes:
    if isinstance(chunk, SdkModel):
        # Without `exclude_unset`, fields that were not sent would be null, which decoders refuse.
        return chunk.model_dump_json(by_alias=True, exclude_unset=True, warnings=False).encode()
    if isinstance(chunk, Mapping):
        try:
            return msgspec.json.encode(cast("Mapping[str, object]", chunk))
        except (TypeError, ValueError) as error:
            raise StreamInvalid(
                f"A chunk is a dict that cannot be represented as JSON: {error}."
            ) from error
    raise StreamInvalid(
        f"A chunk is a {type(chunk).__name__}; give the chunks of the provider's SDK, dicts, JSON, "
        "or the bytes of the event stream."
    )


def _frame(text: bytes) -> bytes:
    text = _LINE_ENDS.sub(b" ", text.strip())
    if not text:
        return b""
    try:
        name = _head(text).type.encode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        name = b""  # `[DONE]`, or invalid: the decoder decides
    if not name or b"\n" in name:
        return b"data: " + text + b"\n\n"
    return b"event: " + name + b"\ndata: " + text + b"\n\n"
