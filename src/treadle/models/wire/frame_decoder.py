"""The common part of decoders of streams: frames, errors among them, and a required end."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Never

import msgspec
from msgspec.structs import replace

from treadle.domain.items import Message
from treadle.errors import ModelError, StreamIncomplete, StreamInvalid
from treadle.models.failure import error_in, stream_failure
from treadle.models.wire.ends import bad_end
from treadle.models.wire.loose_json import fields_of, list_of, read_json
from treadle.streaming.demux import Demux, ItemFinished, StreamEvent
from treadle.streaming.event_stream import EventStreamParser
from treadle.streaming.sse import SseParser

Frames = Sequence[tuple[bytes, bytes]]
"""Frames of an event stream, each a name and its data."""

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
"""What decoding bytes may raise: not JSON, another type, not UTF-8, nested too deeply."""

# Before the first frame: white space and the bytes of a byte order mark.
_BLANK = b" \t\r\n\xef\xbb\xbf"
_MAX_DOCUMENT = 16 * 1024 * 1024
_EXCERPT = 200
# Frames that only show that the connection is alive.
_SIGNS_OF_LIFE = {b"", b"ping", b"keepalive", b"keep-alive", b"heartbeat", b"response.in_progress"}


class FrameDecoder(ABC):
    """Fulfils `Decoder` for responses that are frames, of whatever format `parser` reads.

    The default is server-sent events. See `Demux` for `used_call_ids`.

    What was decoded before a bad frame is returned before its error is raised, so that the events
    do not depend on how the network cut the stream. All errors are `ModelError`s.

    A body that begins with `{` is one JSON document: the whole response, from a server that does
    not stream, or an error.
    """

    api = ""
    """The name of the API, for errors."""

    def __init__(
        self,
        provider: str,
        used_call_ids: Iterable[str] = (),
        parser: SseParser | EventStreamParser | None = None,
    ) -> None:
        self._provider = provider
        self._parser = parser or SseParser()
        self._demux = Demux(provider, used_call_ids)
        self._has_begun = False
        self._document: bytearray | None = None
        self.finished = False
        self.stopped = False
        self.progressed = False

    def feed(self, chunk: bytes) -> Iterable[StreamEvent]:
        """Returns the events that `chunk` completes; iterating raises the error after them."""
        if not self._has_begun:
            chunk = self._beginning(chunk)
        try:
            if self._document is not None:
                self._extend_document(self._document, chunk)
                return ()
            frames = self._parser.feed(chunk)
            self._frames(frames)
            # After the end of the response nothing is read, whatever came in the same chunk.
            if self._parser.failure is not None and not self.finished:
                raise self._parser.failure
        except (ModelError, *UNREADABLE) as error:
            return self._events_before(error)
        events = self._demux.take()
        self.progressed = not events and any(map(_is_progress, frames))
        return events

    def end(self) -> Iterable[StreamEvent]:
        """Decodes the rest of the body; raises `StreamIncomplete` without a terminal event."""
        try:
            rest: Frames = ()
            if self._document is not None:
                self._read_document(bytes(self._document))
            else:
                rest = self._parser.flush()
                self._frames(rest, cut=True)
            if not self.finished:
                self._last()
            if not self.finished:
                for name, data in rest:
                    self._raise_reported(data, name)
                raise StreamIncomplete(
                    "The provider's stream ended before the response was complete; try again."
                )
        except (ModelError, *UNREADABLE) as error:
            return self._events_before(error)
        return self._demux.take()

    @abstractmethod
    def _frames(self, frames: Frames, *, cut: bool = False) -> None:
        """Reports what is in the frames to the demux; `cut` ones may be incomplete.

        Sets `stopped` when the reason for the end has arrived, and `finished` when nothing of the
        response can follow.
        """

    def _last(self) -> None:  # noqa: B027 - most wires need none
        """Completes the response at the end of the body, if it can be complete."""

    def _whole(self, document: bytes) -> None:  # noqa: B027 - optional
        """Reads the JSON document that is the whole response.

        Leaves the events in the demux and sets `finished`, unless it is not a response.
        """

    def _unreadable(self, data: bytes, error: Exception, name: bytes = b"message") -> None:
        """Raises the error for a frame whose data could not be decoded; ignores an empty one.

        If `data` is an error of the provider, in whatever shape, it is that error.
        """
        if not data.strip() or data.strip() == b"null":
            return  # a sign of life of some servers
        self._raise_reported(data, name)
        raise StreamInvalid(
            f"The provider sent data that is not valid ({_short(error)}): {_excerpt(data)}. Try "
            f"again; if it persists, check that the server implements {self.api or 'the API'}."
        ) from error

    def _raise_reported(self, data: bytes, name: bytes = b"message") -> None:
        """Raises the error that the provider reports in `data`, if it is one."""
        document = _reported(data)
        if name == b"error" and document is None:
            document = data.decode(errors="replace")
        error = error_in(document, is_error=name == b"error")
        if error is not None:
            raise stream_failure(error)

    def _end_badly(self, word: str, finish: Callable[[], None] | None = None) -> Never:
        """Raises the error for the end `word`, which is not a good one.

        Text that is still open is kept and marked, calls that are still open are dropped. `finish`
        finishes what the decoder knows better than the demux.
        """
        before = self._demux.take()
        if finish is not None:
            finish()
        self._demux.finish_all(truncated=True)
        marked = [_marked(event, word) for event in self._demux.events]
        self._demux.events = [*before, *marked]
        raise bad_end(word)

    def _beginning(self, chunk: bytes) -> bytes:
        chunk = chunk.lstrip(_BLANK)
        if chunk:
            self._has_begun = True
            if chunk.startswith(b"{"):
                self._document = bytearray()
        return chunk

    def _extend_document(self, document: bytearray, chunk: bytes) -> None:
        document += chunk
        if len(document) > _MAX_DOCUMENT:
            raise StreamInvalid(
                f"The provider sent a JSON document of more than {_MAX_DOCUMENT} bytes; check "
                "that the base URL leads to the API."
            )

    def _read_document(self, document: bytes) -> None:
        try:
            read_json(document)
        except ValueError:
            # Not one document: a document on each line, or an error in front of a stream.
            lines = [line for line in document.splitlines() if line.strip()]
            if all(line.startswith(b"{") for line in lines):
                self._frames([(b"message", line) for line in lines[:-1]])
                self._frames([(b"message", line) for line in lines[-1:]], cut=True)
            else:
                self._frames(self._parser.feed(document))
                self._frames(self._parser.flush(), cut=True)
            if not self.finished and not self.stopped and not self._demux.events:
                self._raise_reported(document)
            return
        self._whole(document)
        if not self.finished:
            self._raise_reported(document)
            raise StreamInvalid(
                "The provider answered with a JSON document that is neither a response nor an "
                f"error: {_excerpt(document)}. Check that the base URL is that of the API."
            )

    def _events_before(self, error: Exception) -> Iterable[StreamEvent]:
        """Returns the events decoded before `error`, which is raised after them."""
        if not isinstance(error, ModelError):
            unreadable = StreamInvalid(
                f"The provider sent data that cannot be read ({_short(error)}). Try again; if it "
                f"persists, check that the server implements {self.api or 'the API'}."
            )
            unreadable.__cause__ = error
            error = unreadable
        events = self._demux.take()
        if not events:
            raise error
        return _then_raise(events, error)


def _reported(data: bytes) -> object:
    """Returns the JSON in `data`, the first of a list, or in a list that began before; else None.

    Google ends a stream with `,` and an error and `]` when its format is lost on the way.
    """
    for text in (data, data.strip(b",[] \t\r\n")):
        try:
            document = read_json(text)
        except UNREADABLE:
            continue
        return next(iter(list_of(document)), None)
    return None


def _then_raise(events: Iterable[StreamEvent], error: Exception) -> Generator[StreamEvent]:
    yield from events
    raise error


def _is_progress(frame: tuple[bytes, bytes]) -> bool:
    """Whether a frame without events is more than a sign of life: queued, a hosted tool at work."""
    name, data = frame
    if name == b"message":
        try:
            kind = fields_of(read_json(data)).get("type")
        except UNREADABLE:
            return False
        name = kind.encode(errors="replace") if isinstance(kind, str) else b""
    return name not in _SIGNS_OF_LIFE


def _marked(event: StreamEvent, word: str) -> StreamEvent:
    if isinstance(event, ItemFinished) and isinstance(event.item, Message):
        return replace(event, item=replace(event.item, unknown_end=word))
    return event


def _excerpt(data: bytes) -> str:
    text = data[: _EXCERPT * 4].decode(errors="replace").strip()
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + " …")


def _short(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:_EXCERPT]
