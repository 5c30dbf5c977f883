"""AWS event streams: an incremental parser over the bytes of `application/vnd.amazon.eventstream`.

https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import struct
from collections.abc import Mapping
from zlib import crc32

import msgspec

from treadle.errors import StreamInvalid
from treadle.streaming.sse import Frame

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">III")  # the sizes of the message and of its headers, and a checksum
_CHECKED = 8  # the bytes of the prelude that its checksum covers
_CHECKSUM = struct.Struct(">I")
_FRAMING = _PRELUDE.size + _CHECKSUM.size
_MAX_HEADERS = 128 * 1024
_MAX_KNOWN = 64
# The sizes of the values of headers by their type; strings and bytes begin with their size.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7


class EventStreamParser:
    """Parses an event stream from chunks cut anywhere, as `SseParser` does another format.

    The name of an event is its type; that of an exception is the type of the exception, such as
    `throttlingException`; that of an error without a type is `error`, with its code and message as
    JSON.

    Raises `StreamInvalid` for a message that is damaged, or larger than `max_frame_bytes` (default
    16 MiB); the parser cannot be used after that. Events before it are returned first: then
    `failure` is the error, which the next call raises.
    """

    def __init__(self, *, max_frame_bytes: int = 16 * 1024 * 1024) -> None:
        self._max = max_frame_bytes
        self._pending = bytearray()
        self._needed = 0  # bytes from the start of the pending ones, before anything can be read
        # The headers of most events of a stream are the same bytes, so each is read once.
        self._known: dict[bytes, bytes] = {}
        self.failure: StreamInvalid | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """Returns the events that `chunk` completes."""
        if self.failure is not None:
            raise self.failure
        if self._pending:
            self._pending += chunk
            if len(self._pending) < self._needed:
                return []
            chunk = bytes(self._pending)
            self._pending.clear()
        frames: list[Frame] = []
        start, length, self._needed = 0, len(chunk), _PRELUDE.size
        known, unpack, sum_of = self._known, _PRELUDE.unpack_from, _CHECKSUM.unpack_from
        try:
            while length - start >= _PRELUDE.size:
                size, headers_size, checksum = unpack(chunk, start)
                # The checks have one order, whether the whole message is here or only its prelude:
                # otherwise the cut of the network would decide which error is raised.
                prelude_sum = crc32(chunk[start : start + _CHECKED])
                if prelude_sum != checksum:
                    raise _damaged("the checksum of a prelude is wrong")
                if size > self._max or headers_size > min(_MAX_HEADERS, size - _FRAMING):
                    raise self._bad_size(size)
                end = start + size
                if end > length:
                    self._needed = size
                    break
                payload = start + _PRELUDE.size + headers_size
                last = end - _CHECKSUM.size
                if crc32(chunk[start + _CHECKED : last], prelude_sum) != sum_of(chunk, last)[0]:
                    raise _damaged("a checksum is wrong")
                name = known.get(chunk[start + _PRELUDE.size : payload])
                if name is None:
                    frames.append(self._frame(chunk[start:end], headers_size))
                else:
                    frames.append((name, chunk[payload:last]))
                start = end
        except StreamInvalid as failure:
            self.failure = failure
            if not frames:
                raise
            return frames
        self._pending += chunk[start:]
        return frames

    def flush(self) -> list[Frame]:
        """The stream has ended: a message that is not complete is dropped."""
        self._pending.clear()
        if self.failure is not None:
            raise self.failure
        return []

    def _bad_size(self, size: int) -> StreamInvalid:
        if size <= self._max:
            return _damaged("the sizes in a prelude do not fit together")
        return StreamInvalid(
            f"The provider sent an event of more than {self._max} bytes; check that the base URL "
            "leads to the API."
        )

    def _frame(self, message: bytes, headers_size: int) -> Frame:
        start = _PRELUDE.size + headers_size
        raw = message[_PRELUDE.size : start]
        headers = _headers(raw)
        kind = headers.get(b":message-type", b"event")
        if kind == b"error":
            return b"error", _error(headers)
        name = headers.get(b":exception-type" if kind == b"exception" else b":event-type", b"")
        if len(self._known) < _MAX_KNOWN:
            self._known[raw] = name
        return name, message[start : -_CHECKSUM.size]


def with_checksums(data: bytes) -> bytes:
    """Returns an event stream with right checksums of its messages, after a change of its bytes.

    What is not a message is returned as it is.
    """
    found = bytearray(data)
    start = 0
    while len(data) - start >= _FRAMING:
        size, _, checksum = _PRELUDE.unpack_from(data, start)
        end = start + size
        if (
            crc32(data[start : start + _CHECKED]) != checksum
            or not _FRAMING <= size <= len(data) - start
        ):
            break
        checked = end - _CHECKSUM.size
        _CHECKSUM.pack_into(found, checked, crc32(found[start:checked]))
        start = end
    return bytes(found)


def _headers(raw: bytes) -> dict[bytes, bytes]:
    """Returns the headers of a message; the value of a number is left as bytes."""
    found: dict[bytes, bytes] = {}
    at = 0
    try:
        while at < len(raw):
            end = at + 1 + raw[at]
            name, kind = raw[at + 1 : end], raw[end]
            at = end + 1
            if kind in {_BYTES, _STRING}:
                size = int.from_bytes(raw[at : at + 2])
                at += 2
            else:
                size = _SIZES[kind]
            if at + size > len(raw):
                raise IndexError
            found[name] = raw[at : at + size]
            at += size
    except (IndexError, KeyError) as error:
        raise _damaged("the headers of a message cannot be read") from error
    return found


def _error(headers: Mapping[bytes, bytes]) -> bytes:
    said = {
        name: headers.get(b":error-" + name.encode(), b"").decode(errors="replace")
        for name in ("code", "message")
    }
    return msgspec.json.encode(said)


def _damaged(problem: str) -> StreamInvalid:
    return StreamInvalid(
        f"The provider sent an event stream that is damaged: {problem}. Try again; if it persists, "
        "check that the base URL leads to the API, and any proxy in between."
    )
