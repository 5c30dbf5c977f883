"""Frames: the units of a stream before they become network writes, and the faults among them."""

from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from treadle.testing.simulator.faults import Fault, find
from treadle.testing.simulator.turn import Hold, Pause

FrameKind = Literal["event", "delta", "finish", "terminal"]


class Frame(Struct, frozen=True):
    """The bytes of one SSE frame; `kind` is for pacing and faults."""

    data: bytes
    kind: FrameKind = "event"


class Failure(Struct, frozen=True):
    """An error in mid-stream: its code, and whether it ends the response as `response.failed`."""

    code: str
    failed: bool


class OddFrames(Struct, frozen=True):
    """What faults insert between the frames of a format; what is empty is not inserted."""

    garbage: bytes
    unknown: bytes
    damaged: bytes = b""


_SSE = OddFrames(
    b'data: {"type":"response.output_te\n\n',
    b'event: treadle.unknown\ndata: {"type":"treadle.unknown"}\n\n',
)
Piece = Frame | Pause | Hold
FailureFrame = Callable[[Failure, int], Frame]


def spoil_frames(
    pieces: Sequence[Piece],
    faults: Sequence[Fault],
    failure: FailureFrame,
    odd: OddFrames | None = None,
) -> list[Piece]:
    """Applies the faults that add, drop or rewrite whole frames.

    `failure` makes the frame of an error in mid-stream, given how many frames came before it. `odd`
    are frames of a format that is not server-sent events, whose lines faults rewrite.
    """
    spoiled = _drop(pieces, faults)
    inserted = odd or _SSE
    for name, data in (
        ("garbage", inserted.garbage),
        ("unknown", inserted.unknown),
        ("damaged", inserted.damaged),
    ):
        if data and (fault := find(faults, name)):
            _insert(spoiled, fault.at, data)
    for name in ("error-mid", "failed"):
        if fault := find(faults, name):
            spoiled = _fail(spoiled, fault, failure)
    if not faults or odd is not None:
        return spoiled
    return [_rewrite(piece, faults) if isinstance(piece, Frame) else piece for piece in spoiled]


def _drop(pieces: Sequence[Piece], faults: Sequence[Fault]) -> list[Piece]:
    dropped: set[str] = set()
    if find(faults, "no-terminal"):
        dropped = {"terminal", "finish"}
    elif find(faults, "no-finish"):
        dropped = {"finish"}
    return [p for p in pieces if not (isinstance(p, Frame) and p.kind in dropped)]


def _insert(pieces: list[Piece], at: int | None, data: bytes) -> None:
    pieces.insert(_index(pieces, 1 if at is None else at), Frame(data))


def _fail(pieces: Sequence[Piece], fault: Fault, failure: FailureFrame) -> list[Piece]:
    frames = sum(isinstance(piece, Frame) for piece in pieces)
    sent = frames // 2 if fault.at is None else min(fault.at, frames)
    frame = failure(Failure(fault.value or "server_error", fault.name == "failed"), sent)
    return [*pieces[: _index(pieces, sent)], frame]


def _index(pieces: Sequence[Piece], frames: int) -> int:
    """The index after so many frames, or the end."""
    if frames == 0:
        return 0
    for index, piece in enumerate(pieces):
        frames -= isinstance(piece, Frame)
        if frames == 0:
            return index + 1
    return len(pieces)


def _rewrite(frame: Frame, faults: Sequence[Fault]) -> Frame:
    data = frame.data
    if find(faults, "no-space"):
        data = data.replace(b"data: ", b"data:", 1)
    if find(faults, "comments"):
        data = b": keep-alive\n\n" + data
    if find(faults, "crlf"):
        data = data.replace(b"\n", b"\r\n")
    return Frame(data, frame.kind)
