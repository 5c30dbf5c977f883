"""What processes say to each other about threads: lines of JSON, over a Unix socket or TCP.

A follower sends requests: a `Watch` for each thread that is watched in its process, a `Leave` when
it is not any more, a `Ring` for an entry in an inbox. The node answers a `Watch` with a `Line` for
each event, as a subscriber in its own process would get them, and with an `End` when no more come.
It sends a `Driven` for each thread that it comes to drive.
"""

import msgspec
from msgspec import Struct

from treadle.domain.envelope import Envelope, decode_event

MAX_LINE = 64 * 1024 * 1024
"""The most bytes of a line from a node: an event can contain an image."""

MAX_REQUEST = 4096
"""The most bytes of a line from a follower."""


class Watch(Struct, frozen=True, tag="watch"):
    """A request for the events of a thread after the position `seq.n`, answered under `id`."""

    id: int
    thread_id: str
    seq: int
    n: int | None = None


class Leave(Struct, frozen=True, tag="leave"):
    """The end of a `Watch`, by the follower."""

    id: int


class Ring(Struct, frozen=True, tag="ring"):
    """A request to look at the inbox of a thread."""

    thread_id: str


class Line(Struct, frozen=True, tag="line", gc=False):
    """An event and its place after the durable event `seq`; see `Envelope`."""

    id: int
    seq: int
    n: int
    event: msgspec.Raw


class End(Struct, frozen=True, tag="end"):
    """The end of a `Watch`: the thread is not driven here, or not any more."""

    id: int


class Driven(Struct, frozen=True, tag="driven"):
    """An announcement: the node drives the thread from now on."""

    thread_id: str


Request = Watch | Leave | Ring
Answer = Line | End | Driven

_REQUEST = msgspec.json.Decoder(Request)
_ANSWERS = msgspec.json.Decoder(Answer)
_ENCODER = msgspec.json.Encoder()

UNREADABLE = (OSError, EOFError, ValueError, RecursionError, msgspec.DecodeError)
"""The other end has left, or sends what is too long, too deep or not of this version."""


def encoded(message: Request | Answer) -> bytes:
    """Returns a message as a line."""
    return _ENCODER.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Returns what a follower asks for; raises one of `UNREADABLE`."""
    return _REQUEST.decode(line)


def decode_answers(lines: bytes | bytearray) -> list[Answer]:
    """Returns what a node sends in whole lines; raises one of `UNREADABLE`."""
    return _ANSWERS.decode_lines(lines)


def line_of(id: int, envelope: Envelope) -> bytes:
    """Returns an event as a line."""
    return b'{"type":"line","id":%d,"seq":%d,"n":%d,"event":%b}\n' % (
        id,
        envelope.seq,
        envelope.n,
        envelope.json,
    )


def envelope_of(line: Line) -> Envelope | None:
    """Returns the event of a line, None if it is a live one of a newer version."""
    encoded = bytes(line.event)
    event = decode_event(encoded)
    return None if event is None else Envelope(event, line.seq, line.n, encoded)
