"""Frames of the Responses API, and the numbers by which a reader continues."""

import msgspec

from treadle.server.responses.delta_cuts import DeltaCuts

_ENCODER = msgspec.json.Encoder()

DONE = b"data: [DONE]\n\n"
"""The frame after the last event."""

VOID = 1_000_000_000
"""After a response of the model broke off, numbers continue at the next multiple of this."""


class ResponseFrames:
    """Collects the frames of a response; a reader has those up to the number `after` already.

    The number of an event counts the events before it, and of the texts before it each character.
    So it depends on what is stored alone, and not on how a text was cut into deltas: any process
    numbers a response in the same way, and continues it in the middle of a text. A reader that
    begins gets its texts cut at `cuts`, too, to which its deltas are added.
    """

    __slots__ = ("_after", "_cuts", "_frames", "_next")

    def __init__(self, after: int = -1, cuts: DeltaCuts | None = None) -> None:
        self._after = after
        self._cuts = cuts
        self._next = 0
        self._frames: list[bytes] = []

    def add(self, kind: str, **fields: object) -> None:
        """Adds an event."""
        number = self._next
        self._next += 1
        if number > self._after:
            self._encode(kind, number, fields)

    def add_delta(self, kind: str, text: str, **fields: object) -> None:
        """Adds the growth of a text; a reader that knows its beginning gets the rest."""
        if not text:
            return
        first = self._next
        self._next += len(text)
        if self._next - 1 <= self._after:
            return
        if first <= self._after:
            text = text[self._after + 1 - first :]
            first = self._after + 1
        last = self._next - 1
        if (cuts := self._cuts) is not None:
            for cut in cuts.between(first, last) if self._after < 0 else ():
                fields["delta"], text = text[: cut + 1 - first], text[cut + 1 - first :]
                self._encode(kind, cut, fields)
                first = cut + 1
            cuts.add(last)
        fields["delta"] = text
        self._encode(kind, last, fields)

    def skip_void(self) -> bool:
        """Continues behind what was taken back; returns whether the reader has seen some of it."""
        last = self._next - 1
        self._next = (last // VOID + 1) * VOID
        return last < self._after < self._next - 1

    def add_notice(self, code: str, message: str) -> None:
        """Adds an error and the end of the stream.

        The error has the number of the event before it, so that a reader that continues after it
        misses nothing.
        """
        number = max(self._next - 1, self._after, 0)
        # The client of OpenAI raises the inner error alone.
        self._encode("error", number, _error(code, message, sequence_number=number))
        self.add_done()

    def add_error(self, code: str, message: str) -> None:
        """Adds an error of the response itself."""
        self.add("error", **_error(code, message))

    def add_done(self) -> None:
        """Adds the end of the stream."""
        self._frames.append(DONE)

    def take(self) -> bytes:
        """Returns the frames that were added since the last call."""
        frames = self._frames
        if not frames:
            return b""
        made = frames[0] if len(frames) == 1 else b"".join(frames)
        frames.clear()
        return made

    def _encode(self, kind: str, number: int, fields: dict[str, object]) -> None:
        data = _ENCODER.encode({"type": kind, "sequence_number": number, **fields})
        self._frames.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))


def _error(code: str, message: str, **inner: object) -> dict[str, object]:
    """Returns the fields of an error in the form of OpenAI, and in that of Open Responses."""
    fields: dict[str, object] = {"code": code, "message": message, "param": None}
    return {**fields, "error": {"type": "server_error", **fields, **inner}}
