"""Server-sent events: an incremental parser over bytes.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from weft.errors import StreamInvalid

_BOM = b"\xef\xbb\xbf"
_COLON = ord(":")
_NAME = len(b"event: ")


Frame = tuple[bytes, bytes]
"""One event: its name (`b"message"` where it has none) and its data."""


class SseParser:
    """Parses an event stream from chunks cut anywhere.

    `last_event_id` and `retry` (milliseconds) are as the stream set them last. Data stays bytes,
    for the decoder that reads it next. Raises `StreamInvalid` when more than `max_frame_bytes`
    (default 16 MiB) of a frame have come without its end.
    """

    def __init__(self, *, max_frame_bytes: int = 16 * 1024 * 1024) -> None:
        self._max = max_frame_bytes
        self._start: bytes | None = b""
        self._skip_lf = False
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._event = b""
        self._line_size = 0
        self._data_size = 0
        self.last_event_id = b""
        self.retry: int | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """Returns the events that `chunk` completes."""
        if self._start is not None:
            chunk = self._without_bom(chunk)
        if b"\r" in chunk or self._skip_lf:
            chunk = self._with_lf_only(chunk)
        if self._line:
            self._keep(chunk)
            if b"\n" not in chunk:
                return []
            chunk = self._taken_line()
        *blocks, rest = chunk.split(b"\n\n")
        frames: list[Frame] = []
        if blocks:
            self._blocks(blocks, frames)
        *lines, line = rest.split(b"\n")
        if lines:
            self._lines(lines, frames)
        if line:
            self._keep(line)
        return frames

    def flush(self) -> list[Frame]:
        """The stream has ended: returns a last event that lacks its blank line.

        The specification drops it; but some servers end with `data: [DONE]` and no blank line.
        """
        if self._start:
            self._line.append(self._start)
        self._start = None
        line = self._taken_line()
        frames: list[Frame] = []
        self._lines([line, b""] if line else [b""], frames)
        return frames

    def _blocks(self, blocks: list[bytes], frames: list[Frame]) -> None:
        """Takes whole frames: nearly all are a name and one line of data, or the latter alone."""
        if self._data or self._event:
            self._lines([*blocks[0].split(b"\n"), b""], frames)
            blocks = blocks[1:]
        for block in blocks:
            name, data = b"event: message", block
            if block.startswith(b"event: "):
                name, _, data = block.partition(b"\n")
            if data.startswith(b"data: ") and b"\n" not in data and len(name) > _NAME:
                frames.append((name[_NAME:], data[6:]))
            else:
                self._lines([*block.split(b"\n"), b""], frames)

    def _lines(self, lines: list[bytes], frames: list[Frame]) -> None:
        data, event = self._data, self._event
        for line in lines:
            if not line:
                if data:
                    frames.append((event or b"message", b"\n".join(data)))
                    data.clear()
                event = b""
                self._data_size = 0
            elif line[0] != _COLON:
                event = self._field(line, event)
        self._event = event

    def _field(self, line: bytes, event: bytes) -> bytes:
        """Takes any other field; returns the name of the event."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_size += len(value)
            self._require_room()
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

    def _keep(self, piece: bytes) -> None:
        """Keeps a piece of a line that is not ended."""
        self._line.append(piece)
        self._line_size += len(piece)
        self._require_room()

    def _taken_line(self) -> bytes:
        line = b"".join(self._line)
        self._line.clear()
        self._line_size = 0
        return line

    def _require_room(self) -> None:
        if self._line_size + self._data_size > self._max:
            raise StreamInvalid(
                f"The provider sent an event of more than {self._max} bytes; check that the base "
                "URL leads to the API."
            )
