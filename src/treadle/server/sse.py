"""Server-sent events as bytes: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from typing import Any, Protocol

import msgspec

from treadle.domain.events import UnknownEvent

CONTENT_TYPE = b"text/event-stream; charset=utf-8"
KEEP_ALIVE = b": keep-alive\n\n"
ENDED = "stream.ended"
"""The type of the frame with which the server ends a stream that is not at its end."""

STATE = "thread.state"
"""The type of the frame with the state of a thread, from which a stream continues."""

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", CONTENT_TYPE),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
"""The headers of a stream: no proxy may keep, compress or delay it."""


class Framed(Protocol):
    """An event with the position after it, and its JSON: an `Envelope` or a `DeskEvent`."""

    @property
    def event(self) -> Any:
        """The event."""
        ...

    @property
    def position(self) -> str:
        """The position after it."""
        ...

    @property
    def json(self) -> bytes:
        """Its JSON."""
        ...


_ENCODER = msgspec.json.Encoder()


_last: tuple[Framed | None, bytes] = (None, b"")
"""What was framed last: all subscribers of a thread get the same envelope one after another."""


def frame(envelope: Framed) -> bytes:
    """Returns an event of a thread as a frame, whose id is the position after it."""
    global _last  # noqa: PLW0603 - one tuple, so that event loops of several threads may share it
    known, made = _last
    if known is envelope:
        return made
    event, data = envelope.event, envelope.json
    kind: str = event.type
    if type(event) is UnknownEvent:
        kind = event.original_type
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")  # blanks between tokens of the JSON
    made = b"id: %b\nevent: %b\ndata: %b\n\n" % (
        envelope.position.encode(),
        kind.encode(),
        data,
    )
    _last = (envelope, made)
    return made


def own_frame(kind: str, data: object, position: str = "") -> bytes:
    """Returns a frame that is not an event of a thread; without a position it moves no reader."""
    head = f"id: {position}\n" if position else ""
    return b"%bevent: %b\ndata: %b\n\n" % (head.encode(), kind.encode(), _ENCODER.encode(data))


def opening(position: str, retry_milliseconds: int) -> bytes:
    """Returns the beginning of a stream: when to connect again, and from where.

    A frame without data is no event, but its id is kept, so that a reader that is cut before the
    first event continues from here.
    """
    head = f"id: {position}\n" if position else ""
    return f"retry: {retry_milliseconds}\n{head}\n".encode()
