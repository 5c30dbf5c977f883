"""Server-sent events with their ids, from chunks of bytes that are cut anywhere.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. The parser
for providers (`treadle.streaming.sse`) keeps only the last id of a chunk; a reader that resumes
needs the id of each event.
"""

import re
from typing import NamedTuple

from treadle.errors import RequestFailed

MAX_FRAME_BYTES = 256 * 1024 * 1024
"""The most bytes of one event: the state of a long thread is one."""

_USUAL = re.compile(rb"id: ([^\0\n]*)\nevent: ([^\n]*)\ndata: ([^\n]*)").fullmatch


class Frame(NamedTuple):
    """An event: its id, or "" for one without, its name, and its data; lines are joined by LF.

    A frame of an id alone has no data.
    """

    id: str
    event: str
    data: bytes


class FrameParser:
    """Makes frames of chunks. Raises `RequestFailed` for one that is too long."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._ends_in_return = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """Returns the frames that `chunk` completes."""
        if self._ends_in_return or b"\r" in chunk:
            chunk = self._with_lf_only(chunk)
        pending = self._pending
        start = max(len(pending) - 1, 0)
        pending += chunk
        end = pending.rfind(b"\n\n", start)
        if end < 0:
            if len(pending) > MAX_FRAME_BYTES:
                raise RequestFailed("The server sent an event of more than 256 MiB.")
            return []
        blocks = bytes(pending[:end]).split(b"\n\n")
        del pending[: end + 2]
        frames: list[Frame] = []
        for block in blocks:
            usual = _USUAL(block)
            if usual is not None:
                frames.append(Frame(usual[1].decode(), usual[2].decode(), usual[3]))
            elif frame := _frame(block):
                frames.append(frame)
        return frames

    def _with_lf_only(self, chunk: bytes) -> bytes:
        if self._ends_in_return and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._ends_in_return = False
        if chunk.endswith(b"\r"):
            # The line ends here; an LF at the start of the next chunk belongs to it.
            self._ends_in_return = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _frame(block: bytes) -> Frame | None:
    """Returns the frame of any block of lines; None for one with neither an id nor data."""
    id, event, data = "", "", list[bytes]()
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            event = value.decode(errors="replace")
        elif name == b"id" and b"\0" not in value:
            id = value.decode(errors="replace")
    if not data and not id:
        return None
    return Frame(id, event or "message", b"\n".join(data))
