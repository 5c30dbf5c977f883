"""Chunks of the UI message stream as server-sent events."""

from typing import Protocol

import msgspec

Chunk = dict[str, object]

_ENCODER = msgspec.json.Encoder()

DONE = b"data: [DONE]\n\n"
"""The frame after the last chunk."""

STREAM_HEADER = (b"x-vercel-ai-ui-message-stream", b"v1")
"""The header that tells the protocol of a stream."""


class Chunks(Protocol):
    """What takes chunks: a stream, or a message that is made of them."""

    def add(self, chunk: Chunk) -> None:
        """Takes the next chunk."""
        ...


class ChunkFrames:
    """Chunks as frames of a stream. Fields without a value are left out: null is not valid."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames: list[bytes] = []

    def add(self, chunk: Chunk) -> None:
        """Adds a chunk."""
        self._frames.append(b"data: %b\n\n" % _ENCODER.encode(chunk))

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

    def clear(self) -> None:
        """Drops the frames that were not taken."""
        self._frames.clear()
