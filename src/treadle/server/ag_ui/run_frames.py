"""Events of AG-UI as frames of a stream."""

import msgspec

Json = dict[str, object]

_ENCODER = msgspec.json.Encoder()


class RunFrames:
    """Collects the frames of a run. A field that is None is left out: clients refuse a null."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames: list[bytes] = []

    def add(self, kind: str, **fields: object) -> None:
        """Adds an event."""
        event = {name: value for name, value in fields.items() if value is not None}
        self._frames.append(b"data: %b\n\n" % _ENCODER.encode({"type": kind, **event}))

    def add_delta(self, head: bytes, delta: str) -> None:
        """Adds the growth of a text; `head` is made by `head_of`."""
        self._frames.append(b"%b%b}\n\n" % (head, _ENCODER.encode(delta)))

    def take(self) -> bytes:
        """Returns the frames that were added since the last call."""
        frames = self._frames
        if not frames:
            return b""
        made = frames[0] if len(frames) == 1 else b"".join(frames)
        frames.clear()
        return made


def head_of(kind: str, **fields: object) -> bytes:
    """Returns the beginning of the frames with the deltas of one text."""
    event = {name: value for name, value in fields.items() if value is not None}
    data = _ENCODER.encode({"type": kind, **event})
    return b'data: %b,"delta":' % data[:-1]
