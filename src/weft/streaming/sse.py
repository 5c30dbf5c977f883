"""Server-sent events: an incremental parser over bytes.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from typing import NamedTuple

from weft.errors import StreamInvalid

_BOM = b"\xef\xbb\xbf"
_COLON = ord(":")


class Frame(NamedTuple):
    """One event: its name (`b"message"` where it has none) and its data."""

    event: bytes
    data: bytes


class SseParser:
    """Parses an event stream from chunks cut anywhere.

    `last_event_id` and `retry` (milliseconds) are as the stream set them last. Data stays bytes,
    for the decoder that reads it next. Raises `StreamInvalid` for a frame of more than
    `max_frame_bytes`, default 16 MiB.
    """

    def __init__(self, *, max_frame_bytes: int = 16 * 1024 * 1024) -> None:
        self._max = max_frame_bytes
        self._start: bytes | None = b""
        self._skip_lf = False
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._event = b""
        self._pending = 0
        self.last_event_id = b""
        self.retry: int | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """Returns the events that `chunk` completes."""
        if self._start is not None:
            chunk = self._without_bom(chunk)
        if b"\r" in chunk or self._skip_lf:
            chunk = self._with_lf_only(chunk)
        if not chunk:
            return []
        lines = chunk.split(b"\n")
        if self._line:
            self._line.append(lines[0])
            if len(lines) == 1:
                self._require_room(len(chunk))
                return []
            lines[0] = b"".join(self._line)
            self._line.clear()
        rest = lines.pop()
        if rest:
            self._line.append(rest)
        frames = self._frames(lines)
        if self._line or self._data:
            self._require_room(len(chunk))
        return frames

    def flush(self) -> list[Frame]:
        """The stream has ended: returns a last event that lacks its blank line.

        The specification drops it; but some servers end with `data: [DONE]` and no blank line.
        """
        if self._start:
            self._line.append(self._start)
        self._start = None
        line = b"".join(self._line)
        self._line.clear()
        return self._frames([line, b""] if line else [b""])

    def _frames(self, lines: list[bytes]) -> list[Frame]:
        frames: list[Frame] = []
        data, event = self._data, self._event
        for line in lines:
            if line.startswith(b"data: "):
                data.append(line[6:])
            elif line.startswith(b"event: "):
                event = line[7:]
            elif not line:
                if data:
                    joined = data[0] if len(data) == 1 else b"\n".join(data)
                    data.clear()
                    if len(joined) > self._max:
                        raise self._too_long()
                    frames.append(Frame(event or b"message", joined))
                event = b""
                self._pending = 0
            elif line[0] != _COLON:
                event = self._field(line, event)
        self._event = event
        return frames

    def _field(self, line: bytes, event: bytes) -> bytes:
        """Takes any other field; returns the name of the event."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            return value
        elif name == b"id" and b"\0" not in value:
            self.last_event_id = value
        elif name == b"retry" and value.isdigit() and len(value) < 16:
            self.retry = int(value)
        return event

    def _without_bom(self, chunk: bytes) -> bytes:
        chunk = (self._start or b"") + chunk
        if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
            self._start = chunk
            return b""
        self._start = None
        return chunk.removeprefix(_BOM)

    def _with_lf_only(self, chunk: bytes) -> bytes:
        if self._skip_lf and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = False
        if chunk.endswith(b"\r"):
            # The line ends here; an LF at the start of the next chunk belongs to this CR.
            self._skip_lf = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _require_room(self, size: int) -> None:
        self._pending += size
        if self._pending > self._max:
            raise self._too_long()

    def _too_long(self) -> StreamInvalid:
        return StreamInvalid(
            f"The provider sent an event of more than {self._max} bytes; check that the base URL "
            "leads to the API."
        )
