"""Server-sent events: an incremental parser over bytes.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re

from treadle.errors import StreamInvalid

_BOM = b"\xef\xbb\xbf"
_NAMED_FRAMES = re.compile(rb"^event: (.+)\ndata: (.*)\n\n", re.MULTILINE).findall
_USUAL_BLOCK = re.compile(rb"(?:event: (.+)\n)?data: (.*)").fullmatch
_COMMENT = re.compile(rb":.*").fullmatch
_MAX_RETRY_DIGITS = 15
_JSON = (b"{", b"[", b",{")


Frame = tuple[bytes, bytes]
"""One event: its name (`b"message"` by default) and its data, lines joined by LF."""


class SseParser:
    """Parses an event stream from chunks cut anywhere.

    `last_event_id` (at first `b""`) and `retry` (milliseconds, at first `None`; more than 15 digits
    are ignored) take the values of a block of lines when its blank line has come. Names and data
    stay bytes, for the decoder that reads them next.

    The specification ignores lines of unknown fields. Servers put errors there, so two kinds become
    events: a field `error` (an event of that name), and lines from one that begins with `{` or `[`
    to the next blank line, which are JSON without `data:` (a message).

    Raises `StreamInvalid` when more than `max_frame_bytes` (default 16 MiB) come without a blank
    line, a line end counted as one byte; the parser cannot be used after that. Events before it are
    returned first: then `failure` is the error, which the next call raises.
    """

    def __init__(self, *, max_frame_bytes: int = 16 * 1024 * 1024) -> None:
        self._max = max_frame_bytes
        self._start: bytes | None = b""
        self._skip_lf = False
        self._pending = bytearray()
        self.failure: StreamInvalid | None = None
        self.last_event_id = b""
        self.retry: int | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """Returns the events that `chunk` completes."""
        if self.failure is not None:
            raise self.failure
        if self._start is not None:
            chunk = self._without_bom(chunk)
        if self._skip_lf or b"\r" in chunk:
            chunk = self._with_lf_only(chunk)
        if self._pending:
            chunk = self._with_pending(chunk)
        end = chunk.rfind(b"\n\n") + 2
        if end > 1 and len(chunk) <= self._max:
            # Usually all frames have two lines; comparing the number of lines proves it.
            frames: list[Frame] = _NAMED_FRAMES(chunk, 0, end)
            if len(frames) * 3 == chunk.count(b"\n", 0, end):
                self._pending += chunk[end:]
                return frames
        blocks = chunk.split(b"\n\n")
        rest = blocks.pop()
        if len(chunk) > self._max:
            blocks = self._within_room(blocks, rest)
        if rest:
            self._pending += rest
        frames = self._frames(blocks) if blocks else []
        if self.failure is not None and not frames:
            raise self.failure
        return frames

    def flush(self) -> list[Frame]:
        """The stream has ended: returns a last event that lacks its blank line.

        The specification drops it; but some servers end with `data: [DONE]` and no blank line.
        A last line without its line end counts as a line.
        """
        block = bytes(self._pending).removesuffix(b"\n")
        self._pending.clear()
        self._within_room([block], b"")
        if self.failure is not None:
            raise self.failure
        return self._frames([block])

    def _frames(self, blocks: list[bytes]) -> list[Frame]:
        frames: list[Frame] = []
        for block in blocks:
            usual = _USUAL_BLOCK(block)
            if usual is not None:
                frames.append((usual[1] or b"message", usual[2]))
            elif block and not _COMMENT(block):
                self._any_block(block, frames)
        return frames

    def _any_block(self, block: bytes, frames: list[Frame]) -> None:
        event, data, errors = b"", list[bytes](), list[bytes]()
        bare: list[bytes] = []
        for line in block.split(b"\n"):
            if bare or line.startswith(_JSON):
                bare.append(line)
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name == b"event":
                event = value
            elif name == b"error":
                errors.append(value)
            else:
                self._setting(name, value)
        if data:
            frames.append((event or b"message", b"\n".join(data)))
        if errors:
            frames.append((b"error", b"\n".join(errors)))
        if bare:
            frames.append((event or b"message", b"\n".join(bare)))

    def _setting(self, name: bytes, value: bytes) -> None:
        if name == b"id" and b"\0" not in value:
            self.last_event_id = value
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry = int(value)

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

    def _with_pending(self, chunk: bytes) -> bytes:
        """Returns all from the last blank line on if `chunk` ends a block, else keeps `chunk`."""
        pending = self._pending
        ends = b"\n\n" in chunk or (chunk.startswith(b"\n") and pending.endswith(b"\n"))
        pending += chunk
        if not ends:
            self._within_room([], pending)
            if self.failure is not None:
                raise self.failure
            return b""
        chunk = bytes(pending)
        pending.clear()
        return chunk

    def _within_room(self, blocks: list[bytes], pending: bytes | bytearray) -> list[bytes]:
        """Returns the blocks in front of the first one that is too long; notes the failure."""
        for place, block in enumerate(blocks):
            if len(block) > self._max:
                self._fail()
                return blocks[:place]
        # The last byte of `pending` may be the line end that the blank line follows.
        if len(pending) - 1 > self._max:
            self._fail()
        return blocks

    def _fail(self) -> None:
        self.failure = StreamInvalid(
            f"The provider sent an event of more than {self._max} bytes; check that the base URL "
            "leads to the API."
        )
