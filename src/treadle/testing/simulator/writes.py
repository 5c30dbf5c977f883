"""Writes: a stream as the network carries it, cut into writes with silences between them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from treadle.testing.simulator.faults import Fault, find
from treadle.testing.simulator.frames import Frame, Piece
from treadle.testing.simulator.turn import Hold, Pause

Write = bytes | Pause | Hold
Cut = Callable[[bytes], Iterator[bytes]]
Ending = Literal["clean", "cut", "stall"]
ENDINGS: Mapping[str, Ending] = {"cut": "cut", "end": "clean", "stall": "stall"}
MAX_WRITE = 64 * 1024

_LEAD_BYTE = re.compile(rb"[\xc0-\xff]")


class Script(Struct, frozen=True):
    """The writes of a body, and its end: complete, a broken connection, or silence."""

    writes: tuple[Write, ...]
    ending: Ending = "clean"


def pace(pieces: Sequence[Piece], every: float, batch: int) -> list[Write]:
    """Joins frames to writes of `batch` deltas, `every` seconds apart.

    Other frames join the delta before them; those before all deltas join the first.
    """
    if batch == 0:
        batch = 1 if every else len(pieces)
    pause = (Pause(every),) if every else ()
    writes: list[Write] = []
    pending = bytearray()
    deltas = 0
    for piece in pieces:
        full = isinstance(piece, Frame) and piece.kind == "delta" and deltas == batch
        if full or not isinstance(piece, Frame) or len(pending) >= MAX_WRITE:
            writes += (bytes(pending), *(pause if full else ()))
            pending.clear()
            deltas = 0
        if isinstance(piece, Frame):
            pending += piece.data
            deltas += piece.kind == "delta"
        else:
            writes.append(piece)
    return [write for write in (*writes, bytes(pending)) if write]


def spoil_writes(writes: Sequence[Write], faults: Sequence[Fault]) -> Script:
    """Applies the faults that count bytes or choose where one write ends and the next begins."""
    ending: Ending = "clean"
    for name, then in ENDINGS.items():
        if fault := find(faults, name):
            writes = _truncate(writes, fault.at or 0)
            ending = then
    if find(faults, "one-byte"):
        writes = _split(writes, _bytes_of)
    elif find(faults, "split-utf8"):
        writes = _split(writes, _inside_characters)
    return Script(tuple(writes), ending)


def _truncate(writes: Sequence[Write], at: int) -> list[Write]:
    kept: list[Write] = []
    for write in writes:
        if isinstance(write, bytes):
            write = write[:at]
            at -= len(write)
        kept.append(write)
        if at == 0:
            break
    return kept


def _split(writes: Sequence[Write], cut: Cut) -> list[Write]:
    split: list[Write] = []
    for write in writes:
        split += cut(write) if isinstance(write, bytes) else (write,)
    return split


def _bytes_of(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def _inside_characters(data: bytes) -> Iterator[bytes]:
    start = 0
    for match in _LEAD_BYTE.finditer(data):
        yield data[start : match.end()]
        start = match.end()
    yield data[start:]
