"""Converts the stream of a provider's SDK, or of any HTTP client, to model events."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from importlib import import_module
from typing import Literal, cast

from treadle.errors import ConfigurationError
from treadle.models.base import ModelRequest
from treadle.models.thread_iterator import ThreadIterator
from treadle.models.wire.base import Decoder, Wire
from treadle.models.wire.sdk_chunks import Chunk, SdkChunks
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.streaming.streamed_fields import StreamedFields, StreamedParameters

StreamFormat = Literal["responses", "chat", "messages", "gemini"]
"""The API of the chunks: OpenAI Responses, Chat Completions, Anthropic Messages, Gemini."""

OnStart = Callable[[], Awaitable[None] | None]
OnEnd = Callable[[BaseException | None], Awaitable[None] | None]

# Imported when first named, as the providers are.
_WIRES = {
    "responses": "treadle.models.wire.responses:ResponsesWire",
    "chat": "treadle.models.wire.chat:ChatWire",
    "messages": "treadle.models.wire.anthropic:AnthropicWire",
    "gemini": "treadle.models.wire.gemini:GeminiWire",
}


async def typed_stream(
    chunks: Iterable[Chunk],
    format: StreamFormat,
    *,
    to_user: bool | str = False,
    fields: Iterable[str] = (),
    on_start: OnStart | None = None,
    on_end: OnEnd | None = None,
    limit: int = 64,
) -> AsyncGenerator[StreamEvent]:
    """Yields the events of one streamed response from any synchronous iterator of `chunks`.

        stream = client.chat.completions.create(model=…, messages=…, tools=…, stream=True)
        async for event in treadle.typed_stream(stream, "chat", to_user=True):
            ...

    The chunks are what the provider's synchronous client yields, dicts, JSON, or the bytes of the
    event stream cut anywhere. The iterator runs in a thread, at most `limit` chunks ahead of the
    reader, and is closed at the end, or when the reader leaves.

    `to_user` names the parameter in which calls announce themselves to the user (True: "to_user"),
    `fields` are string fields of arguments and of texts that are JSON objects: their growth is
    yielded as `ToUserDelta` and `FieldDelta`. `on_start` is called on the event loop when the first
    chunk arrives; `on_end` once at the end, with the error that ended the stream, or None. Either
    may be async.

    Raises the errors of the iterator, `StreamIncomplete` if it ends before the response is
    complete, `StreamInvalid` for chunks of another format, the provider's error if the stream
    reports one, and `ConfigurationError` for an unknown format or a limit below 1.
    """
    decoder, streamed = _decoder(format), _streamed(to_user, fields)
    if limit < 1:
        raise ConfigurationError("The limit of typed_stream must be at least 1 chunk.")
    source, encoder = ThreadIterator(chunks, limit), SdkChunks()
    begun, failure = False, None
    try:
        async for chunk in source:
            if not begun and on_start is not None:
                await _done(on_start())
            begun = True
            for event in decoder.feed(encoder.encode(chunk)):
                for one in _with_fields(event, streamed):
                    yield one
            if decoder.finished:
                break
        else:
            for event in decoder.end():
                for one in _with_fields(event, streamed):
                    yield one
    except BaseException as error:
        failure = error
        raise
    finally:
        source.leave()
        if on_end is not None:
            await _done(on_end(failure))


def _decoder(format: str) -> Decoder:
    if format not in _WIRES:
        known = ", ".join(map(repr, _WIRES))
        raise ConfigurationError(f"{format!r} is not a stream format; use one of {known}.")
    module, _, name = _WIRES[format].partition(":")
    wire = cast("Callable[[], Wire]", getattr(import_module(module), name))()
    return wire.decoder(ModelRequest(items=()))


def _streamed(to_user: bool | str, fields: Iterable[str]) -> StreamedFields | None:
    if isinstance(fields, str):
        raise ConfigurationError(f"fields must be a list of names: fields=[{fields!r}].")
    fields = tuple(fields)
    parameter = "to_user" if to_user is True else to_user or ""
    if not parameter and not fields:
        return None
    streamed = StreamedParameters(parameter, fields)
    return StreamedFields(lambda _: streamed, fields)


def _with_fields(event: StreamEvent, streamed: StreamedFields | None) -> list[StreamEvent]:
    if streamed is None or isinstance(event, (ItemFinished, ResponseFinished)):
        return [event]
    return [event, *streamed.feed(event)]


async def _done(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        await result
